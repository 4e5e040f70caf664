"""Which arrays and paths are images, and what becomes of their values."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ahm_jax.api.inputs import given
from ahm_jax.errors import UserError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def only(image, channels=3, value_range=None):
  (found,), single = given(image, channels, value_range)
  assert single
  return found.source


def test_bytes_stay_as_they_are():
  for image in (RGB, RGB[::-1, ::-1], np.asfortranarray(RGB), jnp.asarray(RGB)):
    np.testing.assert_array_equal(only(image), np.asarray(image))
  grey = RGB[..., 0]
  np.testing.assert_array_equal(only(grey, 1), grey[..., None])
  np.testing.assert_array_equal(only(grey[..., None], 1), grey[..., None])


@pytest.mark.parametrize(
  ('low', 'high', 'dtype'),
  [(0, 1, np.float32), (0, 1, np.float64), (-1, 1, np.float32), (0, 65535, np.uint16)],
)
def test_a_declared_range_is_mapped_onto_bytes(low, high, dtype):
  values = np.arange(256) / 255 * (high - low) + low
  image = np.repeat(values.reshape(16, 16, 1), 3, -1).astype(dtype)
  expected = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, -1)
  np.testing.assert_array_equal(only(image, value_range=(low, high)), expected)


def test_by_hand():
  image = np.array([[[-1000.0], [-500.0], [-250.0], [0.0]]], np.float16)
  found = only(image, 1, (-1000, 0))
  assert found.dtype == np.uint8 and found[0, :, 0].tolist() == [0, 128, 191, 255]


def test_several_are_a_batch_or_a_list():
  batch = np.stack([RGB, RGB + 1])
  found, single = given(batch, 3, None)
  assert not single and [item.name for item in found] == ['images[0]', 'images[1]']
  np.testing.assert_array_equal([item.source for item in found], batch)
  found, single = given([RGB, RGB[:2]], 3, None)
  assert not single and [item.source.shape for item in found] == [(4, 5, 3), (2, 5, 3)]
  assert given([], 3, None) == given(np.zeros((0, 4, 5, 3), np.uint8), 3, None) == ([], False)


def test_paths(tmp_path, monkeypatch):
  Image.fromarray(RGB).save(tmp_path / 'A.PNG')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  for path in ('A.PNG', './A.PNG', '~/A.PNG', tmp_path / 'A.PNG', Path('A.PNG')):
    assert only(path).is_file()
  found, single = given(('A.PNG', RGB), 3, None)
  assert not single and [item.name for item in found] == ['A.PNG', 'images[1]']


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
    (np.zeros((2, 4, 5, 4), np.uint8), 3, None, r'images\[0\] is of shape \[4, 5, 4\]'),
    ([RGB, RGB[None]], 3, None, r'images\[1\] is of shape \[1, 4, 5, 3\]'),
    ([RGB, FLOATS], 3, None, r'images\[1\] is of float32'),
    (np.zeros((0, 5, 3), np.uint8), 3, None, r'of shape \[0, 5, 3\], without a pixel'),
    (np.uint8(3), 3, None, 'image is of type uint8; give a NumPy array'),
    (np.array(3, np.uint8), 3, None, r'image is of shape \[\]'),
    (None, 3, None, 'image is of type NoneType; give a NumPy array, a path, or a list of these'),
    ([[1, 2], [3, 4]], 3, None, r'images\[0\] is of type list; give a NumPy array'),
    (b'a.png', 3, None, 'image is of type bytes'),
    (Image.fromarray(RGB), 3, None, 'image is of type Image; give a NumPy array'),
    (RGB, 3, (1, 0), r'range is \(1, 0\); give the values that are black and white'),
    (RGB, 3, (0, np.inf), r'range is \(0, inf\)'),
    (RGB, 3, (0, 1, 2), r'range is \(0, 1, 2\)'),
    (RGB, 3, 255, 'range is 255'),
    (RGB, 3, ('a', 'b'), 'range is'),
    ('nowhere.png', 3, None, 'nowhere.png: there is no such file'),
    ('', 3, None, 'is a folder; give a list of files'),
    ('/', 3, None, '/ is a folder; give a list of files'),
    ('/dev/null/a.png', 3, None, 'there is no such file'),
    ('https://host/a.png', 3, None, 'a URL; give a path of this machine'),
    ('a\0b', 3, None, 'holds a NUL character'),
    ('a.png', 3, (0, 1), 'range is of arrays, and a.png is a file'),
  ],
)
def test_what_is_no_image_is_refused_in_one_line(image, channels, value_range, message):
  with pytest.raises(UserError, match=message) as refused:
    given(image, channels, value_range)
  assert '\n' not in str(refused.value)
