import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ahm_jax.masking.patches import (
  apart,
  bound_logits,
  budget_shift,
  centred,
  draw_bernoulli,
  draw_exact,
  mask_patches,
  patch_losses,
  patch_mean,
  side_by_side,
  tile_budget_shift,
  to_pixels,
)

RATIOS = (0.05, 0.25, 0.5, 0.6, 0.95)
GRID = (4, 14, 14)


def one_hot(high, low):
  logits = np.full(GRID, low)
  logits[:, 3, 5] = high
  return logits


def logits_of(kind):
  generator = np.random.default_rng(sum(map(ord, kind)))
  return np.float32(
    {
      'normal': lambda: generator.normal(size=GRID),
      'wide normal': lambda: np.clip(generator.normal(0, 20, GRID), -50, 50),
      'uniform': lambda: generator.uniform(-50, 50, GRID),
      'bimodal': lambda: generator.choice([-50.0, 50.0], GRID),
      'halves': lambda: np.broadcast_to(np.where(np.arange(14) < 7, -50.0, 50.0), GRID),
      'constant': lambda: np.full(GRID, -50.0),
      'zero': lambda: np.zeros(GRID),
      'one high': lambda: one_hot(50.0, -50.0),
      'one low': lambda: one_hot(-50.0, 50.0),
      'images of all kinds': lambda: (
        generator.normal(size=GRID) * np.reshape([0, 1, 10, 15], (4, 1, 1))
      ),
    }[kind]()
  )


KINDS = (
  'normal',
  'wide normal',
  'uniform',
  'bimodal',
  'halves',
  'constant',
  'zero',
  'one high',
  'one low',
  'images of all kinds',
)

shift = jax.jit(budget_shift)  # The ratio is traced, so that all ratios share one program.


def test_patch_mean_by_hand():
  x = jnp.array([[1.0, 2, 5, 7], [3, 6, 0, 4], [0, 0, 1, 1], [0, 8, 1, -3]])
  # (1+2+3+6)/4 = 3, (5+7+0+4)/4 = 4, (0+0+0+8)/4 = 2, (1+1+1-3)/4 = 0
  np.testing.assert_array_equal(patch_mean(x, 2), [[3, 4], [2, 0]])


def test_patch_mean_keeps_leading_axes_and_works_on_oblong_maps():
  x = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype(np.float32)
  expected = np.array(
    [
      [
        [[x[i, j, r : r + 4, c : c + 4].mean() for c in (0, 4, 8)] for r in (0, 4)]
        for j in range(3)
      ]
      for i in range(2)
    ]
  )
  np.testing.assert_allclose(patch_mean(jnp.asarray(x), 4), expected, atol=1e-6)


def test_to_pixels_by_hand():
  expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
  np.testing.assert_array_equal(to_pixels(jnp.array([[1, 2], [3, 4]]), 2), expected)


def test_patch_mean_undoes_to_pixels():
  grid = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
  np.testing.assert_allclose(patch_mean(to_pixels(jnp.asarray(grid), 4), 4), grid, rtol=1e-6)


def test_mask_patches_by_hand():
  images = jnp.arange(1.0, 9).reshape(1, 2, 4, 1)
  hidden = jnp.array([[[1.0, 0]]])
  masked = mask_patches(images, hidden, 2)
  np.testing.assert_array_equal(masked[0, ..., 0], [[0, 0, 3, 4], [0, 0, 7, 8]])


def test_a_mask_covers_all_channels_and_leaves_the_rest_untouched():
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
  hidden = jnp.array([[[1.0, 0], [0, 0]], [[0, 1], [1, 1]]])
  masked = np.asarray(mask_patches(images, hidden, 4))
  covered = np.asarray(to_pixels(hidden, 4)) == 1
  assert np.all(masked[covered] == 0)
  np.testing.assert_array_equal(masked[~covered], np.asarray(images)[~covered])


def test_bound_logits_by_hand():
  # Mean of (0, 2, 4, 10) is 4; centred (-4, -2, 0, 6); with bound 2: 2 * tanh(-2), 2 * tanh(-1), 0,
  # 2 * tanh(3).
  bounded = bound_logits(centred(jnp.array([[0.0, 2], [4, 10]])), 2.0)
  np.testing.assert_allclose(bounded, [[-1.92805516, -1.52318831], [0, 1.99010951]], atol=1e-6)


