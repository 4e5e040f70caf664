import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import optimize, special

from ahm_jax.config import AugmentConfig
from ahm_jax.data.augment import augment_batch
from ahm_jax.models.build import segmentation_unet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import TrainState
from ahm_jax.training import segment
from ahm_jax.training.multiclass import augment_classes, class_dice, class_losses
from ahm_jax.training.segment_step import segmentation_losses

NAMES = ('a', 'b')


@jax.jit
def losses(logits, masks):
  """`class_losses` of [devices, b, H, W, K + 1] and [devices, b, H, W], each device's."""
  return jax.vmap(class_losses, axis_name=DEVICES)(jnp.asarray(logits), jnp.asarray(masks))


def reference_dice_loss(logits, masks):
  """Of [..., K + 1] and [...], in float64."""
  p = special.softmax(np.asarray(logits, np.float64), -1)
  y = np.arange(p.shape[-1]) == masks[..., None]
  every = tuple(range(masks.ndim))
  return np.mean(1 - (2 * (p * y).sum(every) + 1)[1:] / ((p + y).sum(every) + 1)[1:])


def test_losses_by_hand():
  """Four pixels, three values, all as likely; one pixel of the first class, none of the second."""
  masks = np.zeros((1, 1, 2, 2), np.int32)
  masks[0, 0, 0, 0] = 1
  (cross_entropy,), (dice,) = losses(np.zeros((1, 1, 2, 2, 3)), masks)
  assert cross_entropy == pytest.approx(np.log(3))
  first, second = 1 - (2 / 3 + 1) / (4 / 3 + 1 + 1), 1 - 1 / (4 / 3 + 1)
  assert dice == pytest.approx((first + second) / 2)


def test_a_class_that_the_batch_lacks_costs_what_is_wrongly_found_of_it():
  masks = np.zeros((1, 1, 4, 4), np.int32)
  masks[..., :2] = 1
  right = 40 * np.eye(3)[masks]
  (cross_entropy,), (dice,) = losses(right, masks)
  assert cross_entropy == pytest.approx(0, abs=1e-6) and dice == pytest.approx(0, abs=1e-6)
  # 8 pixels of the second class.
  _, (dice,) = losses(40 * np.eye(3)[np.where(masks == 0, 2, 1)], masks)
  assert dice == pytest.approx((0 + 1 - 1 / 9) / 2)


def test_losses_against_scipy():
  generator = np.random.default_rng(0)
  masks = generator.integers(0, 4, (1, 3, 8, 8)).astype(np.int32)
  logits = generator.normal(0, 2, (*masks.shape, 4)).astype(np.float32)
  (cross_entropy,), (dice,) = losses(logits, masks)
  own = np.take_along_axis(special.log_softmax(logits.astype(np.float64), -1), masks[..., None], -1)
  assert cross_entropy == pytest.approx(-own.mean(), rel=1e-5)
  assert dice == pytest.approx(reference_dice_loss(logits, masks), rel=1e-5)


def test_one_class_costs_what_binary_masks_do():
  """Softmax of (0, z) is the sigmoid of z."""
  generator = np.random.default_rng(0)
  masks = generator.integers(0, 2, (1, 3, 8, 8)).astype(np.int32)
  logits = generator.normal(0, 2, masks.shape).astype(np.float32)
  binary = jax.vmap(segmentation_losses, axis_name=DEVICES)(
    jnp.asarray(logits), jnp.asarray(masks, jnp.float32)
  )
  several = losses(np.stack([0 * logits, logits], -1), masks)
  np.testing.assert_allclose(several, binary, rtol=1e-5)


def test_dice_is_that_of_the_whole_batch_on_four_devices_and_so_is_its_gradient():
  """Against NumPy's value and its finite differences in float64.

  The devices' own Dice differ: the first holds no class.
  """
  generator = np.random.default_rng(0)
  scores = generator.normal(size=(4, 2, 4, 4, 3))
  masks = np.zeros(scores.shape[:-1], np.int32)
  for device in range(4):
    masks[device, :, :device] = 1 + device % 2

  def expected(weights, scores=scores, masks=masks):
    return reference_dice_loss(weights[0] * scores + weights[1] * np.arange(3), masks)

  def on_one_device(weights, scores, masks):
    def objective(w):
      return class_losses(w[0] * scores + w[1] * jnp.arange(3), masks)[1]

    value, gradient = jax.value_and_grad(objective)(weights)
    return value, lax.pmean(gradient, DEVICES)

  weights = np.array([0.7, -0.3])
  values, gradients = jax.pmap(
    on_one_device, axis_name=DEVICES, in_axes=(None, 0, 0), devices=jax.local_devices()[:4]
  )(weights.astype(np.float32), scores.astype(np.float32), masks)
  np.testing.assert_allclose(values, [expected(weights)] * 4, rtol=1e-5)
  np.testing.assert_allclose(gradients, [optimize.approx_fprime(weights, expected)] * 4, rtol=1e-4)
  mean_of_devices = np.mean([expected(weights, scores[i], masks[i]) for i in range(4)])
  assert abs(mean_of_devices - expected(weights)) > 0.02


def augmented(config, images, masks, values):
  positions = np.arange(len(images), dtype=np.int32)
  return jax.jit(lambda key: augment_classes(key, images, masks, positions, config, values))(
    jax.random.key(3)
  )


