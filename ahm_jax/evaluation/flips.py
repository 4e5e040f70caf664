"""Test-time flips: the mean of what a network says of an image in four poses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

POSES = ((), (1,), (2,), (1, 2))  # Axes of [B, S, S, ...] that are reversed.


def with_flips(
  probabilities: Callable[[Any, jax.Array], Any],
) -> Callable[[Any, jax.Array], Any]:
  """`probabilities` averaged over the image as it is, upside down, mirrored, and both; what is of
  pixels is flipped back before.

  Args:
    probabilities: a pure function (variables, images [B, S, S, C]) -> of pixels [B, S, S], or with
      K classes [B, S, S, K + 1]; of images [B, classes]; or several of these.
  """

  def in_pose(variables: Any, images: jax.Array, axes: tuple[int, ...]) -> Any:
    found = probabilities(variables, jnp.flip(images, axes))
    return jax.tree.map(lambda p: jnp.flip(p, axes) if p.ndim > 2 else p, found)

  def mean(variables: Any, images: jax.Array) -> Any:
    poses = [in_pose(variables, images, axes) for axes in POSES]
    return jax.tree.map(lambda *parts: sum(parts[1:], parts[0]) / len(POSES), *poses)

  return mean
