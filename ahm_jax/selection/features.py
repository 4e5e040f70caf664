"""What images are compared by: what a U-Net makes of them, or their pixels."""

import functools
from typing import Any

import jax
import numpy as np

from ahm_jax.data.augment import normalise
from ahm_jax.models.unet import LEVELS, UNet
from ahm_jax.runtime.batching import in_batches

_SIDE = 16  # Of the small pictures, whose side divides that of every image.
_COMPONENTS = 32
_BOTTLENECK = f'encoder{LEVELS}'


def of_network(unet: UNet, variables: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
  """The U-Net's bottleneck in inference, its mean over space, of length 1.

  Args:
    images: uint8 [N, S, S, C].

  Returns:
    float64 [N, 16 * width].
  """
  unet = unet.clone(recompute=False)
  run = functools.partial(_bottleneck, unet, {**variables})
  means = in_batches(run, images, batch_size).astype(np.float64)
  return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=0)
def _bottleneck(unet: UNet, variables: Any, images: jax.Array) -> jax.Array:
  _, kept = unet.apply(
    variables,
    normalise(images / 255.0),
    train=False,
    capture_intermediates=lambda module, _: module.name == _BOTTLENECK,
    mutable=['intermediates'],
  )
  (features,) = kept['intermediates'][_BOTTLENECK]['__call__']
  return features.astype(np.float32).mean((1, 2))


def of_pixels(images: np.ndarray) -> np.ndarray:
  """The first principal components of images of 16 x 16 pixels, scaled to a mean square of 1.

  Args:
    images: uint8 [N, S, S, C].

  Returns:
    float64 [N, K], K at most 32.
  """
  count, side, _, channels = images.shape
  tiles = images.reshape(count, _SIDE, side // _SIDE, _SIDE, side // _SIDE, channels)
  small = tiles.mean((2, 4)).reshape(count, -1) / 255
  small -= small.mean(0)
  _, directions = np.linalg.eigh(small.T @ small)  # The smallest first.
  features = small @ directions[:, ::-1][:, :_COMPONENTS]
  return features / max(float(np.sqrt((features**2).sum(1).mean())), 1e-12)
