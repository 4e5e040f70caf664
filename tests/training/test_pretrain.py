import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import AugmentConfig
from ahm_jax.data.augment import normalise
from ahm_jax.data.readers.intensity import MISSING
from ahm_jax.errors import UserError
from ahm_jax.masking.networks import Networks, networks
from ahm_jax.masking.rollout import Rollout
from ahm_jax.models.agent import NEAR_ZERO
from ahm_jax.pipeline import stages
from ahm_jax.runtime import parallel
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch
from ahm_jax.training import pretrain, pretrain_step

PATCH, STEPS = 4, 40


def build(config, split):
  return pretrain.build(config, split, STEPS, 1)


def moments(state):
  """Adam's first moments: after one step, a tenth of the gradient.

  The U-Net's, and the agent's if there is one.
  """
  return state.opt_state[0].mu, state.extra.opt_state[0].mu if hasattr(
    state.extra, 'opt_state'
  ) else None


@pytest.fixture(scope='module')
def ahm(make_config, split, start, drive):
  """One step under ahm, on one device: the task, its state before and after, and the metrics."""
  task = build(make_config(augment=True, strategy='ahm', workers=4), split)
  first = start(task)
  return task, first, *drive(task, first, split)


def assert_devices_agree(one, four, assert_close):
  """Adam divides gradients by their size.

  Those that are nothing but rounding may send a parameter either way.
  """
  (state, history), (other, other_history) = one, four
  assert_close(history, other_history)
  assert_close(moments(state), moments(other))
  assert_close((state.batch_stats, state.step), (other.batch_stats, other.step))
  gradients, _ = moments(state)

  def compare(a, b, gradient):
    clear = np.abs(gradient) > 1e-7
    np.testing.assert_allclose(a[clear], b[clear], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(a, b, atol=6.1e-3)

  jax.tree.map(compare, state.params, other.params, gradients)


def test_four_devices_equal_one_under_ahm(ahm, split, drive, assert_close):
  task, first, *one = ahm
  four = drive(task, first, split, devices=4)
  assert_devices_agree(one, four, assert_close)
  assert_close(one[0].extra.batch_stats, four[0].extra.batch_stats)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    one[0].extra.params,
    four[0].extra.params,
  )


@pytest.mark.parametrize(
  'masking',
  [
    {'strategy': 'anatomask'},
    {'strategy': 'hpm'},
    {'strategy': 'adamae'},
    {'strategy': 'adios'},
    {'strategy': 'ahm', 'reward': 'progress'},
  ],
  ids=lambda masking: '-'.join(masking.values()),
)
def test_four_devices_equal_one_under_baselines_and_teachers_follow(
  make_config, split, start, drive, masking
):
  """To 1e-4 of the largest element of an array: the same patches are masked, and what is left is
  rounding.
  """

  def assert_near(one, other):
    assert np.abs(one - other).max(initial=0) <= 1e-4 * max(np.abs(other).max(initial=0), 1e-3)

  task = build(make_config(workers=4, warmup=1.0, **masking), split)
  first = start(task)._replace(step=np.int32(STEPS // 2))  # Half of the mask warm-up.
  (one, history), (four, other_history) = (
    drive(task, first, split, devices=devices) for devices in (1, 4)
  )
  jax.tree.map(assert_near, history, other_history)
  jax.tree.map(assert_near, (moments(one), one.batch_stats), (moments(four), four.batch_stats))
  if masking['strategy'] == 'anatomask':
    for last in (
      one,
      four,
    ):  # Each against its own step: Adam may take a gradient that is but rounding either way.
      for name in ('params', 'batch_stats'):
        expected = jax.tree.map(
          lambda new, old: 0.9 * new + 0.1 * old, getattr(last, name), getattr(first, name)
        )
        jax.tree.map(
          lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), last.extra.value[name], expected
        )


def test_a_step_is_the_same_where_the_unet_recomputes(pretrained, split, drive, assert_close):
  model = dataclasses.replace(pretrained.config.model, recompute=True)
  recomputing = build(dataclasses.replace(pretrained.config, model=model), split)
  assert recomputing.step != pretrained.task.step
  (one, history), (other, other_history) = (
    drive(task, pretrained.first, split) for task in (pretrained.task, recomputing)
  )
  assert_close(history, other_history)
  assert_close((moments(one), one.batch_stats), (moments(other), other.batch_stats))


def test_a_seed_decides_the_masks(pretrained, split, drive):
  def ratio(seed):
    _, (metrics,) = drive(pretrained.task, pretrained.first, split, seed=seed)
    return metrics['mask_ratio']

  assert ratio(0) == ratio(0)
  assert len({float(ratio(seed)) for seed in range(4)}) >= 3


def test_the_loss_falls(pretrained):
  losses = [metrics['loss'] for metrics in pretrained.history]
  assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
  assert int(pretrained.last.step) == STEPS


def test_every_parameter_of_unet_and_agent_has_a_gradient(ahm):
  _, _, last, _ = ahm
  gradients = moments(last)
  assert gradients[1]
  silent = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    if not leaf.any()
  ]
  assert not silent


