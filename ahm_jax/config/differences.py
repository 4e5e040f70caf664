"""Where two configs differ in what a result depends on."""

from typing import Any, NamedTuple

from ahm_jax.config.fields import CLASSIFY, PRETRAIN, REPRODUCE, SEGMENT, Config
from ahm_jax.config.methods import parse
from ahm_jax.config.tree import leaves


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
    stages = {PRETRAIN, SEGMENT, CLASSIFY} if held.grid.classify else {PRETRAIN, SEGMENT}
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
    if name in held.grid.methods and parse(name, old) != parse(name, new)
  ]
