"""A compiled function over more images than one batch holds."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_batches(function: Callable[[Any], Any], images: Any, batch_size: int) -> Any:
  """Applies `function` to batches of images and joins what it returns.

  A short last batch is filled up with images from the start, so that there is one shape and one
  compiled program.

  Args:
    function: images [batch_size, ...] -> a pytree of arrays [batch_size, ...].
    images: an array [N, ...] or a pytree of such arrays, N at least 1.

  Returns:
    The pytree, as NumPy arrays [N, ...].
  """
  count = len(jax.tree.leaves(images)[0])

  def batch(start):
    rows = np.arange(start, start + batch_size) % count
    return jax.tree.map(lambda array: array[rows], images)

  parts = [function(batch(start)) for start in range(0, count, batch_size)]
  return jax.tree.map(
    lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:count], *parts
  )
