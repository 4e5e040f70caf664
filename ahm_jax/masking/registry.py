"""Masking strategies by name: which patches to mask, and how to get better at it.

A strategy is a few pure functions (`ahm_jax.masking.strategy.Strategy`). The pre-training step
calls them and never asks which strategy it runs; a new one is a function that builds a `Strategy`
and a line in `_BUILDERS`.
"""

import difflib
from collections.abc import Callable, Mapping

from ahm_jax.errors import UserError
from ahm_jax.masking import agents, baselines, heuristics, oracles
from ahm_jax.masking.strategy import Context, Strategy

_BUILDERS: Mapping[str, Callable[[Context], Strategy]] = {
  'uniform': heuristics.uniform,
  'untrained': agents.untrained,
  'reinforce': agents.reinforce,
  'ahm': agents.ahm,
  'blockwise': heuristics.blockwise,
  'saliency': heuristics.saliency,
  'anatomask': baselines.anatomask,
  'hpm': baselines.hpm,
  'adamae': baselines.adamae,
  'adios': baselines.adios,
  'oracle_lesion': oracles.lesion_first,
  'oracle_border': oracles.border_first,
  'oracle_background': oracles.background_first,
}


def names() -> tuple[str, ...]:
  """Of all strategies."""
  return tuple(_BUILDERS)


def check(name: str) -> None:
  """Raises a UserError where no strategy has this name."""
  if name not in _BUILDERS:
    near = difflib.get_close_matches(name, _BUILDERS, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise UserError(f'{name!r} is no masking strategy; there are {", ".join(_BUILDERS)}{hint}')


def build(context: Context) -> Strategy:
  """The strategy that `context.masking.strategy` names; raises as `check` does."""
  check(context.masking.strategy)
  return _BUILDERS[context.masking.strategy](context)
