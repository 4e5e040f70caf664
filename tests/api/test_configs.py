"""Configs from Python: the same as the command line makes, and refused alike."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

import ahm_jax
from ahm_jax.config import from_config_dict
from ahm_jax.errors import UserError
from configs import folder, isic_cpu, phantom

OWN = """
from ahm_jax import config
from configs import smoke

def get_config(kind=''):
  c = smoke.get_config()
  c.seed = {'': 3, 'seven': 7}[kind]
  c.segment.steps = c.pretrain.get_ref('steps') // 2
  return c
"""


def test_a_shipped_config_by_name():
  assert ahm_jax.get_config('phantom') == from_config_dict(phantom.get_config())
  few = isic_cpu.get_config('few')
  few.data.root = '/data'
  assert ahm_jax.get_config('isic_cpu:few', **{'data.root': Path('/data')}) == from_config_dict(few)
  shipped = Path(__file__).parents[2] / 'configs/folder.py'
  cpu = ahm_jax.get_config(f'{shipped}:cpu', **{'data.root': 'x'})
  assert cpu == ahm_jax.get_config('folder:cpu', **{'data.root': 'x'})
  assert cpu.model.unet_width == folder.get_config('cpu').model.unet_width


def test_overrides_are_fields_with_dots():
  found = ahm_jax.get_config(
    'phantom',
    seed=np.int64(3),
    init_from=Path('runs/a'),
    **{
      'data.labels': 7,
      'grid.labels': [8, 9],
      'grid.methods': 'scratch,ahm',
      'pretrain.learning_rate': 1,
      'pretrain.epochs': np.float64(2.5),
      'masking.strategy': 'uniform',
      'grid.variants': {'twice': {'strategy': 'ahm', 'masking': {'rounds': 2}}},
    },
  )
  assert (found.seed, found.init_from, found.data.labels) == (3, 'runs/a', 7)
  assert found.grid.labels == (8, 9) and found.grid.methods == ('scratch', 'ahm')
  assert found.pretrain.learning_rate == 1.0 and found.pretrain.epochs == 2.5
  assert found.masking.strategy == 'uniform' and 'twice' in found.grid.variants
  assert found.data.image_size == 64


def test_ones_own_file(tmp_path):
  """Which may build on a shipped one; what refers to a field follows it."""
  path = tmp_path / 'own.py'
  path.write_text(OWN)
  found = ahm_jax.get_config(path, **{'pretrain.steps': 12})
  assert (found.seed, found.pretrain.steps, found.segment.steps) == (3, 12, 6)
  assert found.data.image_size == 32
  assert ahm_jax.get_config(f'{path}:seven').seed == 7


def test_other_modules_called_configs_are_left_alone(monkeypatch):
  other = types.ModuleType('configs')
  monkeypatch.setitem(sys.modules, 'configs', other)
  monkeypatch.setitem(sys.modules, 'configs.isic_cpu', other)
  assert ahm_jax.get_config('phantom').data.image_size == 64
  assert sys.modules['configs'] is sys.modules['configs.isic_cpu'] is other


@pytest.mark.parametrize(
  ('name', 'fields', 'message'),
  [
    ('phantm', {}, 'config=phantm: there is no such config; did you mean phantom, phantom_mri?'),
    ('phantom:x', {}, "configs/phantom.py has no variant 'x'; choose one of baselines, ablations"),
    ('smoke:x', {}, 'smoke.py has no variants; leave out the colon'),
    ('phantom', {'sed': 1}, 'config has no field sed; did you mean seed?'),
    ('phantom', {'data.lables': 1}, 'config has no field data.lables; did you mean data.labels?'),
    ('phantom', {'a.b.c': 1}, 'config has no field a; did you mean data?'),
    ('phantom', {'data.labels.x': 1}, 'config has no field data.labels.x: labels is one itself'),
    ('phantom', {'data': {'labels': 1}}, 'config.data is no field; set those in it, as data.name'),
    ('phantom', {'data.labels': 'many'}, "config.data.labels must be of type int, not 'many'"),
    ('phantom', {'data.labels': None}, 'config.data.labels must be of type int, not None'),
    ('phantom', {'data.labels': 2.0}, 'config.data.labels must be of type int, not 2.0'),
    ('phantom', {'data.labels': True}, 'config.data.labels must be of type int, not True'),
    ('phantom', {'data.labels': -1}, 'config.data.labels is -1; it must be at least 0'),
    ('phantom', {'data.image_size': 100}, 'not a multiple of 16'),
    ('phantom', {'pretrain.learning_rate': float('nan')}, 'config.pretrain.learning_rate is nan'),
    ('phantom', {'masking.strategy': 3}, 'config.masking.strategy must be of type str, not 3'),
  ],
)
def test_what_is_wrong_is_said_in_one_line(name, fields, message):
  with pytest.raises(UserError) as refused:
    ahm_jax.get_config(name, **fields)
  assert message in str(refused.value) and '\n' not in str(refused.value)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('x = 1', 'has no function get_config; give a config file'),
    ('get_config = 3', 'has no function get_config'),
    ('def get_config(): return None', 'gives NoneType; it must return a ConfigDict'),
    ('def get_config(): return {}', 'gives dict; it must return a ConfigDict'),
  ],
)
def test_a_file_that_makes_no_config_is_refused(tmp_path, text, message):
  (tmp_path / 'own.py').write_text(text)
  with pytest.raises(UserError, match=message):
    ahm_jax.get_config(tmp_path / 'own.py')


def test_a_file_that_cannot_be_read_is_not_called_missing(tmp_path, monkeypatch):
  path = tmp_path / 'own.py'
  path.write_text(OWN)

  def refuse(*_):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr('importlib.machinery.SourceFileLoader.get_code', refuse)
  with pytest.raises(UserError, match=r'own.py cannot be read \(Permission denied\)'):
    ahm_jax.get_config(path)
