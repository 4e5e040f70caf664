import numpy as np
import pytest

from ahm_jax.data.resize import squashed
from ahm_jax.predict.views import Tiled, Whole, starts, view, weights


def through(item, network):
  """What a network says of an image, window by window, the last window first."""
  windows = list(item.windows())
  for index in reversed(range(len(windows))):
    complete = item.add(index, network(windows[index]))
    assert complete == (index == 0)
  return item.result()


def red(window):
  return window[..., 0].astype(np.float32) / 255


@pytest.mark.parametrize(
  ('length', 'side', 'overlap', 'expected'),
  [
    (10, 10, 0.5, [0]),
    (11, 10, 0.5, [0, 1]),
    (15, 10, 0.5, [0, 5]),
    (16, 10, 0.5, [0, 3, 6]),
    (30, 10, 0.0, [0, 10, 20]),
    (31, 10, 0.0, [0, 7, 14, 21]),
  ],
)
def test_windows_cover_an_axis_evenly(length, side, overlap, expected):
  assert starts(length, side, overlap) == expected


def test_weights_by_hand():
  """Windows of 4 at 0 and 2 of 6 pixels: sin^2 of 22.5 and 67.5 degrees is 0.1464 and 0.8536,
  and these sum to 1.
  """
  low, high = 0.14644661, 0.85355339
  found = weights(6, 4, [0, 2])
  np.testing.assert_allclose(found, [[1, 1, high, low], [low, high, 1, 1]], atol=1e-6)


@pytest.mark.parametrize('overlap', [0.0, 0.3, 0.5, 0.9])
def test_weights_sum_to_one_everywhere(overlap):
  places = starts(97, 16, overlap)
  total = np.zeros(97)
  for place, weight in zip(places, weights(97, 16, places), strict=True):
    total[place : place + 16] += weight
    assert (weight > 0).all()
  np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize('value', [0.0, 0.25, 0.7, 1.0])
def test_a_network_that_says_the_same_everywhere(value):
  pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
  found = through(Tiled(pixels, 16, 32, 0.5), lambda _: np.full((16, 16), value, np.float32))
  assert found.shape == (61, 90)
  np.testing.assert_allclose(found, value, atol=1e-6)


def test_a_network_that_says_what_it_sees():
  """At the windows' own resolution nothing is resized, so the image comes back."""
  pixels = np.random.default_rng(0).integers(0, 256, (50, 37, 3), np.uint8)
  np.testing.assert_allclose(
    through(Tiled(pixels, 16, 16, 0.5), red), pixels[..., 0] / 255, atol=1e-6
  )


def test_a_strip_that_is_thinner_than_a_window():
  pixels = np.full((8, 40, 1), 51, np.uint8)
  windows = list(Tiled(pixels, 16, 16, 0.5).windows())
  assert len(windows) == 4 and all(window.shape == (16, 16, 1) for window in windows)
  np.testing.assert_allclose(through(Tiled(pixels, 16, 16, 0.5), red), 0.2, atol=1e-6)


def test_two_windows_that_disagree_by_hand():
  """Windows of 4 at 0 and 2 of a row of 6.

  The first says 0, the second 1: the mean is the second's weight.
  """
  item = Tiled(np.zeros((4, 6, 3), np.uint8), 4, 4, 0.5)
  assert len(list(item.windows())) == 2
  item.add(0, np.zeros((4, 4), np.float32))
  item.add(1, np.ones((4, 4), np.float32))
  np.testing.assert_allclose(item.result(), [[0, 0, 0.14644661, 0.85355339, 1, 1]] * 4, atol=1e-6)


def test_classes_are_blended_one_by_one():
  pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
  found = through(Tiled(pixels, 16, 16, 0.5), lambda window: window.astype(np.float32) / 255)
  np.testing.assert_allclose(found, pixels / 255, atol=1e-6)


def test_an_image_of_one_window_is_looked_at_as_a_whole():
  pixels = np.random.default_rng(0).integers(0, 256, (32, 20, 3), np.uint8)
  for side in (0, 32):
    item = view(pixels, 16, side, 0.5)
    assert isinstance(item, Whole)
    (window,) = item.windows()
    np.testing.assert_array_equal(window, squashed(pixels, 16))
  assert isinstance(view(pixels, 16, 31, 0.5), Tiled)
