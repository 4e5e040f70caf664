import numpy as np

from ahm_jax.evaluation.masks import at_own_size, predicted_mask


def test_resizing_to_a_wide_image():
  """12 columns: between the centres of the two middle columns of 4, at 4.0 and 7.0, the
  probability falls from 1 to 0.
  """
  left_half = np.repeat(np.float32([[1, 1, 0, 0]]), 4, axis=0)
  resized = at_own_size(left_half, (8, 12))
  assert resized.shape == (8, 12)
  expected = [1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0]
  np.testing.assert_allclose(resized, np.tile(expected, (8, 1)), atol=1e-6)


def test_probabilities_are_resized_before_the_likeliest_is_taken():
  """Between a sure 1 and an unsure 2 the border at full size is nearer to the unsure one than
  halfway.
  """
  probabilities = np.zeros((1, 2, 3), np.float32)
  probabilities[0, 0], probabilities[0, 1] = (0, 1, 0), (0.4, 0, 0.6)
  found = predicted_mask(probabilities, (3, 20), 0.5)
  assert found.shape == (3, 20) and found.dtype == np.uint8
  planes = np.stack([at_own_size(probabilities[..., k], (3, 20)) for k in range(3)])
  np.testing.assert_array_equal(found, planes.argmax(0))
  # Of 1 and 0.6 t at t = 1 / 1.6, 0.625 of the way from column 4.5 to 14.5.
  assert found[0].tolist() == [1] * 11 + [2] * 9
  assert (
    predicted_mask(np.full((2, 2, 3), 1 / 3, np.float32), (2, 2), 0.5) == 0
  ).all()  # As likely: background.
