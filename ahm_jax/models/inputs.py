"""How the images that a VGG16 sees are scaled: as all our networks see them, or as those that other
people's weights were trained on.

torchvision: https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.vgg16.html;
Caffe, whose weights Keras has too: `keras.applications.imagenet_utils`, mode 'caffe'.
"""

from typing import NamedTuple

import jax
import numpy as np


class Scaling(NamedTuple):
  """(x - mean) / std of an image in [0, 1], by channel, red first.

  Attributes:
    said: the same for people, of pixel values 0 to 255, with the order of channels where others'
      weights want another.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  said: str


OWN = ''
TORCHVISION = 'torchvision'
CAFFE = 'caffe'  # Its weights want blue first.
SCALINGS = {
  OWN: Scaling((0.5,), (0.25,), '(value / 255 - 0.5) / 0.25'),
  TORCHVISION: Scaling(
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
    '(value / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225), RGB',
  ),
  CAFFE: Scaling(
    (123.68 / 255, 116.779 / 255, 103.939 / 255),
    (1 / 255, 1 / 255, 1 / 255),
    'value - (103.939, 116.779, 123.68), BGR',
  ),
}


def rescaled(x: jax.Array, name: str) -> jax.Array:
  """Normalised images [B, H, W, C] as one of SCALINGS has them, float32: with OWN as they are, else
  [B, H, W, 3], grey ones as RGB; of other numbers of modalities each as the mean of the colours.

  Not folded into a kernel and bias: the zeros around an image are then other colours than those
  that the weights have seen there.
  """
  if name == OWN:
    return x
  (middle,), (spread,), _ = SCALINGS[OWN]
  mean, std = (np.array(numbers) for numbers in SCALINGS[name][:2])
  scale, shift = (spread / std).astype(np.float32), ((middle - mean) / std).astype(np.float32)
  return x * scale + shift if x.shape[-1] in (1, 3) else x * scale.mean() + shift.mean()
