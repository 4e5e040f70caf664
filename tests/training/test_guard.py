"""The program of a guarded step; what it does is tested with the loop, in test_loop.py."""

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.task import TrainState
from ahm_jax.training.parallel_step import parallel_step


def instructions(arrays):
  """How many a guarded step of so many parameter arrays has, compiled for CPU."""

  def step(state, batch, _):
    new = jax.tree.map(lambda x: jnp.cos(x) * batch.mean(), state.params)
    return state._replace(step=state.step + 1, params=new), {'loss': new[0].sum()}

  advance = parallel_step(step, tuple(jax.local_devices()[:1]))
  state = TrainState(jnp.zeros((), jnp.int32), [jnp.ones((3, 3))] * arrays, {}, (), ())
  request = np.zeros(1, np.int32)
  program = (
    advance.lower(state, None, jnp.ones((1, 2)), jax.random.key(0), request).compile().as_text()
  )
  return program.count(' = ')


def test_the_guard_grows_with_the_state_and_not_with_its_square():
  """The finiteness of all arrays decides on each of them, and is not to be found out again for
  each.
  """
  assert instructions(80) < 2.5 * instructions(40)
