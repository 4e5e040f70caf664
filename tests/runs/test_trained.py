"""What was trained, and the export in Orbax's format that it is read back from."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.export import card
from ahm_jax.runs import checkpoints
from ahm_jax.runs.source import STAGES, load
from ahm_jax.runs.trained import FILE, VARIABLES, checked, config_digest
from ahm_jax.runtime import trees

FACTS = {'format': 'orbax', 'licence': '', 'versions': {}, 'notes': {}}


@pytest.fixture(scope='module')
def trained(make_trained):
  return make_trained('segment')


@pytest.fixture(scope='module')
def export(trained, tmp_path_factory):
  """Not to be changed."""
  home = tmp_path_factory.mktemp('export') / 'segment'
  home.mkdir()
  checkpoints.write_variables(home / VARIABLES, trained.variables)
  card.write(trained, home, FACTS)
  return home


@pytest.fixture
def own(export, tmp_path):
  """A copy to spoil."""
  return shutil.copytree(export, tmp_path / 'own')


def refusal(path, wanted=STAGES):
  with pytest.raises(UserError) as caught:
    load(path, wanted)
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)
  return str(caught.value)


def change(path, **fields):
  told = json.loads((path / FILE).read_text())
  (path / FILE).write_text(json.dumps({**told, **fields}))


def test_an_export_comes_back_to_the_bit(trained, export):
  found = load(export, ('segment',))
  assert (found.stage, found.step, found.config, found.digest) == (
    'segment',
    7,
    trained.config,
    trained.digest,
  )
  ours, theirs = trees.flatten(found.variables), trees.flatten(trained.variables)
  assert ours.keys() == theirs.keys()
  assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_it_computes_in_float32_what_the_network_does(trained):
  images = np.random.default_rng(0).integers(0, 256, (2, *trained.shape), np.uint8)
  found = np.asarray(jax.jit(trained.probabilities)(trained.variables, images))
  scaled = (images / np.float32(255) - 0.5) / 0.25
  logits = jax.jit(lambda v, x: trained.network.apply(v, x, train=False))(trained.variables, scaled)
  assert logits.dtype == np.float32 and trained.config.model.dtype == 'bfloat16'
  np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.asarray(logits)[..., 0])), atol=1e-5)


def test_the_digest_of_a_config_does_not_ask_for_order(trained):
  config = trained.config
  assert config_digest(config) == config_digest(dataclasses.replace(config))
  assert config_digest(config) != config_digest(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize('text', ['', '{', '[]', '{}', '"text"', 'null'])
def test_a_damaged_description_is_refused(own, text):
  (own / FILE).write_text(text)
  assert 'cannot be read as the description of an export; export it again' in refusal(own)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'format': 'onnx'},
      'is an export in the format onnx; give one of --format=orbax, or the workdir of a run',
    ),
    ({'stage': 'pretrain'}, 'is an export of a pretrain run; give one of a segment run'),
    ({'config': {'sead': 1}}, 'sead'),
    (
      {'digest': '0' * 64},
      'is damaged: its numbers are not those that were exported; export it again',
    ),
    ({'step': 'seven'}, 'cannot be read as the description of an export'),
  ],
)
def test_a_description_of_something_else_is_refused(own, fields, message):
  change(own, **fields)
  with pytest.raises(UserError) as caught:
    load(own, ('segment',))
  assert message in str(caught.value) and '\n' not in str(caught.value)


def test_weights_of_another_width_are_refused(own):
  told = json.loads((own / FILE).read_text())
  told['config']['model']['unet_width'] = 3
  change(own, config=told['config'])
  assert 'batch_stats/decoder1/first/norm/mean is 2 in its weights but 3 by its config' in refusal(
    own
  )


def test_damaged_and_missing_arrays_are_refused(own):
  for path in (own / VARIABLES).rglob('d/*'):  # Not all of them are read: some lie on the way.
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)
  refusal(own)
  shutil.rmtree(own / VARIABLES)
  assert 'is damaged' in refusal(own)


def test_shapes_that_do_not_belong_to_the_config_are_named(trained):
  config = dataclasses.replace(
    trained.config, model=dataclasses.replace(trained.config.model, unet_width=3)
  )
  with pytest.raises(
    UserError, match=r'/decoder1/first/norm/mean is 2 in its weights but 3 by its config'
  ):
    checked(dataclasses.replace(trained, config=config))
  del (params := dict(trained.variables['params']))['head']
  with pytest.raises(
    UserError, match=r'params/head/bias is not there in its weights but 1 by its config'
  ):
    checked(dataclasses.replace(trained, variables={**trained.variables, 'params': params}))


def test_a_folder_without_anything_is_refused(tmp_path):
  assert 'there is no such folder; give the workdir of a segment run' in refusal(
    tmp_path / 'nowhere', ('segment',)
  )
  assert 'holds no run; give the --workdir of a pretrain or segment or classify run' in refusal(
    tmp_path
  )
