import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from ahm_jax import config
from ahm_jax.masking import strategies
from ahm_jax.masking.patches import bound_logits
from ahm_jax.masking.rollout import Rollout, rollout


def repair(carry, masked):
  return jnp.tanh(masked + jnp.roll(masked, 3, axis=2)), carry


def play(strategy, masking, state, images, key, progress=0.5, rounds=1):
  """Rollouts of all workers, [K, T, b, ...], as the pre-training step makes them."""

  def work(images, key):
    def propose(observation, round_key):
      return strategy.propose(state, observation, round_key, progress, True)

    return rollout(images, key, propose, repair, None, patch_size=masking.patch_size, rounds=rounds, reward=masking.reward)[0]

  keys = jax.random.split(key, images.shape[0])
  return jax.jit(jax.vmap(work, axis_name=strategies.WORKERS))(images, keys)


_STATES = {}


def start(strategy, images):
  """The fresh state; made once for all strategies whose states have the same structure, since that is slow."""
  arguments = (jax.random.key(0), images[0, :1], None)
  structure = jax.tree.structure(jax.eval_shape(strategy.init, *arguments))
  if structure not in _STATES:
    _STATES[structure] = jax.jit(strategy.init)(*arguments)
  return _STATES[structure]


class Lesson(NamedTuple):
  """One round of acting and learning from a fresh state."""

  strategy: strategies.Strategy
  masking: config.MaskingConfig
  state: strategies.AgentState
  rollouts: Rollout  # [K, T, b, ...]
  learnt: strategies.AgentState
  metrics: dict


@pytest.fixture(scope='module')
def lesson(build, images):
  """lesson(**masking fields) -> Lesson at progress 0.5, made once for each choice of fields."""

  @functools.cache
  def lesson(**fields):
    strategy, masking = build(**fields)
    state = start(strategy, images)
    rollouts = play(strategy, masking, state, images, jax.random.key(1), rounds=masking.rounds)
    return Lesson(strategy, masking, state, rollouts, *jax.jit(strategy.learn)(state, rollouts, None, 0.5))

  return lesson


def leaves(tree):
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_registry_is_the_list_in_the_config():
  assert tuple(strategies._BUILDERS) == config.STRATEGIES


@pytest.mark.parametrize('name', config.STRATEGIES)
@pytest.mark.parametrize('train', [True, False])
def test_every_image_is_hidden_at_the_ratio_in_the_mean(build, images, name, train):
  strategy, _ = build(strategy=name, mask_ratio=0.7)
  state = start(strategy, images)

  def propose(images, key):
    return strategy.propose(state, images, key, 1.0, train)

  workers = jax.jit(jax.vmap(propose, axis_name=strategies.WORKERS))
  done = workers(images, jax.random.split(jax.random.key(1), 2))
  assert done.actions.shape == done.hidden.shape == done.probability.shape == (2, 3, 4, 4)
  assert set(np.unique(done.hidden)) == {0, 1}
  np.testing.assert_allclose(done.probability.mean((-2, -1)), np.full((2, 3), 0.7), atol=1e-5)
  spread = np.asarray(done.probability).std((-2, -1))
  assert np.all(spread < 1e-6) if name == 'uniform' else np.all(spread > 1e-3)


@pytest.mark.parametrize('name', ['uniform', 'ahm'])
def test_exact_count(build, images, name):
  strategy, masking = build(strategy=name, exact_count=True, mask_ratio=0.6)
  done = play(strategy, masking, start(strategy, images), images, jax.random.key(1))
  np.testing.assert_array_equal(done.hidden.sum((-2, -1)), np.full((2, 1, 3), 10))  # round(0.6 * 16)


@pytest.mark.parametrize('action_means', ['mask', 'keep'])
@pytest.mark.parametrize('ratio', [0.25, 0.5, 0.7])
def test_exact_count_hides_the_same_number_whatever_the_actions_mean(action_means, ratio):
  masking = config.MaskingConfig(exact_count=True, mask_ratio=ratio, action_means=action_means)
  done = strategies.draw(jax.random.key(0), jnp.zeros((2, 5, 5)), masking)
  np.testing.assert_array_equal(done.hidden.sum((-2, -1)), np.full(2, round(ratio * 25)))


