import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import (
  AugmentConfig,
  DataConfig,
  MaskingConfig,
  ReconstructionConfig,
  UnlabelledConfig,
)
from ahm_jax.data.augment import ModalityAugment
from ahm_jax.data.batches import Beside, source
from ahm_jax.models.unet import RECONSTRUCTION
from ahm_jax.task import Batch
from ahm_jax.training import segment
from ahm_jax.training.loop import fit

PATCH, MASKED = 4, 4  # Images with a mask a step; all eight are reconstructed.


@pytest.fixture(scope='module')
def make_task(make_config, split):
  """make_task(recipe={}, **fields of masking): a segmentation that reconstructs too."""

  def make(recipe=(), weight=1.0, pretrained=None, data=None, **masking):
    config = make_config()
    config = dataclasses.replace(config, data=data or config.data)
    fields = {'strategy': 'uniform', 'patch_size': PATCH, 'learning_rate': 1e-2} | masking
    own = ReconstructionConfig(len(split), weight, MaskingConfig(**fields))
    changed = dataclasses.replace(
      config.segment, batch_size=MASKED, reconstruction=own, **dict(recipe)
    )
    config = dataclasses.replace(config, segment=changed)
    return segment.build(config, split, 40, 1, pretrained)

  return make


@pytest.fixture(scope='module')
def run(split, drive):
  """run(task, state, devices=1, steps=1, unlabelled=False) -> the last state, metrics."""

  def run(task, state, devices=1, steps=1, unlabelled=False):
    parts = split.take(slice(-MASKED, None)), split, *([split] if unlabelled else [])
    return drive(task, state, *parts, devices=devices, steps=steps)

  return run


def test_the_loss_is_the_mean_squared_error_of_masked_patches(make_task, start, split):
  task = make_task(weight=0.5)
  step, first = task.step, start(task)
  positions = np.arange(len(split), dtype=np.int32)
  batch = Batch(split.images, split.masks, split.labels, positions)

  def run(images):
    masked = step.reconstructing.masked(jax.random.key(0), images, first.extra.masking, 0)
    loss = step.reconstructing.loss(first.params, first.batch_stats, masked)
    return masked, loss

  masked, (loss, (metrics, losses)) = jax.vmap(
    lambda images: run(batch._replace(images=images)), axis_name='devices'
  )(split.images[None])
  images, seen, proposal = jax.tree.map(lambda x: np.asarray(x[0]), masked)
  hidden = proposal.hidden.reshape(len(split), 4, 4)
  assert 0 < hidden.mean() < 1
  pixels = np.kron(hidden, np.ones((1, PATCH, PATCH)))[..., None]
  np.testing.assert_allclose(seen, images * (1 - pixels), atol=1e-6)
  np.testing.assert_allclose(images, (split.images / 255 - 0.5) / 0.25, atol=1e-5)
  variables = {'params': first.params, 'batch_stats': first.batch_stats}
  (_, found), _ = step.unet.clone(axis_name=None).apply(
    variables, jnp.asarray(seen), True, None, (RECONSTRUCTION,), mutable=['batch_stats']
  )
  errors = ((np.asarray(found[RECONSTRUCTION]) - images) ** 2).mean(-1)
  expected = errors.reshape(len(split), 4, PATCH, 4, PATCH).mean((2, 4))
  np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
  workers = zip(expected.reshape(proposal.hidden.shape), proposal.hidden, strict=True)
  mean = np.mean([errors[hidden > 0].mean() for errors, hidden in workers])
  assert len(proposal.hidden) == MaskingConfig().workers
  assert metrics['reconstruction_loss'][0] == pytest.approx(mean, rel=1e-4)
  assert loss[0] == pytest.approx(0.5 * mean, rel=1e-4)


