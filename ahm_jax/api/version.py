"""The version of this package, of which pyproject.toml is the one source."""

import importlib.metadata
import tomllib
from pathlib import Path


def _version() -> str:
  """That of the checkout which this file lies in, else of the installed package: a checkout may be
  used beside an installed one, or with none.
  """
  project = Path(__file__).parents[2] / 'pyproject.toml'
  if project.is_file():
    told = tomllib.loads(project.read_text(encoding='utf-8')).get('project', {})
    if told.get('name') == 'ahm_jax':
      return told['version']
  return importlib.metadata.version('ahm_jax')


__version__ = _version()
