"""Resizing inside an exported program against Pillow's, which training, evaluation and
prediction use. With -s, differences.
"""

import jax
import numpy as np
import pytest
from PIL import Image

from ahm_jax.data import resize
from ahm_jax.evaluation.masks import at_own_size
from ahm_jax.export import resizing


def picture(height, width, channels, smooth):
  generator = np.random.default_rng(height * width)
  if not smooth:
    return generator.integers(0, 256, (height, width, channels), np.uint8)
  coarse = generator.integers(0, 256, (5, 6, channels), np.uint8)
  planes = [
    Image.fromarray(np.ascontiguousarray(coarse[..., c])).resize((width, height))
    for c in range(channels)
  ]
  return np.stack(planes, -1)


@pytest.mark.parametrize(
  ('height', 'width', 'channels', 'smooth'),
  [
    (100, 150, 3, True),
    (97, 64, 3, False),  # The first height from which on Pillow begins with it,
    (96, 64, 3, False),  # and the last until which it does not.
    (20, 31, 3, True),
    (32, 32, 3, False),
    (61, 40, 4, True),
    (300, 20, 1, False),
    (20, 300, 1, False),
  ],
)
def test_images_are_seen_as_in_training(height, width, channels, smooth):
  """Larger, smaller and of the size.

  One value in a thousand may be 1 off, since Pillow's weights are fixed-point.
  """
  pixels = picture(height, width, channels, smooth)
  expected = resize.squashed(pixels, 32).astype(float)
  found = np.asarray(jax.jit(resizing.squashed, static_argnums=1)(pixels[None], 32))[0]
  difference = np.abs(found - expected)
  print(
    f'{height}x{width}: at most {difference.max():.0f} of 255, '
    f'{difference.astype(bool).mean():.1e} of the values differ'
  )
  assert found.shape == (32, 32, channels) and found.dtype == np.float32 and found.std() > 5
  assert difference.max() <= 1 and difference.astype(bool).mean() <= 1e-3


def test_values_stay_between_0_and_255_where_bicubic_overshoots():
  pixels = np.zeros((1, 64, 64, 1), np.uint8)
  pixels[:, :, 29:] = 255
  found = np.asarray(jax.jit(resizing.squashed, static_argnums=1)(pixels, 48))
  assert found.min() == 0 and found.max() == 255
  np.testing.assert_array_equal(found[0], resize.squashed(pixels[0], 48))


@pytest.mark.parametrize(('height', 'width'), [(100, 150), (20, 31), (32, 32)])
def test_probabilities_come_back_as_evaluate_resizes_them(height, width):
  probabilities = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  found = np.asarray(jax.jit(resizing.at_size, static_argnums=(1, 2))(probabilities, height, width))
  expected = [
    [at_own_size(np.ascontiguousarray(image[..., k]), (height, width)) for k in range(3)]
    for image in probabilities
  ]
  difference = np.abs(found - np.moveaxis(np.array(expected), 1, -1)).max()
  print(f'{height}x{width}: {difference:.1e}')
  assert difference <= 1e-5
