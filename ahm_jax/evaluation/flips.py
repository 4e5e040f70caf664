"""Test-time flips: the mean of what a network says of an image in four poses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

POSES = ((), (1,), (2,), (1, 2))  # Axes of [B, S, S, ...] that are reversed.


def with_flips(
  probabilities: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
  """`probabilities` averaged over the image as it is, upside down, mirrored, and both; each is
  flipped back before.

  Args:
    probabilities: a pure function (variables, images [B, S, S, C]) -> [B, S, S], or with K classes
      [B, S, S, K + 1].
  """

  def mean(variables: Any, images: jax.Array) -> jax.Array:
    first, *others = (
      jnp.flip(probabilities(variables, jnp.flip(images, axes)), axes) for axes in POSES
    )
    return sum(others, first) / len(POSES)

  return mean
