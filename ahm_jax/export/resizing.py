"""Pillow's resizing as JAX operations, for images whose sizes need not be known when they are
traced.
"""

import jax
import jax.numpy as jnp
from jax import lax


def squashed(images: jax.Array, side: int) -> jax.Array:
  """`ahm_jax.data.resize.squashed` of a batch: uint8 [b, h, w, C] -> float32 [b, side, side,
  C] of whole numbers 0 to 255.

  Bicubic with antialiasing, along one axis and then along the other, rounded after each as Pillow
  rounds. Pillow begins with the height where that shrinks by more than twice as many pixels as the
  width; before its version 13, always with the width. Of the values about one in ten thousand comes
  out higher or lower by 1, where Pillow's fixed-point weights round another way.
  """
  batch, height, width, channels = images.shape
  whole = batch, side, side, channels

  def by_way_of(shape):
    return lambda x: _rounded(_resize(_rounded(_resize(x, shape, 'cubic')), whole, 'cubic'))

  height_first = jnp.asarray(height) - side > 2 * jnp.maximum(jnp.asarray(width) - side, 0)
  low, narrow = (batch, side, width, channels), (batch, height, side, channels)
  return lax.cond(height_first, by_way_of(low), by_way_of(narrow), images.astype(jnp.float32))


def at_size(probabilities: jax.Array, height: int, width: int) -> jax.Array:
  """`ahm_jax.evaluation.masks.at_own_size` of a batch: [b, S, S, ...] -> [b, height, width,
  ...].
  """
  batch, *_ = probabilities.shape
  return _resize(probabilities, (batch, height, width, *probabilities.shape[3:]), 'linear')


def _resize(x: jax.Array, shape: tuple[int, ...], method: str) -> jax.Array:
  return jax.image.resize(x, shape, method, antialias=True, precision='highest')


def _rounded(x: jax.Array) -> jax.Array:
  return jnp.clip(jnp.floor(x + 0.5), 0, 255)
