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


# Those whose masks depend on what lies beside a patch, or know patches of the image alone.
_OF_IMAGES = ('blockwise', 'saliency', 'oracle_lesion', 'oracle_border', 'oracle_background')


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
  """The strategy that `context.masking.strategy` names.

  Raises:
    UserError: as `check`; or it cannot mask per modality, and is asked to.
  """
  name = context.masking.strategy
  check(name)
  if context.masking.per_modality and name in _OF_IMAGES:
    others = ', '.join(other for other in _BUILDERS if other not in _OF_IMAGES)
    raise UserError(
      f'{name!r} masks a patch of all modalities at once, and config.masking.per_modality asks for '
      f'one of each; leave that at False, or take one of {others}'
    )
  return _BUILDERS[context.masking.strategy](context)
