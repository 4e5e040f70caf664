"""Between a ConfigDict, nested dicts that JSON can hold, and a checked `Config`."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import ml_collections
from ml_collections.config_dict import placeholder

from ahm_jax.config.checks import check
from ahm_jax.config.fields import Config, FrozenDict
from ahm_jax.config.ranges import LARGEST
from ahm_jax.config.tree import types as types_of
from ahm_jax.errors import UserError

Section = TypeVar('Section')


def default() -> ml_collections.ConfigDict:
  """The defaults of `Config` as a ConfigDict, unlocked, for a file in `configs/` to change."""
  return _to_config_dict(Config())


def check_variant(file: str, variant: str, variants: Collection[str]) -> None:
  """Raises a UserError where the config file `file` has no such variant; '' is none."""
  if variant not in variants:
    names = ', '.join(filter(None, variants))
    raise UserError(
      f'configs/{Path(file).name} has no variant {variant!r}; choose one of {names}, or none'
    )


def _to_config_dict(section: Any) -> ml_collections.ConfigDict:
  tree = ml_collections.ConfigDict()
  hints = types_of(section)
  for item in dataclasses.fields(section):
    value = getattr(section, item.name)
    if dataclasses.is_dataclass(value):
      tree[item.name] = _to_config_dict(value)
    elif isinstance(hints[item.name], types.UnionType):
      tree[item.name] = placeholder(typing.get_args(hints[item.name])[0])
      if value is not None:
        tree[item.name] = value
    else:
      tree[item.name] = value
  return tree


def from_config_dict(tree: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
  """Builds and checks a `Config`.

  Args:
    tree: a ConfigDict, or nested dict (as `to_dict` writes it); missing fields take their defaults.

  Raises:
    UserError: a field is unknown, of a wrong type, or out of its range.
  """
  plain = tree.to_dict() if isinstance(tree, ml_collections.ConfigDict) else tree
  config = _build(Config(), plain, '')
  check(config)
  return config


def to_dict(config: Config) -> dict[str, Any]:
  """The config as nested dicts that JSON can hold; `from_config_dict` reads them back."""
  return dataclasses.asdict(config)


def _build(default: Section, values: Mapping[str, Any], prefix: str) -> Section:
  """`default`, a section, with the fields in `values` put in its place.

  So the recipes keep their own defaults.
  """
  hints = types_of(default)
  if not isinstance(values, Mapping):
    raise UserError(f'config.{prefix[:-1]} must hold fields, not be {values!r}'.replace('. ', ' '))
  unknown = sorted(set(map(str, values)) - set(hints))
  if unknown:
    near = difflib.get_close_matches(unknown[0], hints, n=1, cutoff=0)
    raise UserError(f'config has no field {prefix}{unknown[0]}; did you mean {prefix}{near[0]}?')
  built = {}
  for name, value in values.items():
    current = getattr(default, name)
    if dataclasses.is_dataclass(current):
      built[name] = _build(current, value, f'{prefix}{name}.')
    else:
      built[name] = _convert(hints[name], value, prefix + name)
  return dataclasses.replace(default, **built)  # type: ignore[type-var]


def _convert(hint: Any, value: Any, name: str) -> Any:
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if isinstance(hint, types.UnionType):
    return None if value is None else _convert(inner[0], value, name)
  if origin is Literal:
    return _convert(type(inner[0]), value, name)
  if origin is tuple:
    return tuple(_convert(inner[0], item, name) for item in _items(inner[0], value))
  if hint is FrozenDict:
    return _frozen(value, name)
  accepted = (int, float) if hint is float else hint
  if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
    raise UserError(f'config.{name} must be of type {hint.__name__}, not {value!r}')
  if isinstance(value, int) and abs(value) > LARGEST:
    raise UserError(f'config.{name} is above {LARGEST}; give a smaller number')
  return hint(value)


def _items(kind: type, value: Any) -> list | tuple:
  items = value if isinstance(value, list | tuple) else (value,)
  if kind is str and len(items) == 1:  # A flag's --config.grid.methods=scratch,ahm is one text.
    return str(items[0]).split(',')
  return items


def _frozen(value: Any, name: str) -> FrozenDict:
  if not isinstance(value, Mapping):
    raise UserError(f'config.{name} must be of type dict, not {value!r}')
  return FrozenDict(
    (key, _frozen(item, name) if isinstance(item, Mapping) else item) for key, item in value.items()
  )