def test_masked_images_leave_the_running_averages_alone(
  make_config, make_task, start, run, split, drive
):
  """They are those of the same training without a reconstruction."""
  config = make_config()
  alone = dataclasses.replace(config.segment, batch_size=MASKED)
  plain = segment.build(dataclasses.replace(config, segment=alone), split, 40, 1)
  task = make_task()
  first = start(task)
  body = {name: part for name, part in first.params.items() if name != RECONSTRUCTION}
  of_plain = start(plain)._replace(params=body, batch_stats=first.batch_stats)
  expected, _ = drive(plain, of_plain, split.take(slice(-MASKED, None)))
  found, _ = run(task, first)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    found.extra.batch_stats,
    expected.batch_stats,
  )


def test_what_is_reconstructed_gets_better_while_masks_are_learnt(make_task, start, run):
  task = make_task()
  _, history = run(task, start(task), steps=40)
  assert history[-1]['reconstruction_loss'] < 0.8 * history[0]['reconstruction_loss']
  assert history[-1]['cross_entropy'] < history[0]['cross_entropy']
  parts = ('cross_entropy', 'dice_loss', 'reconstruction_loss')
  assert history[0]['loss'] == pytest.approx(sum(history[0][name] for name in parts), rel=1e-5)


def test_without_an_average_what_is_kept_is_what_is_trained(make_task, start, run):
  task = make_task()
  state, _ = run(task, start(task))
  jax.tree.map(np.testing.assert_array_equal, state.params, state.extra.params)


def test_an_agent_masks_and_learns_beside_unlabelled_images_on_four_devices_as_on_one(
  make_task, start, run, assert_close
):
  recipe = {'ema_decay': 0.9, 'unlabelled': UnlabelledConfig(batch_size=8, ramp=0.0)}
  task = make_task(recipe, strategy='ahm', workers=4, warmup=0.0)
  first = start(task)
  (one, (metrics,)), (four, (others,)) = (run(task, first, n, unlabelled=True) for n in (1, 4))
  assert others == pytest.approx(metrics, rel=1e-3, abs=1e-5)
  assert {'consistency_loss', 'reconstruction_loss', 'policy_loss'} <= set(metrics)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, first.extra.masking, one.extra.masking)
  assert any(jax.tree.leaves(moved))
  assert_close(one.batch_stats, four.batch_stats)


def test_modalities_are_changed_as_such_and_all_are_to_be_reconstructed(make_task, split):
  """Though a modality is dropped from what the masks are learnt from."""
  names = ('flair', 't1', 't2', 'dwi')
  data = DataConfig(name='folder', image_size=16, modalities=names, modality_dropout=0.9)
  task = make_task({'augment': AugmentConfig()}, data=data)
  reconstructing = task.step.reconstructing
  assert isinstance(reconstructing.augment, ModalityAugment) and task.step.augment.dropout == 0.9
  images = np.concatenate([split.images, split.images[..., :1]], -1)
  batch = Batch(images, split.masks, split.labels, np.arange(len(split), dtype=np.int32))

  def of_device(images):
    shown = batch._replace(images=images)
    return reconstructing.masked(jax.random.key(0), shown, (), 0).images

  (shown,) = jax.vmap(of_device, axis_name='devices')(images[None])
  assert shown.shape == images.shape
  assert (np.asarray(shown).std((1, 2)) > 0.01).all()


def test_a_pretrained_head_goes_on(make_task, start, pretrained):
  own = start(make_task(pretrained=pretrained.last.params)).params
  jax.tree.map(np.testing.assert_array_equal, own[RECONSTRUCTION], pretrained.last.params['head'])
  assert own['head']['kernel'].shape[-1] == 1


def test_a_run_that_resumes_ends_as_one_that_was_never_interrupted(
  make_task, make_config, split, tmp_path
):
  task = make_task(strategy='ahm', warmup=0.0)
  beside = (Beside.reconstructed(split, len(split)),)
  over = jax.local_devices()[:1]
  item = source(split, make_config().data, np.arange(4, 8), MASKED, 0, over, beside)
  recipe = dataclasses.replace(task.step.optimizer.recipe, eval_every=2)
  whole = fit(task, item, recipe, tmp_path / 'whole', 0, 4)
  fit(task, item, recipe, tmp_path / 'resumed', 0, 2)
  jax.tree.map(
    np.testing.assert_array_equal, fit(task, item, recipe, tmp_path / 'resumed', 0, 4), whole
  )
