"""Between a ConfigDict, nested dicts that JSON can hold, and a checked `Config`."""

import dataclasses
import difflib
import re
import types
import typing

import ml_collections
from ml_collections.config_dict import placeholder

from ahm_jax.config.checks import check
from ahm_jax.config.fields import Config
from ahm_jax.errors import UserError


def default() -> ml_collections.ConfigDict:
  """The defaults of `Config` as a ConfigDict, unlocked, for a file in `configs/` to change."""
  return _to_config_dict(Config())


def _to_config_dict(instance) -> ml_collections.ConfigDict:
  tree = ml_collections.ConfigDict()
  hints = typing.get_type_hints(type(instance))
  for item in dataclasses.fields(instance):
    value = getattr(instance, item.name)
    if dataclasses.is_dataclass(value):
      tree[item.name] = _to_config_dict(value)
    elif isinstance(hints[item.name], types.UnionType):
      tree[item.name] = placeholder(typing.get_args(hints[item.name])[0])
      if value is not None:
        tree[item.name] = value
    else:
      tree[item.name] = value
  return tree


def from_config_dict(tree) -> Config:
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


def to_dict(config: Config) -> dict:
  """The config as nested dicts that JSON can hold; `from_config_dict` reads them back."""
  return dataclasses.asdict(config)


def _build(default, values: dict, prefix: str):
  """`default`, a dataclass, with the fields in `values` put in its place.

  So the recipes keep their own defaults.
  """
  hints = typing.get_type_hints(type(default))
  unknown = sorted(set(values) - set(hints))
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
  return dataclasses.replace(default, **built)


def _convert(hint, value, name: str):
  if isinstance(hint, types.UnionType):
    return None if value is None else _convert(typing.get_args(hint)[0], value, name)
  if typing.get_origin(hint) is tuple:
    items = value if isinstance(value, list | tuple) else (value,)
    kind = typing.get_args(hint)[0]
    if (
      kind is str and len(items) == 1
    ):  # A flag's --config.grid.methods=scratch,ahm comes as one text.
      items = re.split(
        r',(?![^(]*\))', str(items[0])
      )  # But not within a tuple, as in ahm:ema_decay=(0.9,0.99).
    return tuple(_convert(kind, item, name) for item in items)
  accepted = (int, float) if hint is float else hint
  if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
    raise UserError(f'config.{name} must be of type {hint.__name__}, not {value!r}')
  return hint(value)