def picture(mask):
  """An image that shows each value as a grey of its own."""
  return np.repeat(60 * mask[..., None], 3, -1).astype(np.uint8)


def test_classes_turn_with_their_image():
  masks = np.random.default_rng(0).integers(0, 5, (16, 8, 8)).astype(np.uint8)
  still = AugmentConfig(flip=True, scale=0, brightness=0, contrast=0, hue=0)
  images, moved = augmented(still, picture(masks), masks, 5)
  np.testing.assert_allclose(images[..., 0] * 255, 60 * moved, atol=1e-3)
  assert (np.asarray(moved) != masks).any((1, 2)).sum() >= 8  # One pose of eight is none.


def test_between_two_classes_there_is_no_third_one():
  """A mean of the values 0 and 2 would be 1.

  Here the nearer wins, as the image's own grey shows.
  """
  masks = np.zeros((16, 16, 16), np.uint8)
  masks[:, 3:12, 5:13] = 2
  config = AugmentConfig(flip=True, scale=0.5, brightness=0, contrast=0, hue=0)
  images, moved = augmented(config, picture(masks), masks, 3)
  grey = np.asarray(images[..., 0]) * 255 / 120
  clear = np.abs(grey - 0.5) > 1e-3
  np.testing.assert_array_equal(np.asarray(moved)[clear], 2 * (grey[clear] > 0.5))
  assert ((grey > 0.01) & (grey < 0.99)).any()


def test_where_three_classes_meet_the_largest_share_wins():
  """No value has half of such a pixel, which a cut at a half would call background."""
  masks = np.full((32, 16, 16), 1, np.uint8)
  masks[:, 8:, :8], masks[:, 8:, 8:] = 2, 3
  _, moved = augmented(
    AugmentConfig(flip=False, scale=0.5, brightness=0, contrast=0, hue=0), picture(masks), masks, 4
  )
  assert set(np.unique(moved)) == {1, 2, 3}


def test_images_are_augmented_as_without_classes():
  generator = np.random.default_rng(0)
  images = generator.integers(0, 256, (4, 16, 16, 3), np.uint8)
  masks = generator.integers(0, 2, (4, 16, 16)).astype(np.uint8)
  positions = np.arange(4, dtype=np.int32)
  augment = jax.jit(lambda key: augment_batch(key, images, masks, positions, AugmentConfig()))
  binary, binary_masks = augment(jax.random.key(3))
  several, class_masks = augmented(AugmentConfig(), images, masks, 2)
  np.testing.assert_allclose(several, binary, atol=1e-5)
  assert (np.asarray(class_masks) == binary_masks).mean() > 0.99  # But for shares of a half.


def test_dice_of_classes_by_hand():
  """An image of both classes, one of the first alone, one of nothing, and one where the second
  is found for nothing.
  """
  truth, found = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
  truth[0, 0], found[0, 0, :2] = 1, 1  # 2 of 4 pixels: 2 * 2 / 6.
  truth[0, 1], found[0, 1:3] = 2, 2  # 4 pixels and 4 more: 2 * 4 / 12.
  truth[1, 0], found[1, 0] = 1, 1  # Right.
  found[3, 0, 0] = 2
  scores = class_dice(found, truth, NAMES)
  assert scores['dice_a'] == pytest.approx((2 / 3 + 1) / 2)
  assert scores['dice_b'] == pytest.approx((2 / 3 + 0) / 2)
  assert scores['dice'] == scores['score'] == pytest.approx((2 / 3 + 1 + 0) / 3)
  nothing = class_dice(found[2:3], truth[2:3], NAMES)
  assert (nothing['dice'], nothing['score']) == (0, 0)
  assert math.isnan(nothing['dice_a']) and math.isnan(nothing['dice_b'])


def test_the_network_has_an_output_more_than_classes_and_a_validation_scores_the_likeliest(
  make_config, split, monkeypatch
):
  config = make_config()
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, mask_classes=NAMES))
  masks = np.repeat(np.arange(8, dtype=np.uint8)[:, None], 16 * 16, 1).reshape(8, 16, 16) % 3
  task = segment.build(config, dataclasses.replace(split, masks=masks), 10, 1)
  state = jax.eval_shape(task.init, jax.random.key(0))
  assert state.params['head']['kernel'].shape[-1] == 3
  ones = np.full((8, 16, 16), 1, np.uint8)
  monkeypatch.setattr(segment, 'predict_classes', lambda *_: ones)
  found = task.evaluate(TrainState(0, {}, {}, (), ()))
  # Of values 0, 1, 2, 0, 1, 2, 0, 1: each is wrong but for the three of 1; those of 2 have both
  # classes wrong.
  assert found == {'dice': 3 / 8, 'dice_a': 3 / 8, 'dice_b': 0, 'score': 3 / 8}


def test_predictions_are_probabilities_and_the_likeliest_of_them(make_config, split, start):
  config = make_config()
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, mask_classes=NAMES))
  state = start(segment.build(config, split, 10, 1))
  unet = segmentation_unet(config.model, 2)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  probabilities = segment.predict(unet, variables, split.images, 8)
  assert probabilities.shape == (8, 16, 16, 3) and probabilities.dtype == np.float32
  np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
  likeliest = segment.predict_classes(unet, variables, split.images, 8)
  assert likeliest.dtype == np.uint8
  np.testing.assert_array_equal(likeliest, probabilities.argmax(-1))
