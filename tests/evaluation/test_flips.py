import jax.numpy as jnp
import numpy as np

from ahm_jax.evaluation.flips import with_flips


def above(variables, images):
  """A planted network: each pixel's probability is the value of the pixel above, 0 in the first
  row.
  """
  return variables * jnp.pad(images[:, :-1, :, 0], ((0, 0), (1, 0), (0, 0))).astype(jnp.float32)


def test_the_mean_over_four_poses_by_hand():
  """Upside down, 'above' is 'below', so a pixel's mean is half of the one above and half of the
  one below.
  """
  image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3, 1)
  found = np.asarray(with_flips(above)(np.float32(2), image))
  column = image[0, :, :, 0].astype(np.float32)
  expected = np.zeros((4, 3), np.float32)
  expected[1:] += column[:-1]
  expected[:-1] += column[1:]
  np.testing.assert_allclose(found[0], expected)  # 2 * (above + below) / 2


def test_what_is_flipped_is_found_flipped_and_classes_are_kept_apart():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 6, 6, 3), np.uint8)
  kernel = rng.normal(size=(3, 2)).astype(np.float32)

  def network(variables, images):
    shifted = jnp.roll(images.astype(jnp.float32), (1, 2), (1, 2)) @ variables
    return shifted + jnp.arange(6.0)[:, None, None]

  function = with_flips(network)
  found = np.asarray(function(kernel, images))
  assert found.shape == (2, 6, 6, 2)
  for axes in ((1,), (2,), (1, 2)):
    flipped = np.asarray(function(kernel, np.flip(images, axes)))
    np.testing.assert_allclose(np.flip(flipped, axes), found, rtol=1e-5, atol=1e-3)
  assert np.abs(np.asarray(network(kernel, images)) - found).max() > 1


def test_what_is_of_the_image_as_a_whole_is_averaged_as_it_is():
  """Its value is that of the first pixel: of the four corners, over four poses."""

  def network(variables, images):
    pixels = images[..., 0].astype(jnp.float32)
    return pixels, variables * pixels[:, 0, :1]

  images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), np.uint8)
  pixels, whole = with_flips(network)(np.float32(2), images)
  np.testing.assert_allclose(pixels, images[..., 0])
  corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0].astype(float)
  np.testing.assert_allclose(whole, 2 * corners.mean(1, keepdims=True))
