import jax
import numpy as np
import pytest

from ahm_jax.data.augment import normalise
from ahm_jax.models.layers import max_pool
from ahm_jax.models.unet import TwoConvs, UNet
from ahm_jax.selection.features import of_network, of_pixels


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture(scope='module')
def variables():
  """Random ones of the right shapes."""
  unet, rng = UNet(out_channels=3, width=2), np.random.default_rng(1)
  shapes = jax.eval_shape(
    lambda: unet.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False)
  )
  return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.4, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('recompute', [False, True])
def test_a_network_is_asked_for_its_bottleneck(images, variables, recompute):
  """By its encoder's blocks, one after another."""
  x = normalise(images / 255.0)
  for level in range(1, 6):
    own = {part: variables[part][f'encoder{level}'] for part in ('params', 'batch_stats')}
    x = TwoConvs(2 * 2 ** (level - 1)).apply(own, False, x)
    x = max_pool(x) if level < 5 else x
  expected = np.asarray(x).mean((1, 2))
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  found = of_network(UNet(out_channels=3, width=2, recompute=recompute), variables, images, 2)
  assert found.shape == (5, 32) and found.dtype == np.float64
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('channels', [1, 3])
def test_pixels_are_compared_by_small_pictures(images, channels):
  """Of few images all components are kept, and so are distances, but for their scale."""
  shown = images[..., :channels]
  small = shown.reshape(5, 16, 2, 16, 2, channels).mean((2, 4)).reshape(5, -1)
  found = of_pixels(shown)
  assert (found**2).sum(1).mean() == pytest.approx(1)

  def gaps(x):
    return np.linalg.norm(x[:, None] - x, axis=-1)

  ratio = gaps(small)[0, 1] / gaps(found)[0, 1]
  np.testing.assert_allclose(gaps(found) * ratio, gaps(small), rtol=1e-6, atol=1e-4)


def test_pixels_of_images_that_are_alike():
  assert not of_pixels(np.full((3, 16, 16, 3), 7, np.uint8)).any()
