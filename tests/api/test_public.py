"""What `import ahm_jax` offers, and what it costs."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ahm_jax

ROOT = Path(__file__).parents[2]
LOOK = """
import sys
import ahm_jax
assert {'jax', 'numpy', 'absl', 'ml_collections'}.isdisjoint(sys.modules), 'ahm_jax imports them'
config = ahm_jax.get_config('smoke')
assert 'jax' not in sys.modules, 'a config needs no jax'
assert ahm_jax.UserError.__module__ == 'ahm_jax.errors' and 'jax' not in sys.modules
ahm_jax.load
assert 'jax' in sys.modules
"""


def test_importing_it_imports_nothing_large():
  subprocess.run([sys.executable, '-c', LOOK], cwd=ROOT, check=True)


def test_every_public_name_is_there_with_a_docstring():
  assert set(ahm_jax.__all__) <= set(dir(ahm_jax))
  for name in ahm_jax.__all__:
    found = getattr(ahm_jax, name)
    assert name == '__version__' or found.__doc__, name
    assert name == '__version__' or found.__name__ == name
  with pytest.raises(AttributeError, match="'ahm_jax' has no attribute 'lode'"):
    ahm_jax.lode  # noqa: B018


def test_packages_below_are_not_hidden():
  from ahm_jax import config, predict

  assert config.default and predict.__path__


def test_the_version_is_that_of_pyproject(monkeypatch, tmp_path):
  told = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
  assert ahm_jax.__version__ == told
  from ahm_jax.api import version

  installed = tmp_path / 'site-packages/ahm_jax/api/version.py'
  monkeypatch.setattr(version, '__file__', str(installed))
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: f'{name} 9')
  assert version._version() == 'ahm_jax 9'
  (tmp_path / 'site-packages').mkdir()
  foreign = tmp_path / 'site-packages/pyproject.toml'
  foreign.write_text('[project]\nname = "other"\nversion = "1"\n')
  assert version._version() == 'ahm_jax 9'
  foreign.write_text('[project]\nname = "ahm_jax"\nversion = "1"\n')
  assert version._version() == '1'