def test_bound_logits_is_bounded_and_keeps_the_order():
  logits = jnp.asarray(logits_of('wide normal'))
  assert np.abs(bound_logits(logits, 3.0)).max() <= 3
  gentle = logits / 25
  np.testing.assert_array_equal(
    np.argsort(bound_logits(gentle, 3.0).ravel()), np.argsort(gentle.ravel())
  )


def test_logits_are_centred_for_every_image_on_its_own_which_a_shift_does_not_change():
  pair = jnp.stack([jnp.array([[1.0, 3]]), jnp.array([[100.0, 104]])])
  np.testing.assert_array_equal(centred(pair), [[[-1, 1]], [[-2, 2]]])
  logits = jnp.asarray(logits_of('wide normal'))
  np.testing.assert_allclose(centred(logits + 5), centred(logits), atol=1e-5)


@pytest.mark.parametrize('ratio', RATIOS)
@pytest.mark.parametrize('kind', KINDS)
def test_the_budget_is_met_by_every_image(kind, ratio):
  logits = logits_of(kind)
  b = np.asarray(shift(logits, ratio))
  assert b.shape == (4, 1, 1)
  np.testing.assert_allclose(expit(np.float64(logits + b)).mean((-2, -1)), ratio, atol=1e-5)


def test_the_budget_shift_by_hand():
  # All logits z: sigmoid(z + b) = 0.6 at b = log(0.6 / 0.4) - z = 0.405465 - z.
  np.testing.assert_allclose(
    budget_shift(jnp.full((1, 2, 2), 7.0), 0.6), [[[0.4054651 - 7]]], atol=1e-6
  )
  # Logits (z, -z): sigmoid(z + b) + sigmoid(-z + b) = 1 at b = 0, whatever z is.
  np.testing.assert_allclose(budget_shift(jnp.array([[2.5, -2.5]]), 0.5), [[0]], atol=1e-6)
  # sigmoid(log 1 + b) + sigmoid(log 6 + b) = u/(1+u) + 6u/(1+6u) = 1 with u = exp(b): u =
  # 1/sqrt(6), b = -log(6)/2.
  np.testing.assert_allclose(
    budget_shift(jnp.log(jnp.array([[1.0, 6]])), 0.5), [[-0.8958797]], atol=1e-6
  )


def test_a_budget_by_tiles_holds_in_every_tile_and_shifts_it_as_a_whole():
  logits = 2 * jax.random.normal(jax.random.key(0), (4, 6, 6))
  shifts = np.asarray(tile_budget_shift(logits, 0.6, 3))
  tiles = (np.asarray(logits) + shifts).reshape(4, 2, 3, 2, 3).swapaxes(2, 3)
  np.testing.assert_allclose(expit(tiles).mean((-2, -1)), np.full((4, 2, 2), 0.6), atol=1e-5)
  assert not np.ptp(shifts.reshape(4, 2, 3, 2, 3), (2, 4)).any()


def test_the_budget_shift_is_the_same_under_vmap_and_without_jit():
  logits = jnp.asarray(logits_of('images of all kinds'))
  together = shift(logits, 0.6)
  np.testing.assert_allclose(
    jax.jit(jax.vmap(budget_shift, (0, None)))(logits, 0.6), together, atol=1e-5
  )
  np.testing.assert_allclose(budget_shift(logits, 0.6), together, atol=1e-5)


def test_the_budget_shift_is_a_constant_to_the_gradient():
  logits = jnp.asarray(logits_of('normal')[0])
  np.testing.assert_array_equal(
    jax.grad(lambda z: budget_shift(z, 0.3).sum())(logits), np.zeros((14, 14))
  )
  # d/dz of sum(sigmoid(z + b)) is p (1 - p), although the sum itself is held at ratio * N by b.
  p = expit(np.float64(logits + budget_shift(logits, 0.3)))
  gradient = jax.grad(lambda z: jax.nn.sigmoid(z + budget_shift(z, 0.3)).sum())(logits)
  np.testing.assert_allclose(gradient, p * (1 - p), atol=1e-5)


