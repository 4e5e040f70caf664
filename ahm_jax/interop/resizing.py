"""Pillow's resizing as JAX operations, for images whose sizes need not be known when they are traced."""

import jax
import jax.numpy as jnp


def squashed(images: jax.Array, side: int) -> jax.Array:
  """`ahm_jax.data.files.squashed` of a batch: uint8 [b, h, w, C] -> float32 [b, side, side, C] of whole numbers 0 to 255.

  Bicubic with antialiasing, along the width and then along the height, rounded after each as Pillow rounds. Of the values about
  one in ten thousand comes out higher or lower by 1, where Pillow's fixed-point weights round another way.
  """
  batch, height, _, channels = images.shape
  wide = _rounded(_resize(images.astype(jnp.float32), (batch, height, side, channels), 'cubic'))
  return _rounded(_resize(wide, (batch, side, side, channels), 'cubic'))


def at_size(probabilities: jax.Array, height: int, width: int) -> jax.Array:
  """`ahm_jax.evaluation.evaluate.at_own_size` of a batch: [b, S, S, ...] -> [b, height, width, ...]."""
  batch, *_ = probabilities.shape
  return _resize(probabilities, (batch, height, width, *probabilities.shape[3:]), 'linear')


def _resize(x: jax.Array, shape: tuple[int, ...], method: str) -> jax.Array:
  return jax.image.resize(x, shape, method, antialias=True, precision='highest')


def _rounded(x: jax.Array) -> jax.Array:
  return jnp.clip(jnp.floor(x + 0.5), 0, 255)
