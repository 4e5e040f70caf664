"""Arrays as images: which are, and what becomes of their values."""

import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.api.arrays import check_range, of_modalities, pixels
from ahm_jax.config import DataConfig
from ahm_jax.errors import UserError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def seen(image, channels=3, value_range=None):
  return pixels(np.asarray(image), 'image', DataConfig(channels=channels), value_range)


def of(*modalities, intensity=('window/127.5/255',), **fields):
  return DataConfig(name='folder', modalities=modalities, intensity=intensity, **fields)


def test_bytes_stay_as_they_are():
  for image in (RGB, RGB[::-1, ::-1], np.asfortranarray(RGB), jnp.asarray(RGB)):
    np.testing.assert_array_equal(seen(image), np.asarray(image))
  grey = RGB[..., 0]
  np.testing.assert_array_equal(seen(grey, 1), grey[..., None])
  np.testing.assert_array_equal(seen(grey[..., None], 1), grey[..., None])


@pytest.mark.parametrize(
  ('low', 'high', 'dtype'),
  [(0, 1, np.float32), (0, 1, np.float64), (-1, 1, np.float32), (0, 65535, np.uint16)],
)
def test_a_declared_range_is_mapped_onto_bytes(low, high, dtype):
  values = np.arange(256) / 255 * (high - low) + low
  image = np.repeat(values.reshape(16, 16, 1), 3, -1).astype(dtype)
  expected = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, -1)
  np.testing.assert_array_equal(seen(image, value_range=(low, high)), expected)


def test_by_hand():
  image = np.array([[[-1000.0], [-500.0], [-250.0], [0.0]]], np.float16)
  found = seen(image, 1, (-1000, 0))
  assert found.dtype == np.uint8 and found[0, :, 0].tolist() == [0, 128, 191, 255]


FLOATS = np.full((4, 5, 3), 0.5, np.float32)


def holding(value, dtype=np.float32):
  image = np.zeros((4, 5, 3), dtype)
  image[1, 2, 1] = value
  return image


@pytest.mark.parametrize(
  ('image', 'channels', 'value_range', 'message'),
  [
    (FLOATS, 3, None, 'image is of float32; give uint8, or say which values are black and white'),
    (RGB.astype(np.int64), 3, None, 'image is of int64; give uint8'),
    (RGB > 7, 3, None, 'image is of bool; give uint8'),
    (RGB > 7, 3, (0, 1), 'image is of bool; give whole numbers or floats'),
    (RGB.astype(complex), 3, (0, 60), 'image is of complex128'),
    (RGB.astype(object), 3, (0, 60), 'image is of object'),
    (RGB, 3, (0, 1), r'holds values from 0 to 59, outside of range=\(0, 1\)'),
    (holding(1.0001), 3, (0, 1), 'holds values from 0 to 1.0001, outside of range'),
    (holding(-0.1), 3, (0, 1), 'holds values from -0.1 to 0, outside of range'),
    (holding(np.nan), 3, (0, 1), 'image holds values that are not finite'),
    (holding(np.inf), 3, (0, 1), 'image holds values that are not finite'),
    (holding(-np.inf, np.float16), 3, (0, 1), 'image holds values that are not finite'),
    (RGB, 1, None, r'is of shape \[4, 5, 3\]; this network takes grey images, \[h, w, 1\] or'),
    (RGB[..., :1], 3, None, r'of shape \[4, 5, 1\]; this network takes RGB images, \[h, w, 3\]'),
    (RGB[..., 0], 3, None, r'is of shape \[4, 5\]; this network takes RGB images'),
    (np.zeros((4, 5, 4), np.uint8), 3, None, 'this network takes RGB images'),
    (np.zeros((3, 8, 8), np.uint8), 3, None, 'this network takes RGB images'),
    (np.zeros((0, 5, 3), np.uint8), 3, None, r'of shape \[0, 5, 3\], without a pixel'),
    (np.array(3, np.uint8), 3, None, r'image is of shape \[\]'),
  ],
)
def test_what_is_no_image_is_refused_in_one_line(image, channels, value_range, message):
  with pytest.raises(UserError, match=message) as refused:
    seen(image, channels, value_range)
  assert '\n' not in str(refused.value)


