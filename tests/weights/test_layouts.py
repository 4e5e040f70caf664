import numpy as np
import pytest

from ahm_jax.weights import layouts


def draw(*shape):
  return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
  ('layout', 'shape', 'theirs', 'place', 'their_place'),
  [
    (layouts.SAME, (5,), (5,), (3,), (3,)),
    (layouts.CONVOLUTION, (3, 2, 4, 5), (5, 4, 3, 2), (2, 1, 3, 4), (4, 3, 2, 1)),
    (layouts.BGR_CONVOLUTION, (3, 2, 3, 5), (5, 3, 3, 2), (2, 1, 0, 4), (4, 2, 2, 1)),
    (layouts.BGR, (3, 2, 3, 5), (3, 2, 3, 5), (2, 1, 0, 4), (2, 1, 2, 4)),
    (layouts.UP_CONVOLUTION, (6, 2, 2, 3), (6, 3, 2, 2), (5, 0, 1, 2), (5, 2, 0, 1)),
    (layouts.DENSE, (4, 7), (7, 4), (1, 6), (6, 1)),
    (
      layouts.flattened(5),
      (45, 7),
      (7, 45),
      ((2 * 3 + 1) * 5 + 4, 6),
      (6, (4 * 3 + 2) * 3 + 1),
    ),  # Row 2, column 1, channel 4.
  ],
)
def test_there_and_back(layout, shape, theirs, place, their_place):
  ours = draw(*shape)
  out = layout.outward(ours)
  assert out.shape == theirs
  assert out[their_place] == ours[place]
  np.testing.assert_array_equal(layout.inward(out), ours)
  np.testing.assert_array_equal(np.sort(out, axis=None), np.sort(ours, axis=None))


def test_a_flattened_map_gives_the_same_sums_by_either_order():
  kernel, x = draw(2 * 2 * 3, 4), draw(2, 2, 2, 3)
  theirs = layouts.flattened(3).outward(kernel)
  np.testing.assert_allclose(
    x.transpose(0, 3, 1, 2).reshape(2, -1) @ theirs.T,
    x.reshape(2, -1) @ kernel,
    rtol=1e-4,
    atol=1e-5,
  )
