"""Configs from Python, as --config and --config.FIELD=VALUE make them on the command line."""

import inspect
import os
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from ahm_jax.config import Config, from_config_dict, shipped
from ahm_jax.config.tree import leaves
from ahm_jax.errors import UserError, cannot_read


def get_config(config: str | os.PathLike[str], /, **overrides: Any) -> Config:
  """A config, checked as those of the commands are.

  Args:
    config: NAME[:variant] of one that comes with ahm_jax, as 'phantom' or 'isic_cpu:few', or
      FILE[:variant], the path of a Python file with a function `get_config`.
    overrides: fields to change, with dots between them and their sections:
      `get_config('folder:cpu', seed=1, **{'data.root': 'mine', 'data.labels': 20})`. Every field,
      with its meaning, range and default: `ahm_jax/config/fields.py`.

  Raises:
    UserError: there is no such config, variant or field, or a field has a wrong type or is out of
      its range.
  """
  file, variant = shipped.config_file(os.fspath(config), 'config')
  with shipped.importable_configs():
    tree = _tree(Path(file), variant)
  others = {name: _plain(x) for name, x in overrides.items() if not _set(tree, name, _plain(x))}
  plain = tree.to_dict()
  for name, value in others.items():
    _nest(plain, name, value)
  return from_config_dict(plain)


def _tree(path: Path, variant: str | None) -> ml_collections.ConfigDict:
  """What a config file makes."""
  module = types.ModuleType(path.stem)
  module.__file__ = str(path)
  try:
    code = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
  except OSError as error:
    raise UserError(cannot_read(path, error)) from error
  exec(code or '', vars(module))
  make = getattr(module, 'get_config', None)
  if not callable(make):
    raise UserError(f'{path} has no function get_config; give a config file')
  if variant is not None and not inspect.signature(make).parameters:
    raise UserError(f'{path} has no variants; leave out the colon and what follows it')
  tree = make() if variant is None else make(variant)
  if not isinstance(tree, ml_collections.ConfigDict):
    raise UserError(
      f'get_config of {path} gives {type(tree).__name__}; it must return a ConfigDict, such as '
      'ahm_jax.config.default() changed'
    )
  return tree


def _plain(value: Any) -> Any:
  """A value as fields hold it: text, Python's own numbers and tuples."""
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, np.generic):
    return value.item()
  return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _set(tree: ml_collections.ConfigDict, name: str, value: Any) -> bool:
  """Changes a field, and what refers to it; whether there is such a field, of the value's type.

  Raises:
    UserError: it is a section.
  """
  if name in _SECTIONS:
    raise UserError(f'config.{name} is no field; set those in it, as {_SECTIONS[name]}')
  *sections, last = name.split('.')
  section: Any = tree
  try:
    for part in sections:
      section = section[part]
    if last not in section:
      return False
    section[last] = value
  except (KeyError, TypeError, ValueError, AttributeError):
    return False
  return True


def _nest(plain: dict[str, Any], name: str, value: Any) -> None:
  """Puts a value where `from_config_dict` will say what is wrong with it, if anything is."""
  *sections, last = name.split('.')
  for part in sections:
    plain = plain.setdefault(part, {})
    if not isinstance(plain, dict):
      raise UserError(f'config has no field {name}: {part} is one itself')
  plain[last] = value


def _sections() -> dict[str, str]:
  """The sections of a config, each with its first field."""
  found: dict[str, str] = {}
  for leaf in leaves(Config()):
    parts = leaf.name.split('.')
    for end in range(1, len(parts)):
      found.setdefault('.'.join(parts[:end]), leaf.name)
  return found


_SECTIONS = _sections()
