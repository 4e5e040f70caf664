import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.masking import actor_critic, registry, strategy
from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.strategy import Context


def test_the_teacher_of_learning_progress_is_a_moving_average_of_the_u_net(lesson, monkeypatch):
  done = lesson(strategy='ahm', reward='progress')
  variables = {'params': jnp.float32(1.5), 'batch_stats': jnp.float32(3.0)}
  monkeypatch.setattr(strategy, 'EMA_DECAY', (0.5, 0.9))
  # A tenth of the way is 0.4 of the first quarter: decay 0.5 + 0.4 * 0.4 = 0.66. From a quarter on
  # it is 0.9.
  learn = jax.jit(lambda *arguments: done.strategy.learn(*arguments))
  state = done.state._replace(teacher=done.state.teacher._replace(moves=jnp.int32(100)))
  (early, _), (late, _) = (
    learn(state, done.rollouts, variables, progress) for progress in (0.1, 0.7)
  )
  assert early.teacher.value['params'] == pytest.approx(0.66 * 0.3 + 0.34 * 1.5)
  assert late.teacher.value['params'] == pytest.approx(0.9 * 0.3 + 0.1 * 1.5)
  assert late.teacher.value['batch_stats'] == pytest.approx(0.9 * 0.1 + 0.1 * 3)
  first, _ = learn(done.state, done.rollouts, variables, 0.7)
  assert first.teacher.value['params'] == pytest.approx(0.1 * 0.3 + 0.9 * 1.5)


def test_only_learning_progress_keeps_a_teacher(lesson):
  assert not hasattr(lesson(strategy='ahm').learnt, 'teacher')


@pytest.mark.parametrize('fields', [{}, {'rounds': 2}])
def test_every_agent_parameter_receives_a_gradient(lesson, fields, leaves, first_gradient):
  """The agent of the paper's public reproduction received none: its losses were formed from
  detached arrays.
  """
  done = lesson(strategy='ahm', **fields)
  before, after = leaves(done.state.params), leaves(done.learnt.params)
  for name, gradient in leaves(first_gradient(done.learnt)).items():
    assert np.linalg.norm(gradient) > 1e-4, name
    assert np.all(after[name] != before[name]), name
  assert set(done.metrics) == {'policy_loss', 'value_loss', 'entropy'}
  statistics = leaves(done.learnt.batch_stats)
  assert all(
    np.any(statistics[name] != value) for name, value in leaves(done.state.batch_stats).items()
  )


def expected_rewards(rollouts, masking, teacher, unet):
  """Of each round of each worker, [K, T, b, g, g], by NumPy but for the form 'rank'."""
  losses, hidden = (np.float64(x) for x in (rollouts.losses, rollouts.hidden))
  images, seen = np.float64(rollouts.observations[:, :1]), np.float64(rollouts.observations)
  masked = (seen + 0.25) * (1 - np.repeat(np.repeat(hidden, 4, -2), 4, -1)[..., None])

  def in_inference(unet):  # As conftest.py has it.
    restored = float(unet['params']) * np.roll(masked, 3, axis=-2) + float(unet['batch_stats'])
    return ((restored - images) ** 2).mean(-1).reshape(*hidden.shape[:-1], 4, 4, 4).mean((-3, -1))

  paid = np.zeros_like(losses)
  for place in np.ndindex(losses.shape[: 3 if masking.reward_within == 'image' else 2]):
    chosen = hidden[place] == 1
    if masking.reward == 'rank':
      paid[place] = actor_critic.rank_rewards(rollouts.losses[place], rollouts.hidden[place])
      continue
    scores = np.log(losses[place] + 1e-6)
    if masking.reward == 'progress':
      scores = np.log(in_inference(teacher)[place] + 1e-6) - np.log(
        in_inference(unet)[place] + 1e-6
      )
    paid[place] = np.where(chosen, (scores - scores[chosen].mean()) / scores[chosen].std(), 0)
  return paid if masking.polarity == 'hard' else -paid


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('ahm', {}),
    ('ahm', {'rounds': 2}),
    ('reinforce', {'rounds': 2, 'gamma': 0.5}),
    ('ahm', {'reward': 'progress', 'rounds': 2}),
    ('ahm', {'reward_within': 'image', 'rounds': 2}),
    ('ahm', {'reward_within': 'image', 'reward': 'rank'}),
    (
      'ahm',
      {
        'reward': 'rank',
        'polarity': 'easy',
        'budget': 'tile',
        'warmup_by': 'share',
      },
    ),
  ],
)
def test_the_gradient_is_that_of_the_objective(
  lesson, tiny_agent, unet, first_unet, name, fields, leaves, first_gradient
):
  """Against the objective written out over all images at once: synchronised batch norm makes K
  workers one batch.
  """
  _, masking, state, rollouts, learnt, metrics = lesson(strategy=name, **fields)
  agent, shape = tiny_agent(), rollouts.hidden.shape

  def apply(params, observations):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    folded = observations.reshape(-1, *observations.shape[-3:])
    maps, _ = agent.apply(variables, folded, train=True, mutable=['batch_stats'])
    return [x.reshape(*observations.shape[:-3], 4, 4) for x in maps]

  def apply_by_round(params, observations):
    return [
      jnp.stack(maps, 1)
      for maps in zip(*(apply(params, x) for x in observations.swapaxes(0, 1)), strict=True)
    ]

  critic = float(name == 'ahm')
  returns, rewards = np.zeros(shape), expected_rewards(rollouts, masking, first_unet, unet)
  following = 0.0
  for t in reversed(range(masking.rounds)):
    following = returns[:, t] = rewards[:, t] + masking.gamma * following

  def objective(params):
    raw, values = apply_by_round(params, rollouts.observations)
    logits = policy_logits(raw, 0.5, masking)
    p = jax.nn.sigmoid(logits)
    log_pi = jnp.log(jnp.where(rollouts.hidden == 1, p, 1 - p))
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