def test_the_agent_learns_under_ahm(ahm):
  _, first, last, (metrics,) = ahm
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal((a != b).any(), True),
    first.extra.params,
    last.extra.params,
  )
  assert abs(metrics['mask_ratio'] - 0.6) < 0.15
  assert {'policy_loss', 'value_loss', 'entropy'} < set(metrics)


def test_untrained_keeps_its_agent_and_one_worker_masks_all_images(
  make_config, split, start, drive
):
  task = build(make_config(strategy='untrained', workers=1, mask_ratio=0.75), split)
  first = start(task)
  last, history = drive(task, first, split, steps=3)
  jax.tree.map(np.testing.assert_array_equal, first.extra, last.extra)
  kernel = first.extra.params['policy']['output']['kernel']
  # As tests/models/test_agent.py says; few weights vary a lot.
  assert np.var(kernel) * kernel.size > 100 * NEAR_ZERO
  # Or it would be uniform masks by another name.
  assert min(metrics['policy_spread'] for metrics in history) > 0.01
  assert np.mean([metrics['mask_ratio'] for metrics in history]) == pytest.approx(0.75, abs=0.07)
  assert not np.array_equal(first.params['head']['kernel'], last.params['head']['kernel'])


@dataclasses.dataclass(frozen=True)
class Watched(Networks):
  """The networks, with what the strategy learns from among its metrics."""

  @functools.cached_property
  def strategy(self):
    strategy = Networks(self.unet, self.agent, self.masking).strategy

    def learn(state, rollouts, variables, progress):
      state, metrics = strategy.learn(state, rollouts, variables, progress)
      return state, {**metrics, **rollouts._asdict()}

    return strategy._replace(learn=learn)


def watch(config, split, start, drive):
  """One step: the networks, the state before and after, and the metrics with the rollouts."""
  task, nets = build(config, split), networks(config)
  watching = Watched(nets.unet, nets.agent, nets.masking)
  task = task._replace(step=dataclasses.replace(task.step, nets=watching))
  first = start(task)
  last, (metrics,) = drive(task, first, split)
  return nets, first, last, metrics


@pytest.fixture(scope='module')
def watched(make_config, split, start, drive):
  """Two workers and two rounds."""
  return watch(make_config(strategy='ahm', workers=2, rounds=2), split, start, drive)


def test_steps_are_equal_where_their_configs_are(make_config, split):
  """And so share a compiled program, whatever the seed and what is logged."""
  config = make_config(strategy='ahm')
  step = build(config, split).step
  assert step == build(dataclasses.replace(config, seed=1), split).step
  assert hash(step) == hash(build(dataclasses.replace(config, seed=1), split).step)
  for other in (
    make_config(strategy='ahm', mask_ratio=0.5),
    make_config(strategy='ahm', learning_rate=1e-3),
    dataclasses.replace(config, model=dataclasses.replace(config.model, unet_width=8)),
  ):
    assert step != build(other, split).step


