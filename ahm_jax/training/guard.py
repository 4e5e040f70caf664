"""What every step is wrapped in: a step that leads to numbers that are not finite is not taken."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.runs.metrics_log import SKIPPED
from ahm_jax.runtime.parallel import DEVICES, Step
from ahm_jax.task import TrainState


@functools.cache
def guarded(step: Step) -> Step:
  """`step`, but for what is not finite: where its loss or anything in its new state is not, the old
  state stays.

  The state's count of steps goes on, so that the next step has another batch. The same `step` gives
  the same object back.
  """

  def run(state: TrainState, batch, key):
    new, metrics = step(state, batch, key)
    # Of all devices, which must agree. Besides, XLA on CPU repeats the tests of all arrays in the
    # kernel of each, which takes minutes to compile, unless a collective stands between.
    sound = lax.pmin(jnp.isfinite(metrics['loss']) & _is_finite(new), DEVICES)
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), new, state)
    return kept._replace(step=new.step), {**metrics, SKIPPED: 1.0 - sound}

  return run


def _is_finite(tree) -> jax.Array:
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]))
