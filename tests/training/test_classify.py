import dataclasses
import functools

import jax
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from ahm_jax.config import ClassifyConfig
from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError
from ahm_jax.models.build import classifier
from ahm_jax.pipeline import setup
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.training import classify

STEPS = 40


@pytest.fixture(scope='module')
def task(make_config, split):
  return classify.build(make_config(augment=True), split, 2, STEPS, 1)


@pytest.fixture(scope='module')
def first(task, start):
  return start(task)


def test_four_devices_equal_one_dropout_included(task, first, split, drive, assert_close):
  (one, history), (four, other_history) = (
    drive(task, first, split, devices=devices) for devices in (1, 4)
  )
  assert_close(history, other_history)
  assert_close(one.opt_state, four.opt_state)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=6.1e-3), one.params, four.params
  )


@pytest.fixture(scope='module')
def still(make_config, split):
  """Without augmentation: dropout alone is random."""
  return classify.build(make_config(), split, 2, STEPS, 1)


def test_the_seed_and_the_place_in_the_batch_decide_what_is_dropped(still, first, split, drive):
  """With one key for all images, their order would not matter."""

  def loss(images, seed):
    return float(drive(still, first, images, seed=seed)[1][0]['loss'])

  assert loss(split, 0) == loss(split, 0)
  assert abs(loss(split, 1) - loss(split, 0)) > 1e-5
  assert abs(loss(split.take(range(7, -1, -1)), 0) - loss(split, 0)) > 1e-5


def test_it_learns_to_tell_red_from_dark(make_config, still, first, split, drive):
  state, history = drive(still, first, split, steps=200)
  losses = [metrics['loss'] for metrics in history]
  assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
  assert still.evaluate(state) == {'accuracy': 1, 'balanced_accuracy': 1, 'auc': 1, 'score': 1}
  vgg = classifier(make_config().model, 2)
  whole, in_threes = (
    classify.predict(vgg, {'params': state.params}, split.images, size) for size in (8, 3)
  )
  np.testing.assert_allclose(whole.sum(1), np.ones(8), rtol=1e-5)
  np.testing.assert_allclose(in_threes, whole, atol=1e-5)


def test_balanced_weights_by_hand_and_against_scikit_learn():
  labels = np.array([0, 0, 0, 0, 2, 2, 0, 2])
  assert classify.balanced_weights(labels, 3) == (8 / (2 * 5), 0.0, 8 / (2 * 3))
  expected = compute_class_weight('balanced', classes=np.array([0, 2]), y=labels)
  np.testing.assert_allclose(np.array(classify.balanced_weights(labels, 3))[[0, 2]], expected)


def test_class_weights_weigh_the_loss_of_each_image(make_config, first, split, drive):
  """An image of weight 0 adds nothing; the others count as often as their weight says."""

  def loss(weights, images=split):
    task = classify.build(make_config(), split, 2, STEPS, 1, weights)
    return float(drive(task, first, images)[1][0]['loss'])

  zero, one = loss((1.0, 0.0)), loss((0.0, 1.0))
  assert min(zero, one) > 0.1
  assert loss((3.0, 0.5)) == pytest.approx(3 * zero + 0.5 * one, rel=1e-5)
  assert loss(None) == pytest.approx(zero + one, rel=1e-5)


def test_score_is_the_balanced_accuracy_of_the_validation_images(
  make_config, first, split, monkeypatch
):
  """Right, wrong, right: a recall of 1 and of a half."""
  validation = dataclasses.replace(split.take(range(3)), labels=np.array([0, 1, 1], np.int32))
  task = classify.build(make_config(), validation, 2, STEPS, 1)
  planted = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
  monkeypatch.setattr(classify, 'predict', lambda *arguments: planted[: len(arguments[2])])
  scores = task.evaluate(first)
  assert scores['score'] == scores['balanced_accuracy'] == 0.75
  assert scores['accuracy'] == pytest.approx(2 / 3)


def inputs(image, lesion, **fields):
  image = np.asarray(image, np.uint8)
  lesions = np.asarray(lesion, bool)[None]
  (changed,) = classify.inputs(image[None], lesions, ClassifyConfig(**fields))
  assert changed.dtype == np.uint8
  assert changed.shape == image.shape
  return changed


def gradient_image(size=8, channels=3):
  """Each pixel's value is 10 * row + column, and each channel's 0, 80 or 160 more."""
  rows, columns = np.indices((size, size))
  return (10 * rows + columns)[..., None] + 80 * np.arange(channels)


def lesion(size, rows, columns):
  mask = np.zeros((size, size), bool)
  mask[slice(*rows), slice(*columns)] = True
  return mask