@pytest.mark.parametrize(
  'value_range', [(1, 0), (0, np.inf), (0, 1, 2), 255, ('a', 'b'), (0, None)]
)
def test_what_is_no_range_is_refused(value_range):
  with pytest.raises(UserError, match=r'^range is .*; give the values that are black and white'):
    check_range(value_range)


# Modalities.


def test_modalities_are_mapped_as_files_are():
  """By hand: 40 HU wide 400 shows -160 as 0, 240 as 255; the foreground of 2 and 4 is 3 +- 1."""
  ct = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
  mr = np.array([[0, 2, 4, 2, 4]], np.float32)
  data = of('ct', 'mr', intensity=('window/40/400', 'zscore'))
  found = pixels(np.stack([ct, mr], -1), 'image', data, None)
  assert found.dtype == np.uint8 and found.shape == (1, 5, 2)
  assert found[0, :, 0].tolist() == [0, 0, 128, 255, 255]
  # From 3 - 3 to 3 + 3: 0, 2/6, 4/6 of 255.
  assert found[0, :, 1].tolist() == [0, 85, 170, 85, 170]
  by_name = of_modalities({'mr': mr, 'ct': ct}, 'image', data, None)
  np.testing.assert_array_equal(by_name, found)
  alone = of_modalities({'mr': mr}, 'image', data, None)
  np.testing.assert_array_equal(alone[..., 1], found[..., 1])
  assert (alone[..., 0] == 128).all()


def test_a_range_stands_before_the_networks_own_intensity():
  data = of('ct', 'mr', intensity=('window/40/400', 'percentile'))
  image = np.arange(2 * 3 * 2, dtype=np.uint8).reshape(2, 3, 2)
  np.testing.assert_array_equal(pixels(image, 'image', data, (0, 255)), image)
  planes = {'ct': image[..., 0] / 255, 'mr': image[..., 1] / 255}
  np.testing.assert_array_equal(of_modalities(planes, 'image', data, (0, 1)), image)


def test_one_modality_needs_no_axis():
  data = of('ct')
  plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
  for image in (plane, plane[..., None]):
    np.testing.assert_array_equal(pixels(image, 'image', data, None), plane[..., None])


PLANE = np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
  ('image', 'value_range', 'message'),
  [
    (RGB, None, r'of shape \[4, 5, 3\]; this network takes 2 modalities, \[h, w, 2\]: ct, mr'),
    (PLANE, None, r'of shape \[4, 5\]; this network takes 2 modalities'),
    (np.zeros((0, 5, 2)), None, 'without a pixel'),
    (np.zeros((4, 5, 2), bool), None, 'image is of bool; give whole numbers or floats'),
    (np.full((4, 5, 2), np.nan), None, 'image holds values that are not finite'),
    (np.full((4, 5, 2), 2.0), (0, 1), r'from 2 to 2, outside of range=\(0, 1\)'),
    ({'ct': PLANE, 'mr': PLANE.T}, None, r"image\['mr'\] is of shape \[5, 4\], and image\['ct'\]"),
    ({'ct': PLANE[None]}, None, r"image\['ct'\] is of shape \[1, 4, 5\]; give \[h, w\] of each"),
    ({'ct': PLANE[:0]}, None, r"image\['ct'\] is of shape \[0, 5\]"),
    ({'ct': PLANE, 'mr': PLANE + np.inf}, None, r"image\['mr'\] holds values that are not finite"),
    ({'ct': PLANE + 2}, (0, 1), r"image\['ct'\] holds values from 2 to 2, outside"),
    ({'ct': PLANE.astype(object)}, None, r"image\['ct'\] is of object; give whole numbers"),
  ],
)
def test_wrong_modalities_are_refused_in_one_line(image, value_range, message):
  take = of_modalities if isinstance(image, dict) else pixels
  with pytest.raises(UserError, match=message) as refused:
    take(image, 'image', of('ct', 'mr'), value_range)
  assert '\n' not in str(refused.value)
