"""Images and masks at the size that networks see."""

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data import resize
from ahm_jax.data.resize import squashed_mask


def test_mask_pixels_are_set_where_half_of_their_area_is():
  mask = np.zeros((32, 32), bool)
  mask[:, :5] = True  # The third pixel of 2 columns is covered by half, and counts.
  mask[0, 5] = True
  small = squashed_mask(mask, 16)
  assert small.dtype == np.uint8
  np.testing.assert_array_equal(small, np.tile(np.arange(16) < 3, (16, 1)))


def test_of_classes_the_one_of_the_largest_area_is_taken():
  """16 pixels from 48: each of 3 x 3.

  4 of 9 is enough where the others have 3 and 2; of equals the lowest counts.
  """
  mask = np.zeros((48, 48), np.uint8)
  mask[:3, :3] = [[0, 0, 0], [2, 2, 2], [2, 7, 7]]
  mask[:3, 3:6] = [[0, 0, 0], [1, 1, 1], [7, 7, 7]]
  mask[:3, 6:9] = [[7, 7, 7], [7, 7, 0], [0, 0, 0]]
  small = squashed_mask(mask, 16)
  assert small.dtype == np.uint8
  assert small[0, :3].tolist() == [2, 0, 7]
  assert not small[1:].any()


def test_resizing_of_classes_agrees_with_areas():
  """Against areas counted pixel by pixel on a grid that both sizes divide."""
  mask = np.random.default_rng(0).integers(0, 4, (20, 24)).astype(np.uint8)
  fine = np.kron(mask, np.ones((4, 2), np.uint8))  # 80 x 48: 16 blocks of 5 x 3.
  areas = np.stack([(fine == k).reshape(16, 5, 16, 3).sum((1, 3)) for k in range(4)])
  np.testing.assert_array_equal(squashed_mask(mask, 16), areas.argmax(0))


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5])
def test_every_channel_is_resized_by_itself(channels):
  pixels = np.random.default_rng(0).integers(0, 256, (40, 30, channels), np.uint8)
  small = resize.squashed(pixels, 16)
  for c in range(channels):
    plane = Image.fromarray(np.ascontiguousarray(pixels[..., c]))
    np.testing.assert_array_equal(small[..., c], plane.resize((16, 16), Image.Resampling.BICUBIC))


def test_pictures_of_modalities_and_what_is_said_of_them():
  pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8)
  for channels in (1, 2, 4):
    shown = np.asarray(resize.picture(pixels[..., :channels]))
    np.testing.assert_array_equal(shown, np.repeat(pixels[..., :1], 3, -1))
  np.testing.assert_array_equal(resize.picture(pixels[..., :3]), pixels[..., :3])
  assert resize.colours_of(()) == ''
  assert resize.colours_of(('t1',)) == 'Pictures show t1.'
  assert resize.colours_of(('t1', 't2')) == 'Pictures show t1, one of 2 modalities.'
  told = resize.colours_of(('flair', 't1', 't2'))
  assert told == 'Pictures are in false colours: flair red, t1 green, t2 blue.'
