import numpy as np
import pytest

from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.predict.measures import columns, measure


def test_a_binary_mask_by_hand():
  """Two pixels of four are lesion, at 0.9 and 0.7.

  The others are at 0.2 and 0. The mean of the odds' logarithms is that of 9 and 7 / 3.
  """
  probabilities = np.float32([[0.9, 0.7], [0.2, 0.0]])
  mask = predicted_mask(probabilities, (2, 2), 0.5)
  row = measure(probabilities, mask, (0.5, 2.0), ('lesion',))
  assert row == {
    'area_px': 2,
    'area_mm2': 2.0,
    'area_share': 0.5,
    'class': 'lesion',
    'probability': pytest.approx(0.8, abs=1e-6),
    'confidence': pytest.approx(21**0.5 / (1 + 21**0.5), abs=1e-6),
  }
  assert list(row) == columns(())


def test_nothing_found():
  probabilities = np.float32([[0.1, 0.3], [0.2, 0.0]])
  row = measure(probabilities, np.zeros((2, 2), bool), None, ('lesion',))
  assert row == {
    'area_px': 0,
    'area_mm2': '',
    'area_share': 0.0,
    'class': 'background',
    'probability': '',
    'confidence': pytest.approx(0.7, abs=1e-6),
  }


def test_it_is_measured_at_the_images_own_resolution():
  probabilities = np.float32([[1, 0], [1, 0]])
  mask = predicted_mask(probabilities, (4, 8), 0.5)
  row = measure(probabilities, mask, None, ('lesion',))
  assert (row['area_px'], row['area_share']) == (16, 0.5)
  # Between the centres of two columns of 4: 1, 1, 7/8, 5/8, 3/8, 1/8, 0, 0.
  assert row['probability'] == pytest.approx(3.5 / 4, abs=1e-6)
  odds = (999 * 999 * 7 * (5 / 3)) ** (1 / 4)  # Probabilities count as 0.999 at most.
  assert row['confidence'] == pytest.approx(odds / (1 + odds), abs=1e-6)


def test_classes_by_hand():
  """Three pixels: one of class a at 0.6, one of b at 0.8, background at 0.5."""
  probabilities = np.float32([[[0.3, 0.6, 0.1], [0.0, 0.2, 0.8], [0.5, 0.25, 0.25]]])
  mask = predicted_mask(probabilities, (1, 3), 0.5)
  np.testing.assert_array_equal(mask, [[1, 2, 0]])
  names = ('a', 'b', 'c')[:2]
  row = measure(probabilities, mask, (1.0, 3.0), names)
  assert list(row) == columns(names)
  assert (row['area_px'], row['area_mm2'], row['area_share']) == (
    2,
    6.0,
    pytest.approx(2 / 3, abs=1e-6),
  )
  assert row['class'] == 'a'  # The first of equals.
  assert row['probability'] == pytest.approx(0.7, abs=1e-6)
  assert row['confidence'] == pytest.approx(0.7, abs=1e-6)
  assert (row['area_px_a'], row['area_mm2_b'], row['probability_a']) == (
    1,
    3.0,
    pytest.approx(0.6, abs=1e-6),
  )


def test_no_class_found():
  probabilities = np.float32([[[0.7, 0.2, 0.1], [0.6, 0.2, 0.2]]])
  row = measure(probabilities, predicted_mask(probabilities, (1, 2), 0.5), None, ('a', 'b'))
  assert (row['class'], row['probability'], row['probability_b']) == ('background', '', '')
  # 1 - 0.4: what may be no background at the likeliest pixel.
  assert row['confidence'] == pytest.approx(0.6, abs=1e-6)
