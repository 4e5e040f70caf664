import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from ahm_jax.masking import actor_critic
from ahm_jax.masking.patches import budget_shift

REWARDS = actor_critic.log_rewards, actor_critic.rank_rewards


@pytest.fixture
def batch():
  """Losses [3, 4, 4] over six decades, and which patches are hidden."""
  generator = np.random.default_rng(3)
  losses = np.exp(generator.normal(-3, 2, (3, 4, 4))).astype(np.float32)
  return losses, (generator.random((3, 4, 4)) < 0.6).astype(np.float32)


def test_reconstruction_loss_counts_masked_patches_only():
  losses = jnp.array([[[1.0, 100], [3, 100]]])
  hidden = jnp.array([[[1.0, 0], [1, 0]]])
  assert actor_critic.reconstruction_loss(losses, hidden) == 2  # (1 + 3) / 2
  np.testing.assert_array_equal(
    jax.grad(actor_critic.reconstruction_loss)(losses, hidden), [[[0.5, 0], [0.5, 0]]]
  )


def test_reconstruction_loss_weighs_all_masked_patches_alike_whatever_image_they_are_in():
  losses = jnp.array([[[6.0, 0]], [[1, 2]]])
  hidden = jnp.array([[[1.0, 0]], [[1, 1]]])
  assert actor_critic.reconstruction_loss(losses, hidden) == 3  # (6 + 1 + 2) / 3


def test_reconstruction_loss_of_nothing_masked_is_zero():
  assert actor_critic.reconstruction_loss(jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2))) == 0


def test_log_rewards_by_hand():
  # Losses of masked patches exp(1), exp(2), exp(6): logs 1, 2, 6; mean 3; deviations -2, -1, 3; std
  # = sqrt((4 + 1 + 9) / 3) = 2.160247.
  losses = jnp.exp(jnp.array([[[1.0, 2], [6, 20]]]))
  hidden = jnp.array([[[1.0, 1], [1, 0]]])
  np.testing.assert_allclose(
    actor_critic.log_rewards(losses, hidden),
    [[[-0.9258201, -0.4629100], [1.3887301, 0]]],
    atol=1e-5,
  )


def test_several_losses_are_joined_as_their_rewards_are(batch):
  losses, hidden = batch
  other = losses[::-1]
  joined = actor_critic.joined_losses((losses, other), (1.0, 0.5), hidden)
  rewards = (np.asarray(actor_critic.log_rewards(x, hidden)) for x in (losses, other))
  total = sum(weight * reward for weight, reward in zip((1.0, 0.5), rewards, strict=True))
  deviations = np.where(hidden == 1, total / total[hidden == 1].std(), 0)
  np.testing.assert_allclose(actor_critic.log_rewards(joined, hidden), deviations, atol=1e-3)
  np.testing.assert_array_equal(joined[hidden == 0], 1)
  alone = actor_critic.joined_losses((losses,), (3.0,), hidden)
  np.testing.assert_allclose(
    actor_critic.log_rewards(alone, hidden), actor_critic.log_rewards(losses, hidden), atol=1e-3
  )


def test_log_rewards_are_whitened_over_the_masked_patches_of_the_batch(batch):
  losses, hidden = batch
  rewards = np.asarray(actor_critic.log_rewards(losses, hidden))
  assert np.all(rewards[hidden == 0] == 0)
  paid = rewards[hidden == 1]
  assert abs(paid.mean()) < 1e-5 and abs(paid.std() - 1) < 1e-5
  logs = np.log(np.float64(losses[hidden == 1]) + 1e-6)
  np.testing.assert_allclose(paid, (logs - logs.mean()) / logs.std(), atol=1e-4)


def test_log_rewards_ignore_the_scale_of_the_losses(batch):
  losses, hidden = batch
  np.testing.assert_allclose(
    actor_critic.log_rewards(losses * 10, hidden),
    actor_critic.log_rewards(losses, hidden),
    atol=1e-3,
  )


def test_progress_rewards_are_log_rewards_of_what_was_learnt(batch):
  losses, hidden = batch
  reference = losses[::-1]
  learnt = np.log(np.float64(reference) + 1e-6) - np.log(np.float64(losses) + 1e-6)
  chosen = learnt[hidden == 1]
  expected = np.where(hidden, (learnt - chosen.mean()) / chosen.std(), 0)
  rewards = actor_critic.progress_rewards(losses, hidden, reference)
  np.testing.assert_allclose(rewards, expected, atol=1e-4)
  gradients = jax.grad(
    lambda *losses: (actor_critic.progress_rewards(losses[0], hidden, losses[1])).sum(), (0, 1)
  )(jnp.asarray(losses), jnp.asarray(reference))
  assert not any(gradient.any() for gradient in gradients)


