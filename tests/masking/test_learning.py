"""Does the agent learn? The U-Net is replaced by one whose error in every patch is
planted.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import actor_critic, registry
from ahm_jax.masking.patches import apart, to_pixels
from ahm_jax.masking.rollout import rollout
from ahm_jax.masking.strategy import WORKERS, Context

# Images a worker, patches along a side, pixels along the side of a patch.
ACTORS, SHARE, GRID, PATCH = (
  2,
  4,
  8,
  4,
)


def brightness_and_images(key, count):
  """Patches of random brightness [n, g, g] in [-1, 1], and images [n, H, W, 1] of them with
  pixel noise.
  """
  brightness_key, noise_key = jax.random.split(key)
  brightness = jax.random.uniform(brightness_key, (count, GRID, GRID), minval=-1.0)
  images = to_pixels(brightness, PATCH)[..., None]
  return brightness, images + 0.2 * jax.random.normal(noise_key, images.shape)


def planted_error(key, difficulty):
  """Errors [..., H, W, 1] whose logarithm is the difficulty of the patch plus noise."""
  noisy = difficulty + 0.3 * jax.random.normal(key, difficulty.shape)
  return to_pixels(jnp.exp(noisy), PATCH)[..., None]


def train(strategy, state, key, steps, difficulty=None, delay=0):
  """The state after `steps`, `progress` 0 for the first `delay`.

  `difficulty` [g, g] is every image's, None: its brightness.
  """

  def step(state, i):
    image_key, error_key, rollout_key = jax.random.split(jax.random.fold_in(key, i), 3)
    progress = jnp.clip((i - delay) / (steps - delay), 0, 1)
    brightness, images = brightness_and_images(image_key, ACTORS * SHARE)
    planted = brightness if difficulty is None else jnp.broadcast_to(difficulty, brightness.shape)
    errors = planted_error(error_key, planted)

    def work(images, errors, key):
      def propose(observation, round_key):
        return strategy.propose(state, observation, round_key, progress, True)

      def reconstruct(carry, _):
        return images + errors, (), carry

      return rollout(images, key, propose, reconstruct, None, patch_size=PATCH)[0]

    by_worker = [x.reshape(ACTORS, SHARE, *x.shape[1:]) for x in (images, errors)]
    done = jax.vmap(work, axis_name=WORKERS)(*by_worker, jax.random.split(rollout_key, ACTORS))
    return strategy.learn(state, done, None, progress)[0], None

  return jax.lax.scan(step, state, jnp.arange(steps))[0]


@functools.partial(jax.jit, static_argnums=0)
def probability(strategy, state, images):
  return strategy.propose(state, images, jax.random.key(0), 1.0, False).probability


def rank_correlation(strategy, state, difficulty=None):
  """Mean over held-out images of Spearman's correlation between p and the planted difficulty."""
  brightness, images = brightness_and_images(jax.random.key(999), 16)
  difficulty = brightness if difficulty is None else np.broadcast_to(difficulty, brightness.shape)
  p = probability(strategy, state, images)
  return np.mean(
    [stats.spearmanr(np.ravel(a), np.ravel(b))[0] for a, b in zip(p, difficulty, strict=True)]
  )


@pytest.mark.parametrize('name', ['ahm', 'reinforce'])
def test_the_agent_learns_which_patches_are_hard(build, name):
  """Brighter patches cost more.

  The agent has to see them. Measured: 0.95 to 0.99 for both, from -0.3 to 0.1.
  """
  strategy, _ = build(strategy=name, learning_rate=5e-3)
  start = strategy.init(jax.random.key(1), jnp.zeros((1, 32, 32, 1)), None)
  learnt = jax.jit(lambda state: train(strategy, state, jax.random.key(2), 120))(start)
  before, after = rank_correlation(strategy, start), rank_correlation(strategy, learnt)
  assert before < 0.3
  assert after > 0.7


@pytest.mark.parametrize(('name', 'fields'), [('ahm', {'polarity': 'easy'}), ('adamae', {})])
def test_what_is_to_be_left_visible_is_learnt_too(build, name, fields):
  """AHM with the other polarity, and AdaMAE, mask what is easy to reconstruct.

  Measured: -0.98 and -0.97.
  """
  strategy, _ = build(strategy=name, learning_rate=5e-3, **fields)
  start = strategy.init(jax.random.key(1), jnp.zeros((1, 32, 32, 1)), None)
  learnt = jax.jit(lambda state: train(strategy, state, jax.random.key(2), 120))(start)
  assert rank_correlation(strategy, start) > -0.4
  assert rank_correlation(strategy, learnt) < -0.7


