"""Masking strategies by name: which patches to hide, and how to get better at it.

A strategy is three pure functions (`ahm_jax.masking.strategy.Strategy`). The pre-training step calls them and never asks which
strategy it runs; a new one is a function that builds a `Strategy`, a line in `_BUILDERS`, and its name in `config.STRATEGIES`.
"""

from ahm_jax.masking import agents, rivals, static
from ahm_jax.masking.strategy import Context, Strategy

_BUILDERS = {
  'uniform': static.uniform,
  'untrained': agents.untrained,
  'reinforce': agents.reinforce,
  'ahm': agents.ahm,
  'blockwise': static.blockwise,
  'saliency': static.saliency,
  'anatomask': rivals.anatomask,
  'hpm': rivals.hpm,
  'adamae': rivals.adamae,
  'adios': rivals.adios,
}


def build(context: Context) -> Strategy:
  """The strategy that `context.masking.strategy` names."""
  return _BUILDERS[context.masking.strategy](context)