def test_the_workers_of_a_step_equal_one_worker_with_all_their_images(
  lesson, unet, monkeypatch, first_gradient
):
  """Mean gradient and batch statistics, where rewards are a function of the patch.

  Ours are whitened per worker.
  """
  monkeypatch.setattr(actor_critic, 'log_rewards', lambda losses, hidden: hidden * losses)
  lesson.cache_clear()
  done = lesson(strategy='ahm')
  lesson.cache_clear()
  # [K, 1, b, ...] to [1, 1, K b, ...]
  by_one = jax.tree.map(lambda x: x[:, 0].reshape(1, 1, 6, *x.shape[3:]), done.rollouts)
  learnt, metrics = jax.jit(done.strategy.learn)(done.state, by_one, unet, 0.5)
  for of_one, of_two in (
    (first_gradient(learnt), first_gradient(done.learnt)),
    (learnt.batch_stats, done.learnt.batch_stats),
    (metrics, done.metrics),
  ):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), of_one, of_two)


@pytest.mark.parametrize('fields', [{}, {'rounds': 2}])
def test_the_agent_learns_about_the_policy_it_acted_by(lesson, fields):
  """Batch norm must see in learning the batches that it saw in acting, or log pi(a) is that of
  another policy.
  """
  done = lesson(strategy='ahm', **fields)
  p = np.float64(done.rollouts.probability)
  entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
  assert done.metrics['entropy'] == pytest.approx(entropy, abs=1e-6)


def test_reinforce_leaves_the_value_head_alone(lesson, leaves):
  done = lesson(strategy='reinforce', rounds=2, gamma=0.5)
  state, learnt = done.state, done.learnt
  before, after = leaves(state.params), leaves(learnt.params)
  untouched = {name for name in before if np.array_equal(before[name], after[name])}
  # The value map, and the block that only it reads.
  assert untouched == {name for name in before if "'value'" in name or "_2'" in name}


def test_an_untrained_agent_never_changes(build, lesson, start):
  untrained, _ = build(strategy='untrained')
  state = start(untrained)
  learnt, metrics = untrained.learn(state, lesson(strategy='ahm').rollouts, None, 0.5)
  assert metrics == {}
  jax.tree.map(np.testing.assert_array_equal, learnt, state)


def test_gradients_and_statistics_are_reduced_over_devices(lesson, tiny_agent, first_gradient):
  done = lesson(strategy='ahm')
  reduced = []

  def triple(tree):
    reduced.append(jax.tree.structure(tree))
    return jax.tree.map(lambda x: 3 * x, tree)

  context = Context(done.masking, tiny_agent(), None, triple)
  tripled, _ = jax.jit(registry.build(context).learn)(done.state, done.rollouts, None, 0.5)
  assert reduced == [
    jax.tree.structure(done.state.params),
    jax.tree.structure(done.state.batch_stats),
  ]
  pairs = (
    (first_gradient(tripled), first_gradient(done.learnt)),
    (tripled.batch_stats, done.learnt.batch_stats),
  )
  for left, right in pairs:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, 3 * b, rtol=1e-4, atol=1e-6), left, right
    )
