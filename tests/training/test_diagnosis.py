import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import optimize, special
from sklearn import metrics as sklearn_metrics

from ahm_jax.config import DataConfig, DiagnosisConfig, UnlabelledConfig
from ahm_jax.data.batches import Beside, Source, source
from ahm_jax.models.unet import DIAGNOSIS
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.training import diagnosis, segment
from ahm_jax.training.loop import fit

MASKED, DIAGNOSED = 4, 8  # Images a step.


def over_devices(function, *arguments):
  return jax.vmap(function, axis_name=DEVICES)(*map(jnp.asarray, arguments))


def test_the_loss_is_a_weighted_mean_over_images_with_a_label_of_all_devices():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(2, 5, 3))
  labels = np.array([[0, 2, -1, 1, 0], [-1, -1, 2, -1, -1]])
  told = diagnosis.diagnosing(DiagnosisConfig(batch_size=1), np.array([0, 0, 0, 1, 2, 2]), 3)
  assert told.class_weights == pytest.approx((2 / 3, 2, 1))
  known = labels >= 0
  weights = np.array(told.class_weights)[labels[known]]
  expected = sklearn_metrics.log_loss(
    labels[known], special.softmax(logits[known], -1), sample_weight=weights, labels=[0, 1, 2]
  )
  values, metrics = over_devices(told.loss, logits, labels)
  assert values.mean() == pytest.approx(expected, rel=1e-5)
  right = (logits.argmax(-1) == labels)[known].mean()
  np.testing.assert_allclose(metrics['train_accuracy'], right, rtol=1e-6)
  plain = diagnosis.diagnosing(DiagnosisConfig(batch_size=1, balanced=False), labels[known], 3)
  assert plain.class_weights == (1, 1, 1)


def test_without_a_label_there_is_no_loss_and_no_gradient():
  told = diagnosis.Diagnosing(DiagnosisConfig(batch_size=1), (1.0, 1.0))

  def on_a_device(logits, labels):
    return jax.value_and_grad(lambda x: told.loss(x, labels)[0])(logits)

  loss, gradient = over_devices(on_a_device, np.ones((1, 3, 2)), np.full((1, 3), -1))
  assert loss == 0 and not gradient.any()


def test_fixed_weights_and_learnt_variances_by_hand():
  fixed = diagnosis.Diagnosing(DiagnosisConfig(batch_size=1, weight=0.5), (1.0, 1.0))
  assert fixed.joined(3.0, 2.0, {}) == pytest.approx(4)
  learnt = diagnosis.Diagnosing(DiagnosisConfig(batch_size=1, weighting='learnt'), (1.0, 1.0))

  def total(logs):
    params = {DIAGNOSIS: {'log_variances': jnp.asarray(logs, jnp.float32)}}
    return float(learnt.joined(jnp.float32(3), jnp.float32(2), params))

  assert total([0, 0]) == pytest.approx(5)
  expected = 3 * np.exp(-0.2) + 2 * np.exp(0.4) + (0.2 - 0.4) / 2
  assert total([0.2, -0.4]) == pytest.approx(expected, rel=1e-6)
  # Least where the variance is twice the loss: each then adds 1/2 + log(2 L) / 2.
  best = optimize.minimize(total, [0.0, 0.0], method='Nelder-Mead', options={'xatol': 1e-3}).x
  np.testing.assert_allclose(best, np.log([6, 4]), atol=0.02)


@pytest.fixture(scope='module')
def make_task(make_config, split):
  """make_task(recipe={}, **fields of `diagnosis`): masks of four images, diagnoses of all eight."""

  def make(recipe=(), mask_classes=(), **fields):
    config = make_config()
    own = DiagnosisConfig(**{'batch_size': DIAGNOSED, **fields})
    changed = dataclasses.replace(config.segment, batch_size=MASKED, diagnosis=own, **dict(recipe))
    data = dataclasses.replace(config.data, mask_classes=mask_classes)
    config = dataclasses.replace(config, segment=changed, data=data)
    told = diagnosis.diagnosing(own, split.labels, 2)
    return segment.build(config, split, 40, 1, diagnosing=told, diagnosed=split)

  return make


@pytest.fixture(scope='module')
def run(split, drive):
  """run(task, state, devices=1, steps=1, masks=None, unlabelled=0) -> the last state, metrics.

  Args:
    masks: of the diagnosed images.
  """

  def run(task, state, devices=1, steps=1, masks=None, unlabelled=0):
    diagnosed = split if masks is None else dataclasses.replace(split, masks=masks)
    parts = split.take(slice(-MASKED, None)), diagnosed
    beside = [split.take(slice(unlabelled))] if unlabelled else []
    return drive(task, state, *parts, *beside, devices=devices, steps=steps)

  return run


def test_both_are_learnt_and_the_score_is_their_mean(make_task, start, run):
  task = make_task()
  last, history = run(task, start(task), steps=80)
  assert history[-1]['diagnosis_loss'] < 0.2 < history[0]['diagnosis_loss']
  assert history[-1]['train_accuracy'] == 1
  assert history[0]['loss'] == pytest.approx(
    sum(history[0][name] for name in ('cross_entropy', 'dice_loss', 'diagnosis_loss')), rel=1e-5
  )
  scores = task.evaluate(last)
  assert scores['balanced_accuracy'] > 0.7 and scores['dice'] > 0.5
  assert scores['score'] == pytest.approx((scores['dice'] + scores['auc']) / 2)


