"""What becomes 0 and 255 in a modality, against hand-worked numbers and NumPy."""

import numpy as np
import pytest

from ahm_jax.data.readers.intensity import modality_range, to_bytes

FOREGROUND = np.arange(1.0, 201.0)


def with_air(values, air=1000):
  """The values amid zeros, as a volume."""
  return np.concatenate([np.zeros(air), values]).reshape(2, -1, 4)


def test_percentiles_are_those_of_the_foreground():
  # Of 1, ..., 200 the quantile q is 1 + 199 q.
  assert modality_range(with_air(FOREGROUND), 'percentile') == pytest.approx((1.995, 199.005))
  # As many zeros as there may be, they change nothing.
  assert modality_range(with_air(FOREGROUND, 40), 'percentile') == pytest.approx((1.995, 199.005))


def test_zscore_shows_three_standard_deviations_of_the_foreground():
  values = with_air(np.repeat([10.0, 30.0], 100))  # Mean 20, standard deviation 10.
  low, high = modality_range(values, 'zscore')
  assert (low, high) == pytest.approx((-10, 50))
  shown = to_bytes(np.array([-40, -10, 20, 30, 50, 90]), low, high)
  assert shown.tolist() == [0, 0, 128, 170, 255, 255]  # (30 + 10) / 60 * 255 = 170.


def test_a_window_is_the_same_whatever_a_file_holds():
  for values in (with_air(FOREGROUND), np.zeros((2, 2)), np.array([np.nan])):
    assert modality_range(values, 'window/40/400') == (-160, 240)
  assert modality_range(FOREGROUND, 'window/-600/1.5e3') == (-1350, 150)


@pytest.mark.parametrize('entry', ['percentile', 'zscore'])
def test_what_is_not_finite_does_not_count(entry):
  bad = np.concatenate([with_air(FOREGROUND).ravel(), [np.nan, np.inf, -np.inf]])
  assert modality_range(bad, entry) == modality_range(with_air(FOREGROUND), entry)


@pytest.mark.parametrize('entry', ['percentile', 'zscore'])
def test_a_foreground_of_one_value_is_white_on_black(entry):
  values = with_air(np.full(200, 7.0))
  assert to_bytes(values, *modality_range(values, entry)).tolist() == (
    with_air(np.full(200, 255)).tolist()
  )


@pytest.mark.parametrize('entry', ['percentile', 'zscore', 'window/0/2'])
@pytest.mark.parametrize('values', [np.zeros((3, 3)), np.full((3, 3), np.nan), np.zeros((0, 3))])
def test_nothing_to_see_is_even(entry, values):
  shown = to_bytes(values, *modality_range(values, entry))
  assert shown.shape == values.shape and len(np.unique(shown)) <= 1