def test_rank_rewards(batch):
  # Losses of masked patches 1, 2, 6, 4 rank 0, 1, 3, 2 of 0..3: 2 * rank / 3 - 1. The visible ones,
  # 0 and 20, take no rank.
  by_hand = actor_critic.rank_rewards(
    jnp.array([[1.0, 2, 0], [6, 20, 4]]), jnp.array([[1.0, 1, 0], [1, 0, 1]])
  )
  np.testing.assert_allclose(by_hand, [[-1, -1 / 3, 0], [1, 0, 1 / 3]], atol=1e-6)
  losses, hidden = batch
  ranks = stats.rankdata(losses[hidden == 1])
  rewards = np.asarray(actor_critic.rank_rewards(losses, hidden))
  np.testing.assert_allclose(
    rewards[hidden == 1], 2 * (ranks - 1) / (len(ranks) - 1) - 1, atol=1e-6
  )
  assert np.all(rewards[hidden == 0] == 0)


@pytest.mark.parametrize('rewards', REWARDS)
def test_rewards_are_constant_to_the_gradient_and_finite_at_the_edges(rewards, batch):
  losses, hidden = batch
  gradient = jax.grad(lambda x: (rewards(x, hidden) * losses).sum())(jnp.asarray(losses))
  np.testing.assert_array_equal(gradient, np.zeros_like(losses))
  one_hidden = np.zeros_like(hidden)
  one_hidden[0, 1, 2] = 1
  for edge in (np.zeros_like(hidden), one_hidden, np.ones_like(hidden)):
    for values in (losses, np.zeros_like(losses), np.full_like(losses, 0.3)):
      assert np.all(np.isfinite(rewards(values, edge)))


def test_a_single_masked_patch_is_an_average_one():
  hidden = jnp.zeros((2, 3, 3)).at[0, 1, 1].set(1)
  for rewards in REWARDS:
    np.testing.assert_allclose(
      rewards(jnp.full((2, 3, 3), 0.3), hidden), np.zeros((2, 3, 3)), atol=1e-4
    )


@pytest.mark.parametrize('rewards', REWARDS)
def test_equal_losses_pay_nothing(rewards):
  np.testing.assert_allclose(
    rewards(jnp.full((2, 3, 3), 0.3), jnp.ones((2, 3, 3))),
    np.zeros((2, 3, 3)),
    atol=0.2,
  )


def test_returns_by_hand():
  # gamma = 0.5: 4; 2 + 0.5 * 4 = 4; 1 + 0.5 * 4 = 3.
  np.testing.assert_allclose(
    actor_critic.discounted_returns(jnp.array([1.0, 2, 4]), 0.5), [3, 4, 4]
  )


@pytest.mark.parametrize('rounds', [1, 2, 3, 4, 5])
def test_returns_equal_a_loop(rounds):
  generator = np.random.default_rng(rounds)
  rewards = generator.normal(size=(rounds, 2, 3, 3)).astype(np.float32)
  expected, following = [], np.zeros((2, 3, 3))
  for reward in rewards[::-1]:
    following = reward + 0.9 * following
    expected.insert(0, following)
  np.testing.assert_allclose(
    actor_critic.discounted_returns(rewards, 0.9), expected, rtol=1e-5, atol=1e-6
  )


def test_returns_are_constant_to_the_gradient():
  gradient = jax.grad(lambda r: actor_critic.discounted_returns(r, 0.9).sum())(jnp.array([1.0, 2]))
  assert not gradient.any()


def test_log_probability_equals_scipy():
  logits = np.linspace(-8, 8, 33)
  for action in (0.0, 1.0):
    expected = stats.bernoulli.logpmf(int(action), expit(logits))
    np.testing.assert_allclose(
      actor_critic.log_probability(logits, np.full_like(logits, action)),
      expected,
      rtol=1e-4,
      atol=1e-6,
    )


def test_entropy_equals_scipy():
  logits = np.linspace(-8, 8, 33)
  np.testing.assert_allclose(
    actor_critic.entropy(logits), stats.bernoulli.entropy(expit(logits)), rtol=1e-3, atol=1e-6
  )
  assert actor_critic.entropy(jnp.array(0.0)) == pytest.approx(np.log(2))