def test_the_unet_restores_the_colours_that_it_does_not_see(
  make_config, split, start, drive, assert_close
):
  config = make_config(strategy='uniform', workers=2, restore_colour=True)
  colours = AugmentConfig(flip=False, scale=0, brightness=0.3, contrast=0.3, hue=0.1)
  config = dataclasses.replace(
    config, pretrain=dataclasses.replace(config.pretrain, augment=colours)
  )
  nets, first, _, metrics = watch(config, split, start, drive)
  truth = ((split.images / np.float32(255)) - 0.5) / 0.25
  assert_close(metrics['observations'].reshape(truth.shape), truth)
  pixels = metrics['hidden'].reshape(-1, 4, 4).repeat(PATCH, -1).repeat(PATCH, -2)[..., None]
  masked = metrics['masked'].reshape(truth.shape)
  assert not (masked * pixels).any()
  shift = np.abs((masked - truth) * (1 - pixels)).sum((1, 2, 3)) / (
    3 * np.maximum((1 - pixels).sum((1, 2, 3)), 1)
  )
  # Each image in its own way.
  assert len(set(shift.round(6).tolist())) == len(truth) and np.median(shift) > 0.1
  variables = {'params': first.params, 'batch_stats': first.batch_stats}
  restored, _ = nets.unet.clone(axis_name=None).apply(
    variables, masked, train=True, mutable=['batch_stats']
  )
  squares = ((restored - truth) ** 2 * pixels).reshape(2, -1).sum(1) / (
    3 * pixels.reshape(2, -1).sum(1)
  )
  assert_close(metrics['loss'], squares.mean())


def test_the_unet_learns_from_the_masked_patches_alone(watched, split, assert_close):
  """The step's gradient is that of the loss written out here, which knows of no agent."""
  nets, first, last, metrics = watched
  unet = nets.unet.clone(axis_name=None)
  assert metrics['hidden'].shape == (2, 2, 4, 4, 4)  # Workers, rounds, images, patches.
  truth = ((split.images / np.float32(255)) - 0.5) / 0.25

  def loss(params):
    batch_stats, squares, counts = first.batch_stats, np.zeros(2), np.zeros(2)
    for turn in range(2):
      pixels = metrics['hidden'][:, turn].repeat(PATCH, -1).repeat(PATCH, -2)[..., None]
      masked = (metrics['observations'][:, turn] * (1 - pixels)).reshape(truth.shape)
      variables = {'params': params, 'batch_stats': batch_stats}
      restored, updates = unet.apply(variables, masked, train=True, mutable=['batch_stats'])
      batch_stats = updates['batch_stats']
      squares += (((restored - truth) ** 2).reshape((*pixels.shape[:-1], 3)) * pixels).sum(
        (1, 2, 3, 4)
      ) / (3 * PATCH**2)
      counts += metrics['hidden'][:, turn].sum((1, 2, 3))
    return (squares / counts).mean(), batch_stats

  (value, batch_stats), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(first.params)
  assert_close(metrics['loss'], value)
  assert_close(last.batch_stats, batch_stats)
  assert_close(moments(last)[0], jax.tree.map(lambda x: 0.1 * x, gradients))


def test_each_worker_draws_masks_of_its_own_in_each_round(watched):
  _, _, _, metrics = watched
  masks = metrics['hidden'].reshape(4, -1)
  assert len({mask.tobytes() for mask in masks}) == 4
  assert abs(metrics['mask_ratio'] - masks.mean()) < 1e-6
  np.testing.assert_allclose(metrics['probability'].mean((-2, -1)), 0.6, atol=1e-3)


def test_the_agent_learns_from_nothing_but_its_rollouts(watched, assert_close):
  """Its change is what `learn` makes of recorded rollouts, which no gradient of the U-Net passes
  through.
  """
  nets, first, last, metrics = watched
  rollouts = Rollout(*(metrics[name] for name in Rollout._fields))
  learn = jax.jit(
    jax.vmap(
      lambda _: nets.strategy.learn(first.extra, rollouts, None, jnp.zeros(())),
      axis_name=DEVICES,
      axis_size=1,
    )
  )
  extra, terms = jax.tree.map(lambda x: x[0], learn(jnp.zeros(1)))
  assert_close(last.extra.opt_state, extra.opt_state)
  assert_close(last.extra.batch_stats, extra.batch_stats)
  assert_close({name: metrics[name] for name in terms}, terms)


def test_validation_reconstructs_held_out_images(pretrained):
  before, after = (pretrained.task.evaluate(state) for state in (pretrained.first, pretrained.last))
  assert after['score'] == -after['uniform_loss'] > before['score']
  assert after['difficulty_rank_correlation'] == 0
  assert after['border_lift'] == pytest.approx(1)


