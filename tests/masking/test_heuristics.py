import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.masking import heuristics
from ahm_jax.masking.heuristics import block_order, gradient_energy
from ahm_jax.masking.patches import patch_mean

HEURISTICS = ('uniform', 'blockwise', 'saliency')


@pytest.mark.parametrize('name', HEURISTICS)
def test_nothing_is_kept_and_nothing_is_learnt(build, lesson, start, name):
  strategy, _ = build(strategy=name)
  state = start(strategy)
  assert jax.tree.leaves(state) == []
  assert strategy.learn(state, lesson(strategy='ahm').rollouts, None, 0.5) == (state, {})


@pytest.fixture(scope='module')
def orders():
  """block_order of 2,000 keys on a grid of 6 x 8, [2000, 6, 8]."""
  return np.asarray(
    jax.jit(jax.vmap(lambda key: block_order(key, 6, 8)))(jax.random.split(jax.random.key(0), 2000))
  )


def test_a_block_order_is_a_permutation(orders):
  assert np.all(np.sort(orders.reshape(2000, 48), -1) == np.arange(48))


def test_every_patch_comes_first_half_of_the_times(orders):
  """Blocks wrap around, so no place is favoured: 24 of 48 first, and a standard error of 0.011
  over 2,000 draws.
  """
  np.testing.assert_allclose((orders < 24).mean(0), np.full((6, 8), 0.5), atol=0.05)


def test_the_first_patches_are_a_rectangle(orders):
  """At least 8 % of 48, rounded: the first 3 lie in one row, or fill the first row and begin the
  next, on the torus.
  """
  for order in orders[:200]:
    rows, columns = np.nonzero(order < 3)
    first = tuple(np.argwhere(order == 0)[0])
    down, right = (rows - first[0]) % 6, (columns - first[1]) % 8
    width = np.sum(down == 0)
    assert np.array_equal(np.sort(down * width + right), np.arange(3))


def test_a_block_order_by_hand(monkeypatch):
  """The picture of its docstring."""
  rectangles = ([2, 1], [2, 4], [1, 0], [3, 0])  # Heights, widths, top rows, left columns.
  monkeypatch.setattr(heuristics, '_BLOCKS', 2)
  monkeypatch.setattr(
    heuristics, '_rectangles', lambda *_: tuple(jnp.array(item) for item in rectangles)
  )
  order = np.asarray(block_order(jax.random.key(0), 3, 4))
  np.testing.assert_array_equal(order[0], [4, 5, 6, 7])
  np.testing.assert_array_equal(order[1:, [3, 0]], [[0, 1], [2, 3]])


def test_blocks_mask_neighbours_more_often_than_independent_draws_do(build):
  def agreement(name):
    strategy, _ = build(strategy=name, mask_ratio=0.5)
    blank = jnp.zeros((200, 32, 32, 1))
    hidden = np.asarray(strategy.propose((), blank, jax.random.key(0), 1.0, False).hidden)
    return np.mean(hidden[:, 1:] == hidden[:, :-1])

  assert agreement('uniform') == pytest.approx(0.5, abs=0.02)
  assert agreement('blockwise') > 0.7


def test_the_number_of_patches_in_blocks_is_rounded_at_random_to_the_ratio_in_the_mean(build):
  strategy, _ = build(strategy='blockwise', mask_ratio=0.6)
  hidden = strategy.propose((), jnp.zeros((2000, 16, 16, 1)), jax.random.key(0), 1.0, False).hidden
  counts, times = np.unique(hidden.sum((-2, -1)), return_counts=True)
  np.testing.assert_array_equal(counts, [9, 10])  # 0.6 * 16 = 9.6
  assert times[1] / 2000 == pytest.approx(0.6, abs=0.05)


def test_gradient_energy_by_hand():
  """Squared differences to the next pixel, the last column's and row's being those of the one
  before.
  """
  image = jnp.array([[0.0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 3]])[None, ..., None]
  across = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 9, 9]])
  down = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 9], [0, 0, 0, 9]])
  expected = np.log(patch_mean(jnp.asarray(across + down, jnp.float32), 2) + 1e-4)
  np.testing.assert_allclose(gradient_energy(image, 2)[0], expected, rtol=1e-5)


def test_saliency_masks_what_is_busy_and_with_the_other_polarity_what_is_plain(build):
  noise = np.random.default_rng(0).normal(0, 0.5, (8, 16, 16, 1)).astype(np.float32)
  noise[:, :, :8] = 0  # The left half is plain.
  for polarity, sign in (('hard', 1), ('easy', -1)):
    strategy, _ = build(strategy='saliency', mask_ratio=0.5, polarity=polarity, warmup=0.5)
    for progress, least in ((1.0, 0.1), (0.0, 0.0)):
      p = np.asarray(
        strategy.propose((), jnp.asarray(noise), jax.random.key(0), progress, True).probability
      )
      difference = p[:, :, 2:].mean() - p[:, :, :2].mean()
      assert sign * difference >= least - 1e-6
      assert progress > 0 or np.abs(difference) < 1e-6