def test_hpm_finds_the_hardest_patches(build):
  """Of 64 patches, 0.5 * 0.6 * 64 are masked for sure.

  Measured: 95 % of them are among the 19 brightest, from 18 %.
  """
  strategy, _ = build(strategy='hpm', learning_rate=5e-3)
  start = strategy.init(jax.random.key(1), jnp.zeros((1, 32, 32, 1)), None)
  learnt = jax.jit(lambda state: train(strategy, state, jax.random.key(2), 120))(start)

  def share_found(state):
    brightness, images = brightness_and_images(jax.random.key(999), 16)
    sure = np.asarray(probability(strategy, state, images)) == 1
    brightest = (
      np.asarray(brightness)
      >= np.sort(np.asarray(brightness).reshape(16, -1), -1)[:, -19, None, None]
    )
    assert np.all(sure.sum((1, 2)) == 19)
    return (sure & brightest).sum() / sure.sum()

  assert share_found(start) < 0.5
  assert share_found(learnt) > 0.8


@pytest.mark.parametrize(('polarity', 'sign'), [('hard', 1), ('easy', -1)])
def test_adios_learns_by_the_gradient_what_its_u_net_reconstructs_worst(tiny_agent, polarity, sign):
  """The U-Net answers -1 everywhere, so that brighter patches cost more.

  Measured: 0.99 and -0.94, from -0.33.
  """
  masking = MaskingConfig(patch_size=PATCH, learning_rate=5e-3, strategy='adios', polarity=polarity)
  context = Context(
    masking, tiny_agent(), lambda _, masked: jnp.full_like(masked, -1.0), lambda tree: tree
  )
  strategy = registry.build(context)
  start = strategy.init(jax.random.key(1), jnp.zeros((1, 32, 32, 1)), None)
  learnt = jax.jit(lambda state: train(strategy, state, jax.random.key(2), 120))(start)
  assert sign * rank_correlation(strategy, start) < 0.4
  assert sign * rank_correlation(strategy, learnt) > 0.7


class TableAgent(nn.Module):
  """One logit and one value a patch, whatever the image: nothing is shared, so that the loss
  alone is tested.
  """

  trunk: str = 'none'

  @nn.compact
  def __call__(self, x, train):
    del train
    self.variable('batch_stats', 'none', lambda: jnp.zeros(()))
    logits = self.param('logits', nn.initializers.normal(0.1), (GRID, GRID))
    values = self.param('values', nn.initializers.zeros, (GRID, GRID))
    return [jnp.broadcast_to(table, (x.shape[0], GRID, GRID)) for table in (logits, values)]


def masked_only_losses(logits, values, actions, returns):
  """The mistake: the same terms, over masked patches alone."""
  advantages = jax.lax.stop_gradient(returns - values)
  return actor_critic.Losses(
    policy=-actor_critic.reconstruction_loss(
      actor_critic.log_probability(logits, actions) * advantages, actions
    ),
    value=actor_critic.reconstruction_loss((returns - values) ** 2, actions) / 2,
    entropy=actor_critic.entropy(logits).mean(),
  )


def final_correlations(learning_losses, monkeypatch, seeds=4):
  monkeypatch.setattr(actor_critic, 'losses', learning_losses)
  masking = MaskingConfig(patch_size=PATCH, mask_ratio=0.6, learning_rate=0.02, strategy='ahm')
  strategy = registry.build(Context(masking, TableAgent(), None, lambda tree: tree))

  def run(seed):
    map_key, init_key, train_key = jax.random.split(jax.random.key(seed), 3)
    difficulty = jax.random.uniform(map_key, (GRID, GRID), minval=-1.0)
    state = strategy.init(init_key, jnp.zeros((1, 32, 32, 1)), None)
    return difficulty, train(strategy, state, train_key, 500, difficulty, delay=200)

  difficulty, states = jax.jit(lambda seeds: jax.lax.map(run, seeds))(jnp.arange(seeds))
  return [
    rank_correlation(strategy, jax.tree.map(lambda x, i=i: x[i], states), difficulty[i])
    for i in range(seeds)
  ]


def test_losses_over_masked_patches_only_do_not_learn_what_losses_over_all_patches_learn(
  monkeypatch,
):
  """The critic is given a uniform policy's 200 steps to learn the difficulties, then the policy has
  300 to follow.

  Measured: 0.79 to 0.86 over all patches, -0.06 to 0.22 over masked ones.
  """
  right = final_correlations(actor_critic.losses, monkeypatch)
  wrong = final_correlations(masked_only_losses, monkeypatch)
  assert np.mean(right) > 0.7
  assert np.mean(wrong) < 0.2