def test_snapshots_hold_the_policy_as_it_is_at_their_step(make_config, split, start):
  task = pretrain.build(make_config(strategy='ahm', warmup=1.0), split, STEPS, 1)
  state = start(task)
  head = state.extra.params['policy']['output']
  steep = {
    **state.extra.params,
    'policy': {**state.extra.params['policy'], 'output': jax.tree.map(lambda x: 1e4 * x, head)},
  }
  state = state._replace(extra=state.extra._replace(params=steep))
  maps = [
    task.snapshot(state._replace(step=np.int32(step)))['policy'] for step in (0, STEPS // 2, STEPS)
  ]
  assert maps[0].shape == (pretrain.SNAPSHOT_IMAGES, 4, 4)
  assert np.std(maps[0]) < 1e-6 < np.std(maps[1]) < np.std(maps[2])


def test_training_needs_no_held_out_images(pretrained, split):
  task = build(pretrained.config, split.take([]))
  assert task.evaluate(pretrained.last) == {'score': 0.0}


def test_workers_that_the_devices_cannot_share_are_refused_before_anything_is_written(
  make_config, tmp_path, monkeypatch
):
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()))
  config = make_config(workers=2)
  with pytest.raises(UserError, match=r'config\.masking\.workers is 2, which 4 devices'):
    stages.pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  pretrain.check_workers(8, 16, 4)


def test_workers_that_cannot_share_the_batch_are_refused(make_config, tmp_path):
  config = make_config(workers=4)
  config = dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, batch_size=6))
  with pytest.raises(
    UserError, match=r'config\.masking\.workers is 4, which does not divide the batch_size of 6'
  ):
    stages.pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('value', [1, 3])
def test_lesions_move_with_their_images(make_config, split, value):
  """For masks that know them: images that show nothing but their lesion, of whichever class."""
  masking = make_config(workers=2).masking
  images = np.repeat(split.masks[..., None] * np.uint8(255), 3, -1)
  positions = np.arange(len(split), dtype=np.int32)
  batch = Batch(images, split.masks * np.uint8(value), split.labels, positions)
  augment = AugmentConfig(brightness=0.0, contrast=0.0, hue=0.0)

  def share(batch, key):
    return pretrain_step._share_out(batch, key, key, masking, augment)

  in_axes = jax.tree.map(lambda _: None, batch), 0
  workers = jax.vmap(share, in_axes, axis_name=DEVICES)(
    batch, jax.random.split(jax.random.key(0), 1)
  )
  shown = pretrain_step.denormalise(workers.images[0])[..., 0] >= 0.5
  assert workers.lesions.shape == (1, 2, len(split) // 2, *split.masks.shape[1:])
  np.testing.assert_array_equal(workers.lesions[0], shown)
  assert not np.array_equal(workers.lesions[0].reshape(split.masks.shape), split.masks)


def test_modalities_are_hidden_from_the_unet_and_reconstructed(make_config, split, start):
  config = make_config(strategy='uniform', workers=2, per_modality=True)
  data = dataclasses.replace(config.data, modalities=('a', 'b', 'c'), modality_dropout=0.6)
  task = build(dataclasses.replace(config, data=data), split)
  state, step = start(task), task.step
  positions = np.arange(len(split), dtype=np.int32)
  batch = Batch(split.images, split.masks, split.labels, positions)

  def roll_out(batch):
    keys = jax.random.key(1), jax.random.key(2)
    workers = pretrain_step._share_out(batch, *keys, step.nets.masking, step.augment)
    return step._roll_out(state.params, state, workers, keys[0])[1]

  over_devices = jax.vmap(roll_out, axis_name=DEVICES)
  found = jax.jit(over_devices)(jax.tree.map(lambda x: x[None], batch))
  whole, seen, masked = (
    np.asarray(x).reshape(split.images.shape)
    for x in (found.observations, found.unmasked, found.masked)
  )
  np.testing.assert_allclose(whole, normalise(split.images / 255.0), atol=1e-6)
  missing = np.isclose(seen, normalise(MISSING / 255), atol=1e-5).all((1, 2))
  expected = np.where(missing[:, None, None], seen[:, :1, :1], whole)
  np.testing.assert_allclose(seen, expected, atol=1e-5)
  assert 8 <= missing.sum() <= 16 and not missing.all(1).any()
  hidden = np.asarray(found.hidden)
  assert hidden.shape == (1, 2, 1, 4, 4, 12) == found.losses.shape
  assert (masked == 0).mean() == pytest.approx(hidden.mean(), abs=1e-6)
  assert task.evaluate(state)['mask_ratio'] == pytest.approx(config.masking.mask_ratio, abs=0.05)