def test_extreme_logits_stay_finite():
  logits = jnp.array([-1e4, -100.0, -50, 50, 100, 1e4])
  for action in (0.0, 1.0):
    # log(sigmoid(z)) is z far below 0, and 0 far above.
    expected = np.minimum(logits if action else -logits, 0)
    np.testing.assert_allclose(
      actor_critic.log_probability(logits, jnp.full(6, action)), expected, atol=1e-6
    )
    assert np.all(
      np.isfinite(
        jax.grad(lambda z, a=action: actor_critic.log_probability(z, jnp.full(6, a)).sum())(logits)
      )
    )
  np.testing.assert_allclose(actor_critic.entropy(logits), np.zeros(6), atol=1e-5)
  assert np.all(np.isfinite(jax.grad(lambda z: actor_critic.entropy(z).sum())(logits)))


# A 2 x 2 grid by hand. Logits 0, log 3, -log 3, 0: p = 1/2, 3/4, 1/4, 1/2.
LOGITS = jnp.array([[[0.0, np.log(3)], [-np.log(3), 0.0]]])
P = np.array([[[0.5, 0.75], [0.25, 0.5]]])
ACTIONS = jnp.array([[[1.0, 1], [0, 0]]])
RETURNS = jnp.array([[[2.0, -1], [0, 0]]])
VALUES = jnp.array([[[0.5, 1], [-2, 1]]])
ADVANTAGES = np.array([[[1.5, -2], [2, -1]]])  # R - V


def test_losses_by_hand():
  policy, value, entropy = actor_critic.losses(LOGITS, VALUES, ACTIONS, RETURNS)
  # log pi(a): log 1/2, log 3/4, log(1 - 1/4), log(1 - 1/2) = -0.693147, -0.287682, -0.287682,
  # -0.693147. times A = 1.5, -2, 2, -1: -1.039721, 0.575364, -0.575364, 0.693147; their sum is
  # -0.346574, and minus a quarter of it:
  assert policy == pytest.approx(0.0866434, abs=1e-6)
  # A^2 = 2.25, 4, 4, 1: sum 11.25; /4 = 2.8125; /2 = 1.40625.
  assert value == pytest.approx(1.40625)
  # H(1/2) = 0.693147 twice, H(1/4) = H(3/4) = 0.25 * 1.386294 + 0.75 * 0.287682 = 0.562335 twice;
  # mean 0.627741.
  assert entropy == pytest.approx(0.627741, abs=1e-6)


def test_the_gradient_of_the_policy_loss():
  # d log pi(a) / dz = a - p, so the gradient is -(a - p) A / n, for visible patches as for hidden
  # ones.
  gradient = jax.grad(lambda z: actor_critic.losses(z, VALUES, ACTIONS, RETURNS).policy)(LOGITS)
  np.testing.assert_allclose(gradient, -(ACTIONS - P) * ADVANTAGES / 4, atol=1e-6)
  assert np.all(gradient != 0)


def test_the_gradient_of_the_policy_loss_through_the_budget():
  """The shift is a constant: the gradient with respect to the raw logits is -(a - p) A / n at
  the shifted p.
  """

  def policy_loss(raw):
    return actor_critic.losses(raw + budget_shift(raw, 0.6), VALUES, ACTIONS, RETURNS).policy

  p = expit(np.float64(LOGITS + budget_shift(LOGITS, 0.6)))
  assert p.mean() == pytest.approx(0.6, abs=1e-5)
  np.testing.assert_allclose(
    jax.grad(policy_loss)(LOGITS), -(ACTIONS - p) * ADVANTAGES / 4, atol=1e-6
  )


def test_the_advantage_is_a_constant_to_the_gradient_of_the_policy():
  by_values, by_returns = jax.grad(
    lambda v, r: actor_critic.losses(LOGITS, v, ACTIONS, r).policy, (0, 1)
  )(VALUES, RETURNS)
  assert not by_values.any() and not by_returns.any()


def test_the_critic_learns_from_its_own_loss_alone():
  # d/dV of mean((R - V)^2) / 2 is -(R - V) / n.
  by_logits, by_values = jax.grad(
    lambda z, v: actor_critic.losses(z, v, ACTIONS, RETURNS).value, (0, 1)
  )(LOGITS, VALUES)
  assert not by_logits.any()
  np.testing.assert_allclose(by_values, -ADVANTAGES / 4, atol=1e-6)


def test_the_gradient_of_the_entropy():
  # dH/dz = -z p (1 - p).
  gradient = jax.grad(lambda z: actor_critic.losses(z, VALUES, ACTIONS, RETURNS).entropy)(LOGITS)
  np.testing.assert_allclose(gradient, -np.asarray(LOGITS) * P * (1 - P) / 4, atol=1e-6)