def test_image_is_the_image():
  image = gradient_image()
  np.testing.assert_array_equal(inputs(image, lesion(8, (2, 4), (2, 4)), input='image'), image)


@pytest.mark.parametrize('channels', [1, 3])
def test_masked_leaves_the_lesion_alone(channels):
  image, mask = gradient_image(channels=channels) + 1, lesion(8, (2, 4), (3, 6))
  changed = inputs(image, mask, input='masked')
  np.testing.assert_array_equal(changed[2:4, 3:6], image[2:4, 3:6])
  assert (changed > 0).sum() == 6 * channels


@pytest.mark.parametrize(
  ('rows', 'columns', 'margin', 'corner', 'side'),
  [
    ((2, 6), (2, 6), 0.0, (2, 2), 4),  # The box itself.
    ((3, 5), (2, 6), 0.0, (2, 2), 4),  # Square, about the middle of a wide box.
    ((3, 5), (3, 5), 0.5, (2, 2), 4),  # Half a box more on each side.
    ((0, 4), (4, 8), 0.0, (0, 4), 4),  # In a corner.
    ((0, 1), (2, 6), 0.0, (0, 2), 4),  # It would begin at row -2: moved inside.
    ((7, 8), (4, 8), 0.0, (4, 4), 4),  # It would end below the last row.
    ((6, 8), (6, 8), 0.5, (4, 4), 4),  # The margin sticks out at both edges.
    ((0, 8), (3, 5), 0.3, (0, 0), 8),  # No larger than the image.
  ],
)
@pytest.mark.parametrize('channels', [1, 3])
def test_crop(rows, columns, margin, corner, side, channels):
  """Means over pixels are kept by the resizing where it enlarges a linear ramp.

  Its corners are its extremes.
  """
  image = gradient_image(channels=channels)
  changed = inputs(image, lesion(8, rows, columns), input='crop', margin=margin)
  top, left = corner
  cut = image[top : top + side, left : left + side]
  assert changed[0, 0].tolist() == cut[0, 0].tolist()
  assert changed[-1, -1].tolist() == cut[-1, -1].tolist()
  np.testing.assert_allclose(changed.mean((0, 1)), cut.mean((0, 1)), atol=0.5)


@pytest.mark.parametrize('channels', [1, 3])
def test_a_lesion_of_one_pixel(channels):
  image = gradient_image(channels=channels)
  changed = inputs(image, lesion(8, (3, 4), (5, 6)), input='crop', margin=0.1)
  np.testing.assert_array_equal(changed, np.broadcast_to(image[3, 5], image.shape))


@pytest.mark.parametrize('kind', ['crop', 'masked'])
def test_an_image_without_lesion_is_kept_whole(kind):
  image = gradient_image()
  np.testing.assert_array_equal(inputs(image, np.zeros((8, 8)), input=kind), image)


@pytest.fixture(scope='module')
def learns_from(make_config, split, tmp_path_factory):
  """learns_from(data.labels, classify.labels) -> the images, of 8 of which 0 to 3 have a mask,
  and 2 to 7 a label.
  """
  train = dataclasses.replace(
    split, has_mask=np.arange(8) < 4, labels=np.where(np.arange(8) < 2, -1, split.labels)
  )
  data = Dataset('toy', ('dark', 'red'), {'train': train, 'validation': split}, ())

  def plan(labels, classify_labels):
    config = make_config()
    config = dataclasses.replace(
      config,
      data=dataclasses.replace(config.data, labels=labels),
      classify=ClassifyConfig(input='image', labels=classify_labels),
    )
    run = setup.open_run(CLASSIFY, config, tmp_path_factory.mktemp('run'), data)
    return {int(name[-1]) for name in CLASSIFY.plan(run).split.ids}

  return plan


def test_images_without_a_mask_train_where_labels_alone_count(learns_from):
  assert learns_from(0, 0) == learns_from(0, 6) == learns_from(2, 6) == {2, 3, 4, 5, 6, 7}
  some = learns_from(0, 4)
  assert len(some) == 4 and some < {2, 3, 4, 5, 6, 7}


def test_else_a_classifier_learns_from_what_the_segmentation_learns_from(learns_from, capsys):
  assert learns_from(4, 0) == {2, 3}
  assert (
    capsys.readouterr().out
    == 'of 4 images that the segmentation learns from, 2 have a label to classify by\n'
  )


def test_more_labels_than_there_are_are_refused(learns_from):
  with pytest.raises(
    UserError, match=r'^7 labelled training images .* only 6 of 8 have a label; lower'
  ):
    learns_from(4, 7)
