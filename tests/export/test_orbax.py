"""An export in Orbax's format is read back before it is called done."""

import jax
import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.export import export as module
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs import checkpoints
from ahm_jax.runs.trained import load
from tests.runs.test_trained import make_trained


@pytest.fixture
def trained(monkeypatch):
  found = make_trained()
  monkeypatch.setattr(module, 'load', lambda *_: found)
  return found


@pytest.mark.parametrize('name', ['a[x]', 'a]b', 'a*', 'what?', 'back\\slash', 'a[x]/below', '**'])
@pytest.mark.usefixtures('trained')
def test_a_folder_in_which_nothing_is_found_again_is_refused(tmp_path, name):
  with pytest.raises(UserError, match=r'^--out leads to .*; choose a folder without$'):
    module.export(tmp_path, 'orbax', tmp_path / name)
  assert not list(tmp_path.iterdir())
  module.export(tmp_path, 'npz', tmp_path / name)  # Which NumPy writes.
  assert (tmp_path / name / 'weights.npz').exists()


@pytest.mark.parametrize('written', ['nothing', 'other numbers', 'a part'])
@pytest.mark.usefixtures('trained')
def test_what_does_not_come_back_is_no_export(tmp_path, monkeypatch, written):
  whole = checkpoints.write_variables

  def write(path, variables):
    params = dict(variables['params'])
    if written == 'nothing':
      return path.mkdir()
    name, layer = params.popitem()
    if written == 'other numbers':
      params[name] = jax.tree.map(np.zeros_like, layer)
    return whole(path, {**variables, 'params': params})

  monkeypatch.setattr(checkpoints, 'write_variables', write)
  with pytest.raises(UserError, match=r'does not give back what was written|export it again'):
    module.export(tmp_path, 'orbax', tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_an_export_comes_back(trained, tmp_path):
  module.export(tmp_path, 'orbax', tmp_path / 'ä b')
  assert load(tmp_path / 'ä b', (SEGMENT,)).digest == trained.digest


@pytest.mark.usefixtures('trained')
def test_an_export_is_not_loaded_where_its_arrays_are_not_found(tmp_path):
  module.export(tmp_path, 'orbax', tmp_path / 'out')
  (tmp_path / 'out').rename(tmp_path / 'back\\slash')
  with pytest.raises(UserError, match=r'^--checkpoint leads to .* holds \\, with which'):
    load(tmp_path / 'back\\slash', (SEGMENT,))