@pytest.mark.parametrize('ratio', [0.2, 0.6])
def test_keep_hides_what_is_not_kept_and_meets_the_ratio_of_hidden_patches(ratio):
  masking = config.MaskingConfig(action_means='keep', mask_ratio=ratio)
  raw = 2 * jax.random.normal(jax.random.key(0), (3, 4, 4))
  logits = strategies.policy_logits(raw, 1.0, masking)
  keys = jax.random.split(jax.random.key(1), 4000)
  done = jax.vmap(lambda key: strategies.draw(key, logits, masking))(keys)
  np.testing.assert_array_equal(done.hidden, 1 - done.actions)
  np.testing.assert_allclose(done.probability[0].mean((-2, -1)), np.full(3, ratio), atol=1e-5)
  p = 1 - expit(np.asarray(logits))
  assert np.all(np.abs(done.hidden.mean(0) - p) < 4.5 * np.sqrt(p * (1 - p) / 4000))


def test_ease_in_by_hand():
  raw = jnp.array([[[1.0, 5], [-3, 1]]])  # Mean 1, so centred: 0, 4, -4, 0.
  for ease_in, progress, factor in (
    (1.0, 0.0, 0),
    (1.0, 0.25, 0.25),
    (0.5, 0.25, 0.5),
    (0.5, 0.9, 1),
    (0.0, 0.0, 1),
    (0.0, 0.7, 1),
  ):
    masking = config.MaskingConfig(mask_ratio=0.5, ease_in=ease_in, logit_bound=3.0)
    # A ratio of 1/2 and logits that are symmetric about 0 need no shift.
    expected = factor * 3 * np.tanh(np.array([[[0, 4], [-4, 0]]]) / 3)
    np.testing.assert_allclose(strategies.policy_logits(raw, progress, masking), expected, atol=1e-5)


def test_the_policy_is_uniform_at_the_start_and_bounded_at_the_end():
  masking = config.MaskingConfig(mask_ratio=0.6, logit_bound=3.0)
  raw = 100 * jax.random.normal(jax.random.key(2), (4, 7, 7))
  np.testing.assert_allclose(expit(strategies.policy_logits(raw, 0.0, masking)), np.full((4, 7, 7), 0.6), atol=1e-5)
  logits = np.asarray(strategies.policy_logits(raw, 1.0, masking))
  assert np.all(np.ptp(logits, (-2, -1)) <= 6 + 1e-5)
  np.testing.assert_allclose(expit(logits).mean((-2, -1)), np.full(4, 0.6), atol=1e-5)
  shape = bound_logits(raw, 3.0)
  np.testing.assert_allclose(np.diff(logits, axis=-1), np.diff(shape, axis=-1), atol=1e-4)


@pytest.mark.parametrize('fields', [{}, {'rounds': 2, 'bootstrap': True, 'action_means': 'keep'}])
def test_every_agent_parameter_receives_a_gradient(lesson, fields):
  """The agent of the paper's public reproduction received none: its losses were formed from detached arrays."""
  done = lesson(strategy='ahm', **fields)
  before, after = leaves(done.state.params), leaves(done.learnt.params)
  for name, gradient in leaves(first_gradient(done.learnt)).items():
    assert np.linalg.norm(gradient) > 1e-4, name
    assert np.all(after[name] != before[name]), name
  assert set(done.metrics) == {'policy_loss', 'value_loss', 'entropy'}
  statistics = leaves(done.learnt.batch_stats)
  assert all(np.any(statistics[name] != value) for name, value in leaves(done.state.batch_stats).items())


def first_gradient(state):
  """Adam's first moment after one step from zero is (1 - 0.9) times the gradient."""
  return jax.tree.map(lambda moment: moment / 0.1, optax.tree_utils.tree_get(state.opt_state, 'mu'))


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('ahm', {}),
    ('ahm', {'rounds': 2, 'bootstrap': True, 'action_means': 'keep'}),
    ('reinforce', {'rounds': 2, 'gamma': 0.5}),
  ],
)
def test_the_gradient_is_that_of_the_objective(lesson, tiny_agent, name, fields):
  """Against the objective written out over all images at once: synchronised batch norm makes K workers one batch."""
  _, masking, state, rollouts, learnt, metrics = lesson(strategy=name, **fields)
  agent, shape = tiny_agent(), rollouts.actions.shape

  def apply(params, observations):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    folded = observations.reshape(-1, *observations.shape[-3:])
    maps, _ = agent.apply(variables, folded, train=True, mutable=['batch_stats'])
    return [x.reshape(*observations.shape[:-3], 4, 4) for x in maps]

  def apply_by_round(params, observations):
    return [jnp.stack(maps, 1) for maps in zip(*(apply(params, x) for x in observations.swapaxes(0, 1)), strict=True)]

  critic = float(name == 'ahm')
  last = np.asarray(jax.jit(apply)(state.params, rollouts.last_observation)[1]) * critic * masking.bootstrap
  returns = np.zeros(shape)
  for t in reversed(range(masking.rounds)):
    last = returns[:, t] = np.asarray(rollouts.rewards[:, t]) + masking.gamma * last

  def objective(params):
    raw, values = apply_by_round(params, rollouts.observations)
    logits = strategies.policy_logits(raw, 0.5, masking)
    p = jax.nn.sigmoid(logits)
    log_pi = jnp.log(jnp.where(rollouts.actions == 1, p, 1 - p))
    policy = -(log_pi * (returns - critic * jax.lax.stop_gradient(values))).mean()
    value = ((returns - critic * values) ** 2).mean() / 2
    entropy = -(p * jnp.log(p) + (1 - p) * jnp.log1p(-p)).mean()
    total = policy - masking.entropy_weight * entropy + masking.value_weight * value
    return total, {'policy_loss': policy, 'value_loss': value, 'entropy': entropy}

  gradients, terms = jax.jit(jax.grad(objective, has_aux=True))(state.params)
  expected = leaves(gradients)
  for path, gradient in leaves(first_gradient(learnt)).items():
    np.testing.assert_allclose(gradient, expected[path], rtol=2e-3, atol=2e-5, err_msg=path)
  assert set(metrics) == (set(terms) if critic else set(terms) - {'value_loss'})
  for term, value in ((term, value) for term, value in terms.items() if term in metrics):
    assert metrics[term] == pytest.approx(float(value), abs=2e-5), term


