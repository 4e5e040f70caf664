import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from ahm_jax import config
from ahm_jax.masking import policy
from ahm_jax.masking.patches import bound_logits, centred
from ahm_jax.masking.policy import policy_logits


def two_by_two(fields, progress=1.0):
  """p of the logits 0, 4, -4, 0, at a ratio of 1/2, where an image's symmetric logits need no
  shift.
  """
  masking = config.MaskingConfig(**{'mask_ratio': 0.5, 'warmup': 0.0} | fields)
  return np.asarray(expit(policy_logits(jnp.array([[[0.0, 4], [-4, 0]]]), progress, masking)))[0]


def test_a_hard_share_mixes_the_policy_with_uniform_masks():
  p = expit(3 * np.tanh([[0, 4 / 3], [-4 / 3, 0]]))
  np.testing.assert_allclose(two_by_two({'hard_share': 0.3}), 0.7 * 0.5 + 0.3 * p, atol=1e-6)
  # Mask warm-up by share: at a quarter of the way it is a quarter of 0.8.
  by_share = {'warmup_by': 'share', 'warmup': 1.0, 'hard_share': 0.8}
  np.testing.assert_allclose(two_by_two(by_share, 0.25), 0.8 * 0.5 + 0.2 * p, atol=1e-6)
  np.testing.assert_allclose(two_by_two({'warmup_by': 'share', 'warmup': 0.5}, 0.9), p, atol=1e-5)


def test_a_mixture_is_finite_where_the_policy_is_certain(monkeypatch):
  """At logits of 60 a float32 sigmoid is 1, and its complement's logarithm would be infinite."""
  monkeypatch.setattr(policy, 'LOGIT_BOUND', 60.0)
  raw = jnp.array([[[0.0, 80], [-80, 0]]])
  for share, expected in (
    (1.0, 60 * np.tanh([[0, 4 / 3], [-4 / 3, 0]])),
    (0.0, np.zeros((2, 2))),
  ):
    masking = config.MaskingConfig(mask_ratio=0.5, warmup=0.0, warmup_by='share', hard_share=share)
    logits, back = jax.vjp(lambda raw, masking=masking: policy_logits(raw, 1.0, masking), raw)
    np.testing.assert_allclose(logits[0], expected, atol=1e-3)
    assert np.all(np.isfinite(back(jnp.ones_like(logits))[0]))


def test_without_a_budget_logits_are_bounded_and_start_at_the_ratio():
  masking = config.MaskingConfig(mask_ratio=0.7, warmup=0.0, budget='none')
  raw = jnp.array([[[0.0, 1], [50, 7]]])
  expected = np.log(0.7 / 0.3) + 3 * np.tanh(np.array([[[0, 1], [50, 7]]]) / 3)
  np.testing.assert_allclose(policy_logits(raw, 1.0, masking), expected, atol=1e-5)


def test_a_budget_by_tiles_holds_in_every_tile_and_keeps_the_differences_within():
  masking = config.MaskingConfig(mask_ratio=0.6, budget='tile', warmup=0.0)
  raw = 2 * jax.random.normal(jax.random.key(0), (4, 6, 6))
  logits = np.asarray(policy_logits(raw, 1.0, masking))
  tiles = logits.reshape(4, 3, 2, 3, 2).swapaxes(2, 3)
  np.testing.assert_allclose(expit(tiles).mean((-2, -1)), np.full((4, 3, 3), 0.6), atol=1e-5)
  bounded = np.asarray(bound_logits(centred(raw), 3.0)).reshape(4, 3, 2, 3, 2).swapaxes(2, 3)
  np.testing.assert_allclose(np.ptp(tiles - bounded, (-2, -1)), np.zeros((4, 3, 3)), atol=1e-5)


def test_the_mask_warm_up_by_hand():
  raw = jnp.array([[[1.0, 5], [-3, 1]]])  # Mean 1, so centred: 0, 4, -4, 0.
  for warmup, progress, factor in (
    (1.0, 0.0, 0),
    (1.0, 0.25, 0.25),
    (0.5, 0.25, 0.5),
    (0.5, 0.9, 1),
    (0.0, 0.0, 1),
    (0.0, 0.7, 1),
  ):
    masking = config.MaskingConfig(mask_ratio=0.5, warmup=warmup)
    # A ratio of 1/2 and logits that are symmetric about 0 need no shift.
    expected = factor * 3 * np.tanh(np.array([[[0, 4], [-4, 0]]]) / 3)
    np.testing.assert_allclose(policy_logits(raw, progress, masking), expected, atol=1e-5)


def test_the_policy_is_uniform_at_the_start_and_bounded_at_the_end():
  masking = config.MaskingConfig(mask_ratio=0.6)
  raw = 100 * jax.random.normal(jax.random.key(2), (4, 7, 7))
  np.testing.assert_allclose(
    expit(policy_logits(raw, 0.0, masking)), np.full((4, 7, 7), 0.6), atol=1e-5
  )
  logits = np.asarray(policy_logits(raw, 1.0, masking))
  assert np.all(np.ptp(logits, (-2, -1)) <= 6 + 1e-5)
  np.testing.assert_allclose(expit(logits).mean((-2, -1)), np.full(4, 0.6), atol=1e-5)
  shape = bound_logits(centred(raw), 3.0)
  np.testing.assert_allclose(np.diff(logits, axis=-1), np.diff(shape, axis=-1), atol=1e-4)
