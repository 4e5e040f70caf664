import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, log_softmax

from ahm_jax.masking import strategy as strategies
from ahm_jax.masking.baselines import ranking_loss, sampling_loss
from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.rollout import Rollout
from ahm_jax.runtime.averages import Average


def test_anatomask_masks_what_its_teacher_reconstructs_worst(build, unet):
  """The teacher of conftest.py rolls the image: constant stripes of three colours, of which one
  is reconstructed worst by far.
  """
  strategy, _ = build(strategy='anatomask', mask_ratio=0.5)
  columns = jnp.repeat(jnp.array([0.1, 5.0, 0.1, 0.1]), 4)
  images = jnp.broadcast_to(columns[None, None, :, None], (300, 16, 16, 1))
  state = strategy.init(jax.random.key(0), images[:1], unet)
  done = strategy.propose(state, images, jax.random.key(1), 1.0, True)
  # Bright patches that the teacher was not given, in the mean half of four, are the hardest; half
  # of the 8 masked are hard.
  bright = np.asarray(done.probability == 1)[:, :, 1].sum(-1)
  assert np.mean(bright) == pytest.approx(2, abs=0.25)
  assert np.all(np.asarray(done.probability == 1).sum((-2, -1)) == 4)
  early = strategy.propose(state, images, jax.random.key(1), 0.0, True)
  np.testing.assert_allclose(early.probability, np.full((300, 4, 4), 0.5), atol=1e-6)


def test_the_patches_that_anatomask_takes_for_hard_were_masked_for_its_teacher(build, unet, images):
  """Reconstructed from a mask of its own: 500 draws of one image, whose hardest visible patch would
  win otherwise.
  """
  strategy, _ = build(strategy='anatomask', mask_ratio=0.25, hard_share=1.0)
  image = images[0, :1]
  state = strategy.init(jax.random.key(0), image, unet)
  probability = jax.vmap(lambda key: strategy.propose(state, image, key, 1.0, True).probability)(
    jax.random.split(jax.random.key(0), 500)
  )
  hard = np.asarray(probability[:, 0] == 1)
  assert np.all(hard.sum((-2, -1)) == 4)
  # A patch is masked for the teacher a quarter of the times; ties take the rest.
  assert hard.mean(0).max() < 0.6


def test_anatomask_s_teacher_is_a_moving_average_of_the_u_net(build, monkeypatch):
  monkeypatch.setattr(strategies, 'EMA_DECAY', (0.5, 0.9))
  strategy, _ = build(strategy='anatomask')
  state = Average({'params': jnp.float32(0.5), 'batch_stats': jnp.float32(0.0)}, jnp.int32(100))
  later = {'params': jnp.float32(1.5), 'batch_stats': jnp.float32(1.0)}
  learnt, metrics = strategy.learn(state, None, later, 1.0)
  assert metrics == {}
  assert learnt.value['params'] == pytest.approx(0.9 * 0.5 + 0.1 * 1.5)
  assert learnt.value['batch_stats'] == pytest.approx(0.1)


def pairwise_by_hand(predicted, losses, hidden):
  terms = [
    -log_expit(predicted[i][p] - predicted[i][q])
    for i in range(len(losses))
    for p, q in itertools.permutations(np.ndindex(losses[i].shape), 2)
    if hidden[i][p] and hidden[i][q] and losses[i][p] > losses[i][q]
  ]
  return np.mean(terms)


def test_ranking_loss_by_hand():
  generator = np.random.default_rng(0)
  predicted, losses = generator.normal(size=(2, 2, 3, 3))
  losses[0, 0, 0] = losses[0, 1, 1]  # A tie is no pair.
  hidden = generator.integers(0, 2, (2, 3, 3))
  arguments = (jnp.asarray(x, jnp.float32) for x in (predicted, losses, hidden))
  assert ranking_loss(*arguments) == pytest.approx(
    pairwise_by_hand(predicted, losses, hidden), rel=1e-5
  )
  assert ranking_loss(jnp.ones((1, 2, 2)), jnp.ones((1, 2, 2)), jnp.ones((1, 2, 2))) == 0


def test_sampling_loss_by_hand():
  generator = np.random.default_rng(0)
  logits, losses = generator.normal(size=(2, 2, 3, 3))
  hidden = generator.integers(0, 2, (2, 3, 3))
  log_probability = log_softmax(logits.reshape(2, -1), -1).reshape(2, 3, 3)
  expected = -np.mean((log_probability * losses)[hidden == 1])
  arguments = (jnp.asarray(x, jnp.float32) for x in (logits, losses, hidden))
  assert sampling_loss(*arguments) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(('name', 'loss_of'), [('hpm', ranking_loss), ('adamae', sampling_loss)])
@pytest.mark.parametrize('rounds', [1, 2])
def test_the_gradient_is_that_of_the_loss_over_all_workers(
  lesson, tiny_agent, leaves, name, loss_of, rounds, first_gradient
):
  done = lesson(strategy=name, rounds=rounds)

  def objective(params):
    total = 0
    for t, k in np.ndindex(rounds, 2):
      seen = done.rollouts.observations[:, t].reshape(6, 16, 16, 2)
      variables = {'params': params, 'batch_stats': done.state.batch_stats}
      (logits, _), _ = tiny_agent().apply(variables, seen, train=True, mutable=['batch_stats'])
      total += loss_of(
        logits.reshape(2, 3, 4, 4)[k], done.rollouts.losses[k, t], done.rollouts.hidden[k, t]
      )
    return total / (2 * rounds)

  loss, gradients = jax.jit(jax.value_and_grad(objective))(done.state.params)
  (metric,) = done.metrics.values()
  assert metric == pytest.approx(float(loss), abs=1e-5)
  expected = leaves(gradients)
  for path, gradient in leaves(first_gradient(done.learnt)).items():
    np.testing.assert_allclose(gradient, expected[path], rtol=2e-3, atol=2e-5, err_msg=path)
  before, after = leaves(done.state.params), leaves(done.learnt.params)
  concerned = {path for path in expected if np.any(expected[path])}
  assert concerned
  assert concerned == {path for path in before if np.any(after[path] != before[path])}


