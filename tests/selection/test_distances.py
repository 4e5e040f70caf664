import numpy as np

from ahm_jax.selection.distances import squared, squared_to_nearest


def test_distances_are_those_of_every_pair():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((7, 5)), rng.standard_normal((4, 5))
  expected = ((a[:, None] - b) ** 2).sum(-1)
  np.testing.assert_allclose(squared(a, b), expected, atol=1e-8)
  np.testing.assert_allclose(squared_to_nearest(a, b), expected.min(1), atol=1e-8)
  assert (squared(a, a).diagonal() == 0).all() and squared(a, a).min() == 0
  assert (squared_to_nearest(a, b[:0]) == np.inf).all()


def test_what_differs_in_rounding_alone_is_equal():
  a = np.random.default_rng(0).standard_normal((20, 64))
  near = a * (1 + 1e-15)
  np.testing.assert_array_equal(squared(a, a), squared(a, near))
