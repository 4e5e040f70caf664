"""Exponential moving averages of pytrees: of networks, which are then teachers, or are kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Average(NamedTuple):
  """An exponential moving average of a pytree."""

  value: Any
  moves: jax.Array  # How often it has moved.


def copied(tree: Any) -> Any:
  """The same numbers in buffers of their own: a step gives up its buffers, and would give up
  shared ones twice.
  """
  return jax.tree.map(jnp.copy, tree)


def average_of(first: Any) -> Average:
  """An average that starts from a copy of `first`."""
  return Average(copied(first), jnp.zeros((), jnp.int32))


def moved(value: Any, new: Any, decay: jax.Array | float, moves: jax.Array) -> Any:
  """The average `value`, moved towards `new`.

  The decay is at most (1 + t) / (10 + t) after t moves, as TensorFlow's averages have it: over a
  few thousand steps 0.9999 alone would leave half of the random start in it.
  """
  decay = jnp.minimum(decay, (1 + moves) / (10 + moves))
  return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, value, new)