def test_the_workers_of_a_step_equal_one_worker_with_all_their_images(lesson):
  """Mean gradient and batch statistics, given the rewards; the rewards themselves are whitened per worker."""
  done = lesson(strategy='ahm')
  images = [x[:, 0].reshape(1, 1, 6, *x.shape[3:]) for x in done.rollouts[:-1]]  # [K, 1, b, ...] to [1, 1, K b, ...]
  by_one = Rollout(*images, done.rollouts.last_observation.reshape(1, 6, 16, 16, 2))
  learnt, metrics = jax.jit(done.strategy.learn)(done.state, by_one, None, 0.5)
  for of_one, of_two in (
    (first_gradient(learnt), first_gradient(done.learnt)),
    (learnt.batch_stats, done.learnt.batch_stats),
    (metrics, done.metrics),
  ):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), of_one, of_two)


@pytest.mark.parametrize('fields', [{}, {'rounds': 2, 'bootstrap': True, 'action_means': 'keep'}])
def test_the_agent_learns_about_the_policy_it_acted_by(lesson, fields):
  """Batch norm must see in learning the batches that it saw in acting, or log pi(a) is that of another policy."""
  done = lesson(strategy='ahm', **fields)
  p = np.float64(done.rollouts.probability)
  entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
  assert done.metrics['entropy'] == pytest.approx(entropy, abs=1e-6)


def test_reinforce_leaves_the_value_head_alone(lesson):
  done = lesson(strategy='reinforce', rounds=2, gamma=0.5)
  state, learnt = done.state, done.learnt
  before, after = leaves(state.params), leaves(learnt.params)
  untouched = {name for name in before if np.array_equal(before[name], after[name])}
  # The value map, and the block that only it reads.
  assert untouched == {name for name in before if "'value'" in name or "_2'" in name}


def test_an_untrained_agent_never_changes(build, images, lesson):
  strategy, _ = build(strategy='untrained')
  state = start(strategy, images)
  learnt, metrics = strategy.learn(state, lesson(strategy='ahm').rollouts, None, 0.5)
  assert metrics == {}
  jax.tree.map(np.testing.assert_array_equal, learnt, state)


def test_uniform_has_no_state(build, images, lesson):
  strategy, _ = build(strategy='uniform')
  state = start(strategy, images)
  assert jax.tree.leaves(state) == []
  assert strategy.learn(state, lesson(strategy='ahm').rollouts, None, 0.5) == (state, {})


def test_gradients_and_statistics_are_reduced_over_devices(lesson, tiny_agent):
  done = lesson(strategy='ahm')
  reduced = []

  def triple(tree):
    reduced.append(jax.tree.structure(tree))
    return jax.tree.map(lambda x: 3 * x, tree)

  context = strategies.Context(done.masking, tiny_agent(), None, triple)
  tripled, _ = jax.jit(strategies.build(context).learn)(done.state, done.rollouts, None, 0.5)
  assert reduced == [jax.tree.structure(done.state.params), jax.tree.structure(done.state.batch_stats)]
  pairs = ((first_gradient(tripled), first_gradient(done.learnt)), (tripled.batch_stats, done.learnt.batch_stats))
  for left, right in pairs:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 3 * b, rtol=1e-4, atol=1e-6), left, right)
