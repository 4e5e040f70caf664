"""Losses beside reconstruction: their numbers, and a pre-training with them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ahm_jax.config import DataConfig, PretrainConfig, RecipeConfig
from ahm_jax.data.batches import Source, source
from ahm_jax.errors import UserError
from ahm_jax.masking import actor_critic
from ahm_jax.masking.networks import Joined, Networks, strategy_state
from ahm_jax.masking.rollout import Rollout
from ahm_jax.models.unet import UNet
from ahm_jax.pipeline import stages
from ahm_jax.training import features, pretrain
from ahm_jax.training.features import FeatureLosses, Targets
from ahm_jax.training.loop import fit
from ahm_jax.training.optimizers import optimizer

STEPS = 40
WIDTHS = {'encoder2': 8, 'decoder1': 4}  # Of the U-Net's two resolutions.


def weighted(config, **weights):
  return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, **weights))


def build(config, split):
  return pretrain.build(config, split, STEPS, 1)


# Numbers, in float64 by hand.


def cosines(one, other):
  lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
  return (one * other).sum(-1) / lengths


def head(params, x):
  """A head written down again."""
  params = jax.tree.map(np.float64, params)
  hidden = np.maximum(x @ params['hidden']['kernel'] + params['hidden_bias'], 0)
  return hidden @ params['output']['kernel'] + params['output_bias']


@pytest.fixture(scope='module')
def made_up():
  """Losses of fresh heads: two workers, two rounds, three images, on a grid of 4 x 4."""
  generator = np.random.default_rng(0)
  recipe = PretrainConfig(features=0.5, contrast=0.25)
  losses = FeatureLosses(UNet(width=4), recipe, optimizer(recipe, STEPS, 1))
  state = losses.init(jax.random.key(0), {'params': {'weight': np.ones(3)}})
  heads = jax.tree.map(  # Biases that count, too.
    lambda x: x + generator.normal(0, 0.3, x.shape).astype(np.float32), state.heads
  )

  def draw(*lead):
    sides = {'encoder2': 2, 'decoder1': 16}  # One coarser than the patches, one finer.
    return {
      block: generator.random((*lead, side, side, WIDTHS[block]), np.float32)
      for block, side in sides.items()
    }

  others = generator.random((12, 8), np.float32)  # Six of them of another device.
  own = np.array([[6, 7, 8], [9, 10, 11]])
  targets = Targets(draw(2, 3), others, own)
  hidden = (generator.random((2, 2, 3, 4, 4)) < 0.6).astype(np.float32)
  rollouts = Rollout(*[None] * 3, hidden, None, None, draw(2, 2, 3))
  return losses, heads, targets, rollouts, jax.jit(losses.terms)(heads, targets, rollouts)


def test_features_are_predicted_in_hidden_patches(made_up):
  _, heads, targets, rollouts, terms = made_up
  maps = []
  for block, truth in targets.features.items():
    said = head(heads[f'predict_{block}'], rollouts.features[block])
    truth = truth - truth.mean(-1, keepdims=True)  # Its scale is nothing to a cosine.
    maps.append(1 - cosines(said, truth[:, None]))
  coarse, fine = maps
  patches = coarse.repeat(2, -1).repeat(2, -2)
  patches = (patches + fine.reshape(2, 2, 3, 4, 4, 4, 4).mean((-3, -1))) / 2
  np.testing.assert_allclose(terms.patches, patches, atol=1e-4)
  counted = (patches * rollouts.hidden).sum((1, 2, 3, 4)) / rollouts.hidden.sum((1, 2, 3, 4))
  assert terms.metrics['feature_loss'] == pytest.approx(counted.mean(), abs=1e-4)


def test_images_and_patches_are_told_from_others(made_up):
  _, heads, targets, rollouts, terms = made_up

  def pooled(x):
    return x.reshape(*x.shape[:-3], 4, 4, 4, 4, 4).mean((-4, -2)).reshape(*x.shape[:-3], 16, 4)

  def loss(said, others, own):
    logits = cosines(said[None], others) / 0.1
    return special.logsumexp(logits) - logits[own]

  seen = head(heads['project_images'], rollouts.features['encoder2'].mean((-3, -2)))
  known = head(heads['project_images'], targets.images)
  patches = head(heads['project_patches'], pooled(rollouts.features['decoder1']))
  truth = head(heads['project_patches'], pooled(targets.features['decoder1']))
  images, local = [], []
  for k, t, b in np.ndindex(2, 2, 3):
    images.append(loss(seen[k, t, b], known, targets.own[k, b]))
    local += [loss(patches[k, t, b, i], truth[k, b], i) for i in range(16)]
  expected = np.mean(images) + np.mean(local)
  assert terms.metrics['contrast_loss'] == pytest.approx(expected, rel=1e-4)
  feature_loss = float(terms.metrics['feature_loss'])
  assert terms.total == pytest.approx(0.5 * feature_loss + 0.25 * expected, rel=1e-4)


def test_info_nce_by_hand_and_as_pytorch_s_cross_entropy():
  said = jnp.array([[2.0, 0], [0, 1]])
  found = features.info_nce(said, jnp.array([[1.0, 0], [0, 3]]), jnp.array([0, 0]))
  np.testing.assert_allclose(found, [np.log1p(np.exp(-10)), 10 + np.log1p(np.exp(-10))], atol=2e-6)
  torch = pytest.importorskip('torch')
  generator = np.random.default_rng(1)
  said, others = (generator.normal(size=(n, 5)).astype(np.float32) for n in (4, 7))
  own = np.array([6, 0, 2, 2])
  normal = [torch.nn.functional.normalize(torch.tensor(x)) for x in (said, others)]
  expected = torch.nn.functional.cross_entropy(
    normal[0] @ normal[1].T / 0.1, torch.tensor(own), reduction='none'
  )
  np.testing.assert_allclose(features.info_nce(said, others, own), expected, rtol=1e-4)


def test_vectors_of_nothing_have_a_gradient_that_is_finite():
  """As of positions where no unit is active."""
  nothing = jnp.zeros((2, 4))
  gradient = jax.grad(lambda x: (features.unit(x) * 3).sum())(nothing)
  assert np.isfinite(gradient).all()
  np.testing.assert_allclose(features.unit(jnp.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize('within', ['worker', 'image'])
@pytest.mark.parametrize('polarity', ['hard', 'easy'])
def test_the_reward_is_the_sum_of_whitened_log_losses(make_config, split, within, polarity):
  """With the weights of the objective, and then whitened as that of one term is."""
  config = weighted(
    make_config(strategy='ahm', reward_within=within, polarity=polarity), pixels=2.0, features=0.5
  )
  step = build(config, split).step
  generator = np.random.default_rng(2)
  shape = 2, 3, 4, 4, 4  # Workers, rounds, images, patches.
  pixel, feature = (np.exp(generator.normal(-3, 1, shape)).astype(np.float32) for _ in range(2))
  hidden = (generator.random(shape) < 0.6).astype(np.float32)
  rollouts = Rollout(*[None] * 3, hidden, None, pixel)
  losses = step._patch_losses(rollouts, feature)
  axes = (-2, -1) if within == 'image' else (-3, -2, -1)

  def whitened(x):
    mean = (x * hidden).sum(axes, keepdims=True) / hidden.sum(axes, keepdims=True)
    square = ((x - mean) ** 2 * hidden).sum(axes, keepdims=True) / hidden.sum(axes, keepdims=True)
    return (x - mean) / np.sqrt(square) * hidden

  total = 2 * whitened(np.log(pixel)) + 0.5 * whitened(np.log(feature))
  reward = jax.vmap(jax.vmap(actor_critic.log_rewards))
  if within == 'image':
    reward = jax.vmap(reward)
  np.testing.assert_allclose(reward(losses, hidden), whitened(total), atol=2e-3)
  # Of one term, the losses themselves.
  assert step._patch_losses(rollouts, None) is pixel
  alone = dataclasses.replace(step, pixels=0.0)
  assert alone._patch_losses(rollouts, feature) is feature


# A pre-training.


@pytest.fixture(scope='module')
def joined(make_config, split, start, drive):
  """All terms under ahm: the task, its state at the start, after a step and after two, the metrics
  of 40 steps, and how often the losses were traced.
  """
  traced = []
  terms = FeatureLosses.terms

  def counting(self, *arguments):
    traced.append(None)
    return terms(self, *arguments)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(FeatureLosses, 'terms', counting)
    config = weighted(make_config(strategy='ahm', workers=4), features=1.0, contrast=0.5)
    task = build(config, split)
    states = [start(task)]
    for _ in range(2):
      states.append(drive(task, states[-1], split)[0])
    last, history = drive(task, states[0], split, steps=STEPS)
  return task, states, last, history, len(traced)


def test_every_loss_falls_and_nothing_is_traced_again(joined):
  *_, history, traced = joined
  for name in ('pixel_loss', 'feature_loss', 'contrast_loss'):
    losses = [metrics[name] for metrics in history]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5]), name
  for metrics in history:
    total = metrics['pixel_loss'] + metrics['feature_loss'] + 0.5 * metrics['contrast_loss']
    assert metrics['loss'] == pytest.approx(total, rel=1e-4)
  assert {'policy_loss', 'value_loss', 'entropy'} < set(history[0])
  assert traced == 1


def test_the_teacher_is_the_average_of_the_unet(joined):
  """With decays of 1/10 and 2/11 in its first two steps."""
  _, states, *_ = joined
  for moves, (before, after) in enumerate(itertools.pairwise(states)):
    decay = (1 + moves) / (10 + moves)
    assert after.extra.others.teacher.moves == moves + 1
    for name in ('params', 'batch_stats'):
      jax.tree.map(
        lambda old, new, found, d=decay: np.testing.assert_allclose(
          found, d * old + (1 - d) * new, atol=1e-6
        ),
        before.extra.others.teacher.value[name],
        getattr(after, name),
        after.extra.others.teacher.value[name],
      )


def test_every_head_learns(joined):
  _, (first, after, _), *_ = joined
  heads = first.extra.others.heads
  assert set(heads) == {
    'predict_encoder2',
    'predict_decoder1',
    'project_images',
    'project_patches',
  }
  for name in heads:
    assert all(x.any() for x in jax.tree.leaves(after.extra.others.opt_state[0].mu[name])), name


def test_four_devices_equal_one(joined, split, drive, assert_close):
  """And so images are told from those of all devices. Rounding may switch a unit of a head on or
  off.
  """
  task, (first, after, _), _, history, _ = joined
  four, (metrics,) = drive(task, first, split, devices=4)
  assert_close(metrics, history[0])

  def assert_near(one, other):
    assert np.abs(one - other).max(initial=0) <= 1e-3 * max(np.abs(other).max(initial=0), 1e-3)

  def compared(state):
    own = state.extra.others
    return state.opt_state[0].mu, own.opt_state[0].mu, state.batch_stats, own.teacher.moves

  jax.tree.map(assert_near, compared(four), compared(after))


def test_what_looks_at_the_strategy_finds_it(joined):
  task, (first, *_), last, *_ = joined
  assert isinstance(last.extra, Joined)
  assert strategy_state(last) is last.extra.strategy
  maps = task.snapshot(last)['policy']
  assert maps.shape == (pretrain.SNAPSHOT_IMAGES, 4, 4)
  plain = last._replace(extra=last.extra.strategy)
  np.testing.assert_array_equal(maps, task.snapshot(plain)['policy'])
  assert task.evaluate(last) == task.evaluate(plain)
  assert task.evaluate(last)['score'] > task.evaluate(first)['score']


class Interrupted(Source):
  """Fails to give the third batch."""

  def inputs(self, begin, stop):
    for number, inputs in enumerate(super().inputs(begin, stop), begin):
      if number == 3:
        raise InterruptedError
      yield inputs


def test_it_resumes_bit_for_bit(joined, split, tmp_path):
  task = joined[0]._replace(evaluate=lambda _: {'score': 0.0}, snapshot=None)
  recipe = RecipeConfig(steps=4, batch_size=len(split), log_every=1, eval_every=2)

  def run(workdir, kind=Source):
    item = source(split, DataConfig(resident_share=0), np.arange(len(split)), len(split), 0)
    given = kind.__new__(kind)
    vars(given).update(vars(item))
    return fit(task, given, recipe, workdir, 0, 4)

  with pytest.raises(InterruptedError):
    run(tmp_path / 'killed', Interrupted)
  one, other = run(tmp_path / 'killed'), run(tmp_path / 'whole')
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


@dataclasses.dataclass(frozen=True)
class Watched(Networks):
  """The networks, with the rollouts among the metrics."""

  @functools.cached_property
  def strategy(self):
    def learn(state, rollouts, variables, progress):
      del variables, progress
      return state, {'masked': rollouts.masked, 'hidden': rollouts.hidden}

    return Networks(self.unet, self.agent, self.masking).strategy._replace(learn=learn)


def test_the_step_s_gradient_is_that_of_the_losses_written_out(
  make_config, split, start, drive, assert_close
):
  """Two workers, two rounds, a teacher of its own, and no reconstruction."""
  config = weighted(make_config(workers=2, rounds=2), pixels=0.0, features=0.5, contrast=0.25)
  task = build(config, split)
  nets = Watched(*(getattr(task.step.nets, name) for name in ('unet', 'agent', 'masking')))
  task = task._replace(step=dataclasses.replace(task.step, nets=nets))
  first, other = start(task), jax.tree.map(np.asarray, task.init(jax.random.key(1)))
  teacher = first.extra.others.teacher._replace(
    value={'params': other.params, 'batch_stats': other.batch_stats}
  )
  others = first.extra.others._replace(teacher=teacher)
  first = first._replace(extra=Joined((), others))
  last, (metrics,) = drive(task, first, split)
  unet = nets.unet.clone(axis_name=None)
  truth = (split.images / np.float32(255) - 0.5) / 0.25
  losses = dataclasses.replace(task.step.others, unet=unet)

  def loss(params, heads):
    stats, seen = first.batch_stats, []
    for turn in range(2):
      variables = {'params': params, 'batch_stats': stats}
      masked = metrics['masked'][:, turn].reshape(truth.shape)
      (_, found), updates = unet.apply(
        variables, masked, train=True, blocks=tuple(WIDTHS), mutable=['batch_stats']
      )
      stats = updates['batch_stats']
      seen.append(jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), found))
    stacked = jax.tree.map(lambda *x: jnp.stack(x, 1), *seen)
    _, known = unet.apply(teacher.value, truth, train=False, blocks=tuple(WIDTHS))
    targets = Targets(
      jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), known),
      known['encoder2'].mean((1, 2)),
      np.arange(8).reshape(2, 4),
    )
    rollouts = Rollout(*[None] * 3, metrics['hidden'], None, None, stacked)
    return losses.terms(heads, targets, rollouts).total

  arguments = first.params, others.heads
  value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*arguments)
  assert_close(metrics['loss'], value)
  found = last.opt_state[0].mu, last.extra.others.opt_state[0].mu
  assert_close(found, jax.tree.map(lambda x: 0.1 * x, gradients))
  assert not found[0]['head']['kernel'].any()
  assert found[0]['encoder1']['first']['convolution']['kernel'].any()


def test_without_them_nothing_is_as_it_was_not(make_config, split, start):
  step = build(make_config(strategy='ahm'), split).step
  assert step.others is None and step.pixels == 1
  state = start(build(make_config(strategy='ahm'), split))
  assert strategy_state(state) is state.extra and not isinstance(state.extra, Joined)
  weighed = build(weighted(make_config(strategy='ahm'), features=1.0), split)
  other = start(weighed)
  jax.tree.map(np.testing.assert_array_equal, state, other._replace(extra=strategy_state(other)))


def test_no_strategy_learns_from_a_contrast_alone(make_config, tmp_path):
  config = weighted(make_config(strategy='hpm'), pixels=0.0, contrast=1.0)
  with pytest.raises(UserError, match='strategy is hpm, which learns from the loss of single patc'):
    stages.pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  pretrain.check_reward(weighted(make_config(), pixels=0.0, contrast=1.0))
  pretrain.check_reward(weighted(make_config(strategy='hpm'), pixels=0.0, features=1.0))
