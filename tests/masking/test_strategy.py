import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import strategy
from ahm_jax.masking.strategy import (
  growing_share,
  hardest_first,
  moving_average,
)
from ahm_jax.runtime.averages import Average, average_of

# All different.
SCORES = jnp.asarray(np.random.default_rng(0).permutation(40).reshape(2, 4, 5), jnp.float32)


def test_the_hardest_are_masked_for_sure_and_the_others_at_random():
  masking = MaskingConfig(mask_ratio=0.6)
  keys = jax.random.split(jax.random.key(0), 3000)
  done = jax.jit(jax.vmap(lambda key: hardest_first(key, SCORES, jnp.float32(0.5), masking)))(keys)
  for i in range(2):
    hardest = np.asarray(SCORES[i]) >= np.sort(SCORES[i].ravel())[-6]  # Half of 0.6 * 20.
    hidden, probability = np.asarray(done.hidden[:, i]), np.asarray(done.probability[:, i])
    assert np.all(hidden[:, hardest] == 1)
    np.testing.assert_allclose(
      probability, np.broadcast_to(np.where(hardest, 1, 6 / 14), probability.shape), atol=1e-6
    )
    # Standard error 0.009.
    np.testing.assert_allclose(hidden[:, ~hardest].mean(0), np.full(14, 6 / 14), atol=0.04)
    assert np.ptp(hidden.sum((-2, -1))) > 3


def test_no_share_is_uniform_and_a_whole_share_masks_the_hardest_alone():
  masking = MaskingConfig(mask_ratio=0.6)
  np.testing.assert_allclose(
    hardest_first(jax.random.key(0), SCORES, 0.0, masking).probability,
    np.full((2, 4, 5), 0.6),
    atol=1e-6,
  )
  hidden = hardest_first(jax.random.key(0), SCORES, 1.0, masking).hidden
  for i in range(2):
    np.testing.assert_array_equal(hidden[i], SCORES[i] >= np.sort(SCORES[i].ravel())[-12])


def test_ties_are_broken_at_random():
  masking = MaskingConfig(mask_ratio=0.5)
  keys = jax.random.split(jax.random.key(0), 2000)
  hidden = jax.vmap(lambda key: hardest_first(key, jnp.zeros((1, 2, 5)), 1.0, masking).hidden)(keys)
  np.testing.assert_allclose(hidden.mean((0, 1)), np.full((2, 5), 0.5), atol=0.05)


@pytest.mark.parametrize(
  ('fields', 'progress', 'expected'),
  [
    ({}, 0.0, 0.0),
    ({}, 0.5, 0.25),
    ({}, 1.0, 0.5),
    ({'hard_share': 0.8}, 0.25, 0.2),
    ({'hard_share': 0.8, 'warmup': 0.5}, 0.25, 0.4),
    ({'warmup': 0.5}, 0.9, 0.5),
    ({'warmup': 0.0}, 0.0, 0.5),
    ({'warmup': 0.5}, 0.25, 0.25),
  ],
)
def test_the_share_grows_linearly(fields, progress, expected):
  assert growing_share(progress, MaskingConfig(**fields), 0.5) == pytest.approx(expected)


def test_moving_average_by_hand(monkeypatch):
  monkeypatch.setattr(strategy, 'EMA_DECAY', (0.8, 0.9))
  first, new = {'a': jnp.array([1.0, 2])}, {'a': jnp.array([2.0, 0])}
  # (1 + t) / (10 + t) is 0.1 and 0.5 at the first and the ninth move, and above 0.9 from the 81st
  # on.
  for progress, moves, decay in (
    *((p, 0, 0.1) for p in (0.0, 1.0)),
    (1.0, 8, 0.5),
    (0.0, 80, 0.8),
    (0.125, 80, 0.85),
    (1.0, 81, 0.9),
  ):
    result = moving_average(Average(first, jnp.int32(moves)), new, progress)
    np.testing.assert_allclose(
      result.value['a'], decay * np.array([1, 2]) + (1 - decay) * np.array([2, 0]), rtol=1e-6
    )
    assert result.moves == moves + 1


def test_a_slow_average_of_a_short_run_forgets_its_random_start():
  """With 0.9999 alone, 0.98 of the start would be left after 200 moves."""
  average = average_of(jnp.float32(100.0))
  for move in range(200):
    average = moving_average(average, jnp.float32(move), move / 200)
  weights = np.ones(1)
  for move in range(200):
    decay = (1 + move) / (10 + move)
    weights = np.append(weights * decay, 1 - decay)
  assert weights[0] < 1e-12
  assert average.value == pytest.approx(weights @ np.array([100.0, *range(200)]), rel=1e-5)