def test_a_single_class_is_scored_by_its_accuracy(make_config, split, make_task, start):
  one = dataclasses.replace(split, labels=np.zeros(len(split), np.int32))
  told = make_task().step.diagnosing
  config = dataclasses.replace(
    make_config(), segment=dataclasses.replace(make_config().segment, batch_size=MASKED)
  )
  task = segment.build(config, split, 40, 1, diagnosing=told, diagnosed=one)
  scores = task.evaluate(start(task))
  assert np.isnan(scores['auc'])
  assert scores['score'] == pytest.approx((scores['dice'] + scores['balanced_accuracy']) / 2)


def test_masks_of_diagnosed_images_teach_nothing(make_task, start, run, split):
  task = make_task()
  first = start(task)
  one, other = (run(task, first, masks=masks)[0] for masks in (None, 1 - split.masks))
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_mask_does_not_hear_of_the_diagnosis_through_the_pooling(make_task, start, split):
  """The head's weights of the mask have a gradient by the masks' loss alone."""
  task = make_task()
  first = start(task)
  images = split.images / np.float32(255)

  def total(head):
    variables = {'params': {**first.params, 'head': head}, 'batch_stats': first.batch_stats}
    _, found = task.step.unet.apply(variables, images, False, None, (DIAGNOSIS,))
    return found[DIAGNOSIS].sum()

  gradient = jax.jit(jax.grad(total))(first.params['head'])
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_four_devices_equal_one(make_task, start, run, assert_close):
  task = make_task(weighting='learnt')
  first = start(task)
  (one, history), (four, other) = (run(task, first, devices) for devices in (1, 4))
  for step, single in zip(history, other, strict=True):
    assert single == pytest.approx(step, rel=1e-4)
  assert_close((one.batch_stats, one.opt_state), (four.batch_stats, four.opt_state))
  assert one.params[DIAGNOSIS]['log_variances'].any()


@pytest.mark.parametrize('mask_classes', [(), ('lesion', 'ring')])
def test_masks_diagnoses_and_unlabelled_images_go_together(
  make_task, start, run, split, mask_classes
):
  unlabelled = UnlabelledConfig(batch_size=4, ramp=0.0)
  task = make_task({'ema_decay': 0.9, 'unlabelled': unlabelled}, mask_classes)
  last, history = run(task, start(task), unlabelled=4)
  parts = ('cross_entropy', 'dice_loss', 'diagnosis_loss', 'consistency_loss')
  assert history[0]['loss'] == pytest.approx(sum(history[0][name] for name in parts), rel=1e-5)
  variables = {'params': last.params, 'batch_stats': last.batch_stats}
  p, told = segment.with_diagnoses(task.step.unet, variables, jnp.asarray(split.images[:3]))
  assert p.shape == (3, 16, 16, 3)[: 4 if mask_classes else 3] and told.shape == (3, 2)
  np.testing.assert_allclose(told.sum(-1), 1, rtol=1e-5)
  plain = segment.probabilities(task.step.unet, variables, jnp.asarray(split.images[:3]))
  np.testing.assert_allclose(p, plain, atol=1e-6)
  alone = segment.predict_diagnoses(task.step.unet, variables, split.images[:3], 2)
  np.testing.assert_allclose(alone, told, atol=1e-5)


class Broken(Source):
  """Breaks off after three steps."""

  def inputs(self, start, stop):
    for step, inputs in enumerate(super().inputs(start, stop), start):
      if step == 3:
        raise KeyboardInterrupt
      yield inputs


def test_a_run_that_resumes_ends_as_one_that_was_never_interrupted(make_task, split, tmp_path):
  task = make_task(weighting='learnt')
  recipe = dataclasses.replace(task.step.optimizer.recipe, eval_every=2)
  beside = (Beside.diagnosed(np.array([0, 2, 3, 5, 6, 7]), DIAGNOSED),)
  item = source(
    split, DataConfig(resident_share=0.0), np.arange(4), MASKED, 0, jax.local_devices()[:1], beside
  )
  broken = Broken(**vars(item))
  whole = fit(task, item, recipe, tmp_path / 'whole', 0, 6)
  with pytest.raises(KeyboardInterrupt):
    fit(task, broken, recipe, tmp_path / 'resumed', 0, 6)
  jax.tree.map(
    np.testing.assert_array_equal, fit(task, item, recipe, tmp_path / 'resumed', 0, 6), whole
  )


def test_a_pretrained_unet_brings_no_diagnosis(make_task, start, pretrained):
  task = make_task()
  fresh = start(task).params
  taken = segment.transfer(pretrained.last.params, fresh)
  assert taken[DIAGNOSIS] is fresh[DIAGNOSIS] and taken['head'] is fresh['head']
  assert taken['encoder1'] is pretrained.last.params['encoder1']


def test_the_gradient_is_that_of_the_whole_batch_on_four_devices():
  told = diagnosis.Diagnosing(DiagnosisConfig(batch_size=4), (0.5, 1.5))
  logits = np.random.default_rng(1).normal(size=(4, 2, 2))
  labels = np.array([[0, 1], [-1, -1], [1, -1], [0, 0]])

  def expected(shift):
    p = special.softmax(logits + np.array([shift[0], 0.0]), -1)
    known = labels >= 0
    weights = np.array([0.5, 1.5])[labels[known]]
    return (
      -weights * np.log(p[known][np.arange(known.sum()), labels[known]])
    ).sum() / weights.sum()

  def on_a_device(shift, logits, labels):
    gradient = jax.grad(lambda s: told.loss(logits + jnp.array([1.0, 0.0]) * s, labels)[0])(shift)
    return lax.pmean(gradient, DEVICES)

  found = jax.vmap(on_a_device, axis_name=DEVICES, in_axes=(None, 0, 0))(
    jnp.float32(0.3), jnp.asarray(logits), jnp.asarray(labels)
  )
  np.testing.assert_allclose(found, optimize.approx_fprime([0.3], expected)[0], rtol=1e-4)
