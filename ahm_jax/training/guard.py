"""Steps that are not finite in their loss or gradient: they are skipped, up to so many in a row."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.errors import UserError, first
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import TrainState

IMAGES_NAMED = 12  # At most so many, where a step is skipped.


def keep_finite(
  state: TrainState, new: TrainState, loss: jax.Array
) -> tuple[TrainState, jax.Array]:
  """The state after a step: `new`, or `state` where the loss or anything in `new` is not finite.

  The count of steps goes on, so that the next step has another batch.

  Returns:
    The state, and 1 where the step was skipped, else 0.
  """
  # All devices decide together, since they must agree. Besides, XLA on CPU repeats the tests of all
  # arrays in the kernel of each, which takes minutes to compile, unless a collective stands
  # between.
  sound = lax.pmin(jnp.isfinite(loss) & _is_finite(new), DEVICES)
  kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), new, state)
  return kept._replace(step=new.step), 1.0 - sound


def _is_finite(tree) -> jax.Array:
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]))


class SkippedSteps:
  """Counts the skipped steps in a row, says where they begin, and ends a run that has too many.

  Args:
    in_a_row: how many there were when the run resumes.
    limit: how many end the run.
    names: of the images of a step's batch, by the steps done before it.
    say: prints a line.

  Attributes:
    in_a_row: the last so many steps were skipped.
  """

  def __init__(
    self,
    in_a_row: int,
    limit: int,
    names: Callable[[int], Sequence[str]],
    say: Callable[[str], None],
  ):
    self.in_a_row = in_a_row
    self._limit = limit
    self._names = names
    self._say = say

  def count(self, step: int, skipped: bool) -> None:
    """To be called after each step, the first being 1.

    Raises:
      UserError: `limit` steps in a row were skipped.
    """
    self.in_a_row = self.in_a_row + 1 if skipped else 0
    if not skipped:
      return
    names = self._names(step - 1)
    images = first(names, IMAGES_NAMED)
    if self.in_a_row == 1:
      self._say(f'step {step} is skipped: its loss or gradient is not finite; images: {images}')
    if self.in_a_row >= self._limit:
      raise UserError(
        f'steps {step - self.in_a_row + 1} to {step} were skipped: their loss or gradient was not '
        f'finite; images of the last: {images}; lower the learning rate of the recipe in a new '
        '--workdir'
      )