def test_bernoulli_draws_follow_the_probabilities():
  draws = 20000
  logits = jnp.linspace(-4, 4, 16).reshape(4, 4)
  actions = np.asarray(
    jax.jit(jax.vmap(draw_bernoulli, (0, None)))(jax.random.split(jax.random.key(0), draws), logits)
  )
  assert actions.dtype == np.float32 and set(np.unique(actions)) == {0, 1}
  p = expit(np.asarray(logits))
  assert np.all(np.abs(actions.mean(0) - p) < 4 * np.sqrt(p * (1 - p) / draws))
  # Patches are independent: no pair of them covaries.
  correlation = np.corrcoef(actions.reshape(draws, -1), rowvar=False) - np.eye(16)
  assert np.abs(correlation).max() < 5 / np.sqrt(draws)


@pytest.mark.parametrize('count', [0, 1, 60, 118, 195, 196])
def test_exact_draws_have_exactly_the_count(count):
  draw = jax.jit(draw_exact, static_argnums=2)
  for seed, kind in enumerate(KINDS):
    actions = np.asarray(draw(jax.random.key(seed), logits_of(kind), count))
    assert actions.shape == GRID and actions.dtype == np.float32
    assert set(np.unique(actions)) <= {0, 1}
    np.testing.assert_array_equal(actions.sum((-2, -1)), np.full(4, count))


def test_exact_draws_follow_the_logits():
  # Drawing 2 of 3 with weights w = (1, 3, 6)/10, one after the other without replacement; P(i
  # drawn) = w_i + sum over j != i of w_j * w_i / (1 - w_j): 1: 1/10 + 3/10 * 1/7 + 6/10 * 1/4 = 0.1
  # + 0.042857 + 0.15    = 0.292857 2: 3/10 + 1/10 * 3/9 + 6/10 * 3/4 = 0.3 + 0.033333 + 0.45    =
  # 0.783333 3: 6/10 + 1/10 * 6/9 + 3/10 * 6/7 = 0.6 + 0.066667 + 0.257143 = 0.923810      (they sum
  # to 2)
  expected = np.array([0.292857, 0.783333, 0.923810])
  draws = 20000
  logits = jnp.log(jnp.array([[1.0, 3, 6]]))
  keys = jax.random.split(jax.random.key(1), draws)
  frequency = np.asarray(jax.jit(jax.vmap(lambda key: draw_exact(key, logits, 2)))(keys)).mean(0)[0]
  assert np.all(np.abs(frequency - expected) < 4 * np.sqrt(expected * (1 - expected) / draws))


def test_maps_of_modalities_lie_side_by_side():
  maps = jnp.arange(8).reshape(2, 2, 2)  # Of 2 modalities, 2 x 2 patches.
  joined = side_by_side(maps)
  np.testing.assert_array_equal(joined, [[0, 1, 4, 5], [2, 3, 6, 7]])
  np.testing.assert_array_equal(apart(joined, 2), maps)
  several = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 5))
  np.testing.assert_array_equal(apart(side_by_side(jnp.asarray(several)), 4), jnp.asarray(several))


def test_patches_of_single_modalities_by_hand():
  images = jnp.arange(1.0, 17).reshape(1, 2, 4, 2)  # 1 x 2 patches of 2 pixels, 2 modalities.
  hidden = jnp.array([[[1.0, 0, 0, 1]]])  # The first patch of the first, the second of the other.
  masked = np.asarray(mask_patches(images, hidden, 2))
  np.testing.assert_array_equal(masked[0, ..., 0], [[0, 0, 5, 7], [0, 0, 13, 15]])
  np.testing.assert_array_equal(masked[0, ..., 1], [[2, 4, 0, 0], [10, 12, 0, 0]])
  error = jnp.stack([jnp.ones((1, 2, 4)), jnp.full((1, 2, 4), 3.0)], -1).at[:, :, 2:, 1].set(2.0)
  losses = patch_losses(images + error, images, 2, per_modality=True)
  np.testing.assert_allclose(losses, [[[1, 1, 9, 4]]], rtol=1e-5)
  together = patch_losses(images + error, images, 2)
  np.testing.assert_allclose(together, [[[5, 2.5]]], rtol=1e-5)