def test_why_the_critic_of_masked_patches_leaves_no_gradient():
  """The exact expected gradient, over all 16 actions on 2 x 2 patches, once the critic has
  reached the mean return.
  """
  logits = jnp.array([[0.4, -1.0], [2.0, 0.0]])
  rewards = np.array([[1.5, -2.0], [0.5, 1.0]])
  p = expit(np.float64(logits))

  def expected_gradients(losses, values):
    total = np.zeros((2, 2, 2))
    for actions in itertools.product((0.0, 1.0), repeat=4):
      actions = np.reshape(actions, (2, 2))
      likelihood = np.prod(np.where(actions == 1, p, 1 - p))
      gradients = jax.grad(lambda z, v, a=actions: sum(losses(z, v, a, a * rewards)[:2]), (0, 1))(
        logits, values
      )
      total += likelihood * np.array(gradients)
    return total

  # Over masked patches the mean return is the reward itself: no advantage is left, and the policy
  # stands still.
  np.testing.assert_allclose(
    expected_gradients(masked_only_losses, jnp.array(rewards)), np.zeros((2, 2, 2)), atol=1e-6
  )
  # Over all patches it is p r. Masked (P = p): (1 - p) * (r - p r); visible (P = 1 - p): -p * (0 -
  # p r); the sum is p (1 - p)^2 r + p^2 (1 - p) r = p (1 - p) r, so that the loss falls where hard
  # patches are masked more often.
  by_logits, by_values = expected_gradients(actor_critic.losses, jnp.array(p * rewards))
  np.testing.assert_allclose(by_logits, -p * (1 - p) * rewards / 4, atol=1e-6)
  np.testing.assert_allclose(by_values, np.zeros((2, 2)), atol=1e-6)


def train_modalities(strategy, state, key, steps):
  """As `train`, of images of 3 modalities: the first is easy, the second costs more where it is
  brighter, the third is hard; brightness of each is its own.
  """

  def step(state, i):
    image_key, error_key, rollout_key = jax.random.split(jax.random.fold_in(key, i), 3)
    brightness, images = three_modalities(image_key, ACTORS * SHARE)
    planted = planted_in_the_second(brightness)
    errors = jnp.moveaxis(planted_error(error_key, planted)[..., 0], 1, -1)

    def work(images, errors, key):
      def propose(observation, round_key):
        return strategy.propose(state, observation, round_key, i / steps, True)

      def reconstruct(carry, _):
        return images + errors, (), carry

      fields = {'patch_size': PATCH, 'per_modality': True}
      return rollout(images, key, propose, reconstruct, None, **fields)[0]

    by_worker = [x.reshape(ACTORS, SHARE, *x.shape[1:]) for x in (images, errors)]
    done = jax.vmap(work, axis_name=WORKERS)(*by_worker, jax.random.split(rollout_key, ACTORS))
    return strategy.learn(state, done, None, i / steps)[0], None

  return jax.lax.scan(step, state, jnp.arange(steps))[0]


def three_modalities(key, count):
  """As `brightness_and_images`: [n, 3, g, g], and [n, H, W, 3]."""
  keys = jax.random.split(key, 3)
  made = [brightness_and_images(each, count) for each in keys]
  return jnp.stack([one for one, _ in made], 1), jnp.concatenate([other for _, other in made], -1)


def planted_in_the_second(brightness):
  """The difficulty of the patches of three modalities: -1, the second's brightness, 1."""
  return jnp.stack(
    [-jnp.ones_like(brightness[:, 0]), brightness[:, 1], 1 + 0 * brightness[:, 2]], 1
  )


def test_what_is_planted_in_one_modality_is_learnt(tiny_agent):
  """The agent has to tell which modality a patch is of, and to see that of the second alone.

  Measured: 0.86 in the second, from 0.29; mean probabilities 0.09, 0.45 and 0.97.
  """
  masking = MaskingConfig(
    patch_size=PATCH, learning_rate=5e-3, strategy='ahm', per_modality=True, mask_ratio=0.5
  )
  agent = tiny_agent(width=8, modalities=3)
  strategy = registry.build(Context(masking, agent, None, lambda tree: tree))
  start = strategy.init(jax.random.key(1), jnp.zeros((1, 32, 32, 3)), None)
  learnt = jax.jit(lambda state: train_modalities(strategy, state, jax.random.key(2), 150))(start)
  brightness, images = three_modalities(jax.random.key(999), 16)

  def found(state):
    """Rank correlations within each modality, with its brightness; and mean probabilities."""
    p = np.asarray(apart(probability(strategy, state, images), 3))
    correlations = [
      np.mean(
        [stats.spearmanr(np.ravel(p[n, k]), np.ravel(brightness[n, k]))[0] for n in range(16)]
      )
      for k in range(3)
    ]
    return correlations, p.mean((0, 2, 3))

  before, _ = found(start)
  after, means = found(learnt)
  assert before[1] < 0.4
  assert after[1] > 0.7
  assert max(abs(after[0]), abs(after[2])) < 0.5  # Their own brightness says nothing.
  assert means[0] < 0.35 and means[2] > 0.65
  assert means.mean() == pytest.approx(0.5, abs=1e-4)  # The budget is over all.
