"""Where two configs differ in what a result depends on."""

import json
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ahm_jax.config.build import from_config_dict
from ahm_jax.config.fields import CLASSIFY, REPRODUCE, STAGES, Config
from ahm_jax.config.methods import parse
from ahm_jax.config.tree import leaves
from ahm_jax.errors import UserError


class Difference(NamedTuple):
  name: str  # Of the field.
  held: Any
  own: Any


def differences(held: Config, own: Config, stage: str) -> list[Difference]:
  """The fields in which two configs differ and that the result of a stage depends on.

  That of a grid, REPRODUCE, is that of all stages, of CLASSIFY where the `held` one classifies; and
  a method of one name must be the same in both.
  """
  stages = {stage}
  if stage == REPRODUCE:
    stages = set(STAGES) if held.grid.classify else {*STAGES} - {CLASSIFY}
  fields = [
    Difference(old.name, old.value, new.value)
    for old, new in zip(leaves(held), leaves(own), strict=True)
    if old.stages & stages and old.value != new.value
  ]
  return fields + _methods(held, own) if stage == REPRODUCE else fields


def _methods(held: Config, own: Config) -> list[Difference]:
  old, new = held.grid.variants, own.grid.variants
  return [
    Difference(f'grid.variants.{name}', old.get(name), new.get(name))
    for name in own.grid.methods
    if name in (*held.grid.methods, *old) and parse(name, old) != parse(name, new)
  ]


def check_same(
  what: str,
  stage: str,
  held: Mapping[str, Any],
  own: Config,
  free: Collection[str] = (),
  remedy: str = '',
) -> None:
  """Makes sure that a config that was written down differs from this one in nothing that a result
  of the stage depends on.

  Args:
    what: begins the sentence that says what differs.
    held: the written config; fields that are not in it take their defaults.
    free: fields that may differ besides.

  Raises:
    UserError: it does.
  """
  for name, old, new in differences(from_config_dict(held), own, stage):
    if name not in free:
      raise UserError(
        f'{what} with config.{name} = {_plain(old)!r}, and this one has {_plain(new)!r}; {remedy}'
      )


def _plain(value: Any) -> Any:
  """As JSON holds it."""
  return json.loads(json.dumps(value))
