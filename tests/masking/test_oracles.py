import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Shares of lesion in 4 x 4 patches of 4 pixels: all, half, an eighth, and none.
SHARES = np.array([[1, 0.5, 0, 0], [0.5, 0.125, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.fixture(scope='module')
def lesions():
  masks = np.zeros((1, 16, 16), np.float32)
  for row, column in np.argwhere(SHARES):
    patch = masks[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    patch.ravel()[:] = 0
    patch[:] = np.arange(16).reshape(4, 4) < 16 * SHARES[row, column]
  return jnp.asarray(masks)


@pytest.mark.parametrize(
  ('name', 'sure'),
  [
    ('oracle_lesion', SHARES >= 0.5),  # Three of 16, at a ratio of 0.2.
    ('oracle_border', (SHARES > 0) & (SHARES < 1)),
    ('oracle_background', None),
  ],
)
def test_what_is_masked_first(build, lesions, name, sure):
  strategy, _ = build(strategy=name, mask_ratio=3.2 / 16)
  done = strategy.propose((), jnp.zeros((1, 16, 16, 3)), jax.random.key(0), 1.0, True, lesions)
  if sure is None:
    assert (SHARES[np.asarray(done.probability[0]) == 1] == 0).all()
    assert (done.probability[0] == 1).sum() == 3
  else:
    np.testing.assert_array_equal(done.probability[0] == 1, sure)
  assert done.probability.mean() == pytest.approx(0.2)


def test_masks_warm_up_from_uniform_ones(build, lesions):
  strategy, _ = build(strategy='oracle_lesion', warmup=0.5)
  first = strategy.propose((), jnp.zeros((1, 16, 16, 3)), jax.random.key(0), 0.0, True, lesions)
  np.testing.assert_allclose(first.probability, 0.6, rtol=1e-6)


def test_without_lesions_masks_are_random(build):
  strategy, _ = build(strategy='oracle_lesion', mask_ratio=0.5)
  blank = jnp.zeros((400, 16, 16, 1))
  done = strategy.propose((), blank, jax.random.key(0), 1.0, False)
  np.testing.assert_allclose(done.hidden.mean(0), np.full((4, 4), 0.5), atol=0.12)