def test_hpm_masks_by_its_teacher_which_follows_the_predictor(lesson, images):
  """At its first move, its decay is (1 + 0) / (10 + 0)."""
  done = lesson(strategy='hpm')
  teacher, params = done.learnt.teacher.value['params'], done.learnt.params
  jax.tree.map(
    lambda mean, old, new: np.testing.assert_allclose(mean, 0.1 * old + 0.9 * new, atol=1e-6),
    teacher,
    done.state.params,
    params,
  )
  others = done.state._replace(params=jax.tree.map(lambda x: x + 1, done.state.params))
  one, same = (
    done.strategy.propose(state, images[0], jax.random.key(1), 1.0, True).hidden
    for state in (done.state, others)
  )
  np.testing.assert_array_equal(one, same)


def test_hpm_masks_what_its_teacher_predicts_to_be_hardest(lesson, images, tiny_agent):
  done = lesson(strategy='hpm')
  predicted, _ = tiny_agent().apply(done.state.teacher.value, images[0], train=False)
  p = np.asarray(
    done.strategy.propose(done.state, images[0], jax.random.key(1), 1.0, True).probability
  )
  for i in range(3):  # Half of 0.6 * 16 patches, rounded down.
    np.testing.assert_array_equal(p[i] == 1, predicted[i] >= np.sort(np.ravel(predicted[i]))[-4])


def test_adamae_shows_by_a_softmax_and_learns_to_show_what_is_hard(build, images):
  """One masked patch has all of the loss: its probability of being masked falls."""
  strategy, _ = build(strategy='adamae', learning_rate=0.01)
  state = strategy.init(jax.random.key(0), images[0, :1], None)
  batch = images.reshape(1, 1, 6, 16, 16, 2)
  hidden = jnp.ones((1, 1, 6, 4, 4))
  losses = jnp.zeros_like(hidden).at[..., 1, 2].set(1.0)
  rollouts = Rollout(batch, batch, batch, hidden, hidden, losses)

  def masks(state):
    return (
      strategy.propose(state, images.reshape(6, 16, 16, 2), jax.random.key(0), 1.0, False)
      .probability[:, 1, 2]
      .mean()
    )

  learn = jax.jit(strategy.learn)
  before = masks(state)
  for _ in range(40):
    state, _ = learn(state, rollouts, None, 0.5)
  assert masks(state) < before - 0.05


def reconstruction_loss(observations, hidden):
  """What ADIOS maximises, in NumPy, for the U-Net of conftest.py, which sees all brighter: [T,
  b, H, W, C], [T, b, g, g].
  """
  pixels = hidden.repeat(4, -2).repeat(4, -1)[..., None]
  restored = 0.5 * np.roll((observations + 0.25) * (1 - pixels), 3, axis=3)
  errors = ((restored - observations[:1]) ** 2).mean(-1)
  losses = errors.reshape(*hidden.shape[:2], 4, 4, 4, 4).mean((-3, -1))
  return (hidden * losses).sum()


@pytest.mark.parametrize('fields', [{}, {'polarity': 'easy'}, {'rounds': 2}], ids=str)
def test_adios_ascends_the_loss_through_the_u_net(
  lesson, tiny_agent, leaves, first_gradient, fields
):
  """The derivatives by what is masked are central differences: the loss is a cubic of each, so
  their error is some 1e-6.
  """
  done = lesson(strategy='adios', **fields)
  observations, hidden = (
    np.asarray(x, np.float64) for x in (done.rollouts.observations, done.rollouts.hidden)
  )
  values, slopes = np.zeros(2), np.zeros_like(hidden)
  for k in range(2):
    values[k] = reconstruction_loss(observations[k], hidden[k]) / hidden[k].sum()
    for place in np.ndindex(hidden[k].shape):
      more, less = hidden[k].copy(), hidden[k].copy()
      more[place] += 1e-3
      less[place] -= 1e-3
      slopes[k][place] = (
        (reconstruction_loss(observations[k], more) - reconstruction_loss(observations[k], less))
        / 2e-3
        / hidden[k].sum()
      )
  assert done.metrics['adversarial_loss'] == pytest.approx(values.mean(), rel=1e-5)

  def probabilities(params):
    variables = {'params': params, 'batch_stats': done.state.batch_stats}
    rounds = np.asarray(done.rollouts.observations).swapaxes(0, 1).reshape(-1, 6, 16, 16, 2)
    maps = [
      tiny_agent().apply(variables, seen, train=True, mutable=['batch_stats'])[0][0]
      for seen in rounds
    ]
    return jax.nn.sigmoid(policy_logits(jnp.stack(maps), 0.5, done.masking))

  _, pull_back = jax.vjp(probabilities, done.state.params)
  by_round = slopes.reshape(2, -1, 3, 4, 4).swapaxes(0, 1).reshape(-1, 6, 4, 4) / 2
  (ascent,) = pull_back(jnp.asarray(by_round, jnp.float32))
  sign = -1 if done.masking.polarity == 'hard' else 1
  expected = leaves(jax.tree.map(lambda x: sign * x, ascent))
  for path, gradient in leaves(first_gradient(done.learnt)).items():
    np.testing.assert_allclose(gradient, expected[path], rtol=2e-3, atol=2e-5, err_msg=path)
  assert max(np.abs(expected[path]).max() for path in expected if 'policy' in path) > 1e-3
