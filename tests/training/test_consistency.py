import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ahm_jax.config import AugmentConfig, Config, DataConfig, MaskingConfig, UnlabelledConfig
from ahm_jax.data import cutmix
from ahm_jax.data.augment import denormalise
from ahm_jax.data.batches import Beside, Source, source
from ahm_jax.masking.patches import to_pixels
from ahm_jax.models.build import segmentation_unet
from ahm_jax.models.layers import infer
from ahm_jax.runs import snapshots
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch
from ahm_jax.training import (
  consistency,
  multiclass,
  pseudo_masks,
  segment,
  segment_step,
  soft_losses,
)
from ahm_jax.training.consistency import Consistency
from ahm_jax.training.loop import fit

DECAY, STEPS = 0.9, 40
LABELLED = 4  # Of the eight images; all eight serve without their masks.


@pytest.fixture(scope='module')
def make_task(make_config, split):
  """make_task(**fields of `unlabelled`): a segmentation with eight unlabelled images a step."""

  def make(augment=False, ema_decay=DECAY, mask_classes=(), teacher=None, **fields):
    config = make_config(augment)
    colours = dataclasses.replace(config.segment.augment, brightness=0.1 * augment)
    fields = {'batch_size': len(split), 'augment': colours, 'ramp': 0.0} | fields
    recipe = dataclasses.replace(
      config.segment,
      batch_size=LABELLED,
      ema_decay=ema_decay,
      unlabelled=UnlabelledConfig(**fields),
    )
    data = dataclasses.replace(config.data, mask_classes=mask_classes)
    config = dataclasses.replace(config, segment=recipe, data=data)
    return segment.build(config, split, STEPS, 1, teacher=teacher)

  return make


@pytest.fixture(scope='module')
def run(split, drive):
  """run(task, state, devices=1, steps=1, masks=None) -> the last state and the metrics of each
  step.

  Args:
    masks: of the unlabelled images.
  """

  def run(task, state, devices=1, steps=1, masks=None):
    others = split if masks is None else dataclasses.replace(split, masks=masks)
    labelled = split.take(slice(-LABELLED, None))
    return drive(task, state, labelled, others, devices=devices, steps=steps)

  return run


def test_the_weight_grows_as_laine_and_aila_have_it():
  weights = [float(consistency.ramp(jnp.int32(step), 30.0)) for step in (0, 15, 30, 90)]
  assert weights == pytest.approx([np.exp(-5), np.exp(-5 / 4), 1, 1])
  assert consistency.ramp(jnp.int32(0), 0.0) == 1


def test_partners_change_places():
  assert cutmix.partners(jnp.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize(('low', 'high'), [(0.1, 0.5), (0.25, 0.25), (1.0, 1.0)])
def test_boxes_are_rectangles_of_the_area_that_is_asked_for(low, high):
  size, pairs = 64, np.repeat(np.arange(300), 2)
  config = UnlabelledConfig(cutmix_area=(low, high))
  boxes = np.asarray(cutmix.boxes(jax.random.key(0), pairs, size, config))
  np.testing.assert_array_equal(boxes[::2], boxes[1::2])
  areas = boxes[::2].mean((1, 2))
  assert areas.min() > low - 0.04
  assert areas.max() < high + 0.04
  assert areas.mean() == pytest.approx((low + high) / 2, abs=0.02)
  for box in boxes[::2]:
    rows, columns = box.any(1), box.any(0)
    assert box.sum() == rows.sum() * columns.sum()
    assert all(np.diff(np.flatnonzero(side)).max(initial=1) == 1 for side in (rows, columns))
  if low < 1:
    assert len({box.tobytes() for box in boxes[::2]}) > 250
    # They lie anywhere, and are as often high as they are wide.
    assert boxes.any((0, 1)).all() and boxes.any((0, 2)).all()
    tall = [box.any(1).sum() > box.any(0).sum() for box in boxes[::2]]
    assert 0.4 < np.mean(tall) < 0.6


def test_a_share_of_the_pairs_exchanges_a_box():
  pairs = np.arange(1000)
  for share in (0.0, 0.3, 1.0):
    config = UnlabelledConfig(cutmix=share)
    boxes = cutmix.boxes(jax.random.key(0), pairs, 16, config)
    assert boxes.any((1, 2)).mean() == pytest.approx(share, abs=0.05)


@jax.jit
def soft(logits, targets, weights):
  """`soft_losses` of [devices, u, S, S, outputs], each device's."""
  return jax.vmap(consistency.soft_losses, axis_name=DEVICES)(logits, targets, weights)


def test_losses_against_masks_are_those_of_the_labelled_images():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(2, 3, 8, 8, 1)).astype(np.float32)
  masks = generator.integers(0, 2, (2, 3, 8, 8)).astype(np.float32)
  every = np.ones(masks.shape, np.float32)
  expected = jax.vmap(segment_step.segmentation_losses, axis_name=DEVICES)(logits[..., 0], masks)
  np.testing.assert_allclose(soft(logits, masks[..., None], every), sum(expected), rtol=1e-6)
  logits = generator.normal(size=(2, 3, 8, 8, 4)).astype(np.float32)
  masks = generator.integers(0, 4, (2, 3, 8, 8))
  expected = jax.vmap(multiclass.class_losses, axis_name=DEVICES)(logits, masks)
  np.testing.assert_allclose(
    soft(logits, jax.nn.one_hot(masks, 4), every), sum(expected), rtol=1e-6
  )


def test_losses_against_probabilities_by_hand():
  """In float64, with half of the pixels left out."""
  generator = np.random.default_rng(1)
  logits, q = generator.normal(size=(1, 2, 4, 4)), generator.uniform(size=(1, 2, 4, 4))
  weights = np.zeros(q.shape)
  weights[..., :2] = 1
  p = special.expit(logits)
  cross_entropy = -(q * np.log(p) + (1 - q) * np.log(1 - p))
  counted = p[weights > 0], q[weights > 0]
  dice = 1 - (2 * np.minimum(*counted).sum() + 1) / (sum(x.sum() for x in counted) + 1)
  (found,) = soft(*(x.astype(np.float32) for x in (logits[..., None], q[..., None], weights)))
  assert found == pytest.approx(cross_entropy[weights > 0].sum() / q.size + dice, rel=1e-5)


def test_the_loss_is_least_where_both_say_the_same():
  """By gradient descent on the logits of three pixels, and of three classes."""
  for q in (np.array([[0.2], [0.45], [0.9]]), np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])):
    targets = jnp.asarray(q, jnp.float32).reshape(1, 1, 1, *q.shape)
    loss = lambda x, targets=targets: soft(x, targets, jnp.ones(targets.shape[:-1]))[0]  # noqa: E731
    logits, descend = jnp.zeros(targets.shape), jax.jit(jax.grad(loss))
    for step in range(400):
      logits -= 2 / (1 + step / 20) * descend(logits)
    np.testing.assert_allclose(soft_losses.probabilities(logits)[0, 0, 0], q, atol=0.02)


@pytest.mark.parametrize(
  ('p', 'confidence', 'hard'),
  [([0.2], 0.8, [0.0]), ([0.7], 0.7, [1.0]), ([0.2, 0.5, 0.3], 0.5, [0.0, 1.0, 0.0])],
)
def test_confidence_and_the_most_probable_class(p, confidence, hard):
  p = jnp.array(p)
  assert soft_losses.confidence(p) == pytest.approx(confidence)
  assert soft_losses.hardened(p).tolist() == hard


def test_views_are_those_of_a_pair_and_the_teacher_s_targets_move_with_them(split):
  """With every pair exchanging one quarter, and a teacher whose probability is that of a pixel."""
  still = dataclasses.replace(Config().segment.augment, flip=False, scale=0.0, hue=0.0)
  config = UnlabelledConfig(cutmix_area=(0.25, 0.25), augment=still, confidence=0.8)
  step = Consistency(Pixels(), config, total_steps=1)
  batch = Batch(split.images, split.masks, split.labels, np.arange(5, 13, dtype=np.int32))
  views = step.views(jax.random.key(0), {'params': 1}, batch, (), 0)
  plain = (split.images / np.float32(255) - 0.5) / 0.25
  says = special.expit(plain[..., :1])
  own = np.abs(views.targets - says) < 1e-5
  partner = (
    np.abs(views.targets - says.reshape(4, 2, 16, 16, 1)[:, ::-1].reshape(says.shape)) < 1e-5
  )
  assert (own | partner).all()
  assert 0.6 < own.mean() < 0.9
  np.testing.assert_array_equal(
    views.confident, (np.maximum(views.targets, 1 - views.targets) >= 0.8)[..., 0]
  )
  # Colours are the student's alone: outside of its box an image is its own, brighter or darker.
  changes = np.abs(np.asarray(views.images - plain)).max(-1)[(own & ~partner)[..., 0]]
  assert changes.mean() > 0.05


class Pixels:
  """A network that finds a lesion where a pixel is red."""

  def apply(self, variables, images, train):
    assert variables == {'params': 1} and not train
    return images[..., :1]


class Half:
  """A network that finds a lesion in the left half of whatever it sees."""

  def apply(self, variables, images, train):  # noqa: ARG002
    left = jnp.arange(images.shape[2]) < images.shape[2] // 2
    return jnp.where(left[:, None], 20.0, -20.0) * jnp.ones_like(images[..., :1])


def made(network, split, **fields):
  """Views of the split's images."""
  fields = {'cutmix': 0.0} | fields
  step = Consistency(network, UnlabelledConfig(**fields), total_steps=1)
  batch = Batch(split.images, split.masks, split.labels, np.arange(8, dtype=np.int32))
  return step.views(jax.random.key(0), {'params': 1}, batch, (), 0)


ONLY = dict.fromkeys(('scale', 'zoom_out', 'brightness', 'contrast', 'hue'), 0.0) | {'flip': False}


class Red:
  """A network whose probability of a lesion is the red of a pixel."""

  def apply(self, variables, images, train):  # noqa: ARG002
    return jax.scipy.special.logit(jnp.clip(denormalise(images[..., :1]), 1e-6, 1 - 1e-6))


@pytest.mark.parametrize('geometry', [{'flip': True}, {'scale': 0.4, 'zoom_out': 1.0}])
def test_what_the_teacher_says_moves_with_the_image_and_its_box(split, geometry):
  views = made(Red(), split, augment=AugmentConfig(**ONLY | geometry), cutmix=1.0)
  np.testing.assert_allclose(views.targets, denormalise(views.images[..., :1]), atol=1e-5)
  plain = (split.images / np.float32(255) - 0.5) / 0.25
  assert np.abs(np.asarray(views.images) - plain).max((1, 2, 3)).max() > 0.5


def test_the_teacher_sees_an_image_as_it_is(split):
  """And not moved: the half of the image that it finds is any side, then a part of another size."""
  targets = made(Half(), split, augment=AugmentConfig(**ONLY | {'flip': True})).targets
  np.testing.assert_allclose(targets.mean((1, 2, 3)), 0.5, atol=1e-6)
  sides = {(round(float(x[0, 8, 0])), round(float(x[8, 0, 0]))) for x in targets}
  assert len(sides) > 1
  targets = made(Half(), split, augment=AugmentConfig(**ONLY | {'zoom_out': 1.0})).targets
  assert np.ptp(targets.mean((1, 2, 3))) > 0.1


@pytest.mark.parametrize('confident', ['pixels', 'share'])
def test_images_that_are_not_trusted_teach_nothing(confident):
  """Of two, both certain, one is trusted; the student, who says 1/2, learns from it alone."""
  config = UnlabelledConfig(ramp=0.0, confidence=0.9, confident=confident)
  step = Consistency(Pixels(), config, total_steps=1)
  ones, trusted = jnp.ones((2, 4, 4)), jnp.array([1.0, 0.0])[:, None, None] * jnp.ones((2, 4, 4))
  targets = jnp.stack([jnp.ones((4, 4, 1)), jnp.zeros((4, 4, 1))])

  def loss(logits):
    views = consistency.Views(jnp.zeros((2, 4, 4, 3)), targets, trusted, ones)
    return of_one_device(lambda logits: step.loss(logits, views, 0), logits)

  value, metrics = loss(jnp.zeros((2, 4, 4, 1)))
  dice = 1 - (2 * 16 * 0.5 + 1) / (16 * 0.5 + 16 + 1)
  np.testing.assert_allclose(value, np.log(2) / 2 + dice, rtol=1e-6)
  assert (metrics['trusted_share'], metrics['confident_share']) == (0.5, 1)
  gradient = jax.grad(lambda logits: loss(logits)[0])(jnp.zeros((2, 4, 4, 1)))
  assert (gradient[0] < 0).all() and (gradient[1] == 0).all()


def test_agreement_of_masks_by_hand():
  a = jnp.array([[[1, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 2], [2, 0]], [[0, 0], [0, 1]]])
  b = jnp.array([[[1, 0], [1, 0]], [[0, 0], [0, 0]], [[1, 1], [2, 0]], [[0, 0], [0, 0]]])
  np.testing.assert_allclose(soft_losses.agreement(a, b, 2), [1 / 2, 1, (2 / 3 + 2 / 3) / 2, 0])
  np.testing.assert_allclose(soft_losses.agreement(a % 2, b % 2, 1), [1 / 2, 1, 2 / 3, 0])


@pytest.mark.parametrize(('flip', 'trusted'), [(True, 0), (False, 1)])
def test_an_image_counts_where_the_teacher_finds_the_same_twice(split, flip, trusted):
  """Upside down, half an image is the other half; a pixel is itself."""
  augment = AugmentConfig(**ONLY | {'flip': flip})
  assert (made(Half(), split, augment=augment, agreement=0.5).trusted == trusted).all()
  assert (made(Pixels(), split, augment=augment, agreement=1.0).trusted == 1).all()


def test_with_agreement_the_teacher_says_the_mean(split):
  """Of a half and the other, where it is not heeded; in other colours it finds another mask."""
  augment = AugmentConfig(**ONLY | {'flip': True})
  views = made(Half(), split, augment=augment, agreement=0.5)
  np.testing.assert_allclose(views.targets, 0.5, atol=1e-6)
  coloured = AugmentConfig(**ONLY | {'brightness': 0.2})
  trusted = made(Pixels(), split, augment=coloured, agreement=0.6).trusted
  each = trusted.reshape(8, -1)
  assert ((each == 0).all(1) | (each == 1).all(1)).all()
  assert 0 < trusted.mean() < 1


def test_trust_moves_with_the_boxes(split):
  """Where an image shows a partner that is trusted, that counts, and the rest does not."""
  coloured = AugmentConfig(**ONLY | {'brightness': 0.2})
  plain, mixed = (
    made(Pixels(), split, augment=coloured, agreement=0.6, cutmix=share, cutmix_area=(0.25, 0.25))
    for share in (0.0, 1.0)
  )
  own = plain.trusted.mean((1, 2))
  partner = own.reshape(4, 2)[:, ::-1].reshape(8)
  assert set(own.tolist()) == {0, 1} and (own != partner).any()
  shares = mixed.trusted.mean((1, 2))
  assert (shares[(own == 1) & (partner == 1)] == 1).all()
  assert ((shares > 0.1) & (shares < 0.4))[(own == 0) & (partner == 1)].all()
  assert ((shares > 0.6) & (shares < 0.9))[(own == 1) & (partner == 0)].all()


def test_masks_of_unlabelled_images_are_not_looked_at(make_task, start, run, split):
  task = make_task(augment=True)
  first = start(task)
  (one, history), (other, others) = (
    run(task, first, steps=3, masks=masks) for masks in (None, 1 - split.masks)
  )
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert history == others
  assert history[-1]['consistency_loss'] > 0


def test_what_is_kept_is_the_average_of_the_student(make_task, start, run):
  """Its decay is at most (1 + t) / (10 + t): 1/10, 2/11, 3/12, ... and DECAY from t = 80 on."""
  task = make_task()
  state = start(task)
  for t in (0, 1, 2):
    new, _ = run(task, state)
    decay = (1 + t) / (10 + t)
    for part in ('params', 'batch_stats'):
      jax.tree.map(
        lambda a, b, c, d=decay: np.testing.assert_allclose(c, d * a + (1 - d) * b, atol=1e-6),
        getattr(state, part),
        getattr(new.extra, part),
        getattr(new, part),
      )
    state = new
  late = state._replace(step=np.int32(500))
  new, _ = run(task, late)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(c, DECAY * a + (1 - DECAY) * b, atol=1e-6),
    late.params,
    new.extra.params,
    new.params,
  )


def test_an_average_changes_nothing_of_what_is_trained(make_config, split, start, drive):
  plain = segment.build(make_config(), split, STEPS, 1)
  recipe = dataclasses.replace(make_config().segment, ema_decay=DECAY)
  averaged = segment.build(dataclasses.replace(make_config(), segment=recipe), split, STEPS, 1)
  (one, history), (other, others) = (
    drive(task, start(task), split, steps=3) for task in (plain, averaged)
  )
  jax.tree.map(np.testing.assert_array_equal, one.params, other.extra.params)
  jax.tree.map(np.testing.assert_array_equal, one.batch_stats, other.extra.batch_stats)
  assert history == others


@pytest.mark.parametrize(('mask_classes', 'least'), [((), 0.4), (('small', 'large'), 0.25)])
def test_the_student_learns_masks_and_to_agree(make_task, start, run, mask_classes, least):
  task = make_task(mask_classes=mask_classes)
  last, history = run(task, start(task), steps=STEPS)
  assert history[-1]['cross_entropy'] < 0.7 * history[0]['cross_entropy']
  assert history[-1]['loss'] == pytest.approx(
    sum(history[-1][name] for name in ('cross_entropy', 'dice_loss', 'consistency_loss')), rel=1e-4
  )
  assert task.evaluate(last)['dice'] > least > task.evaluate(start(task))['dice']


class Broken(Source):
  """Breaks off after three steps."""

  def inputs(self, start, stop):
    for step, inputs in enumerate(super().inputs(start, stop), start):
      if step == 3:
        raise KeyboardInterrupt
      yield inputs


def test_a_run_that_keeps_pseudo_masks_and_resumes_ends_as_one_that_does_not(
  make_task, make_config, split, tmp_path
):
  task, labelled, over = make_task(), np.array([1, 3, 4, 6]), jax.local_devices()[:1]
  recipe = dataclasses.replace(make_config().segment, eval_every=2)
  using = dataclasses.replace(recipe, ema_decay=DECAY, unlabelled=UnlabelledConfig(batch_size=8))
  config = dataclasses.replace(make_config(), segment=using)
  keeping = task._replace(snapshot=pseudo_masks.snapshot(config, split, labelled))
  streamed = split, DataConfig(resident_share=0.0), labelled, LABELLED, 0, over
  item = source(*streamed, (Beside.unlabelled(split, len(split)),))
  broken = Broken.__new__(Broken)
  vars(broken).update(vars(item))

  def train(task, item, name):
    return fit(task, item, recipe, tmp_path / name, 0, 6)

  plain = train(task, item, 'plain')
  with pytest.raises(KeyboardInterrupt):
    train(keeping, broken, 'kept')
  assert list(snapshots.read(tmp_path / 'kept')) == [2]
  jax.tree.map(np.testing.assert_array_equal, train(keeping, item, 'kept'), plain)
  kept = snapshots.read(tmp_path / 'kept')
  assert list(kept) == [2, 4, 6] and not (tmp_path / 'plain' / snapshots.FOLDER).exists()
  assert all(set(arrays) == {'indices', 'pseudo_masks'} for arrays in kept.values())
  assert not np.array_equal(kept[2]['pseudo_masks'], kept[6]['pseudo_masks'])


def test_unconfident_pixels_teach_nothing(make_task, start, run):
  """Nothing is certain to a fresh teacher, so that its student's gradient is that of the masks."""
  tasks = [make_task(confidence=1.0, confident=way) for way in ('pixels', 'share')]
  tasks.append(make_task(weight=0.0))
  ends = [run(task, start(task))[0].extra.params for task in tasks]
  for end in ends[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ends[0], end)


def test_the_unet_of_the_teacher_is_in_inference(make_task, start, split):
  """Its own batch would be other statistics than those that the student's batches move."""
  task = make_task()
  first = start(task)
  variables = {'params': first.params, 'batch_stats': first.batch_stats}
  views = task.step.consistency.views(
    jax.random.key(0),
    variables,
    Batch(split.images, split.masks, split.labels, np.arange(8, dtype=np.int32)),
    (),
    0,
  )
  plain = (split.images / np.float32(255) - 0.5) / 0.25
  unet = segmentation_unet(Config().model).clone(width=4, axis_name=None)
  says = jax.nn.sigmoid(infer(unet, variables, plain))
  close = np.abs(views.targets - says) < 1e-5
  assert close.mean() > 0.3


def test_a_teacher_that_is_given_stays_as_it_is(make_task, start, run, split):
  """And is what the student agrees with: here one that calls everything lesion."""
  own = start(make_task())
  teacher = {'params': dict(own.params), 'batch_stats': own.batch_stats}
  head = teacher['params']['head']
  teacher['params']['head'] = {**head, 'bias': np.full_like(head['bias'], 20)}
  task = make_task(teacher=teacher)
  first = start(task)
  last, history = run(task, first, steps=STEPS)
  jax.tree.map(np.testing.assert_array_equal, last.extra.teacher, teacher)
  # Half of the images are labelled as well, and otherwise.
  assert history[-1]['consistency_loss'] < 0.8 * history[0]['consistency_loss']
  unet = task.step.unet.clone(axis_name=None)
  dark = (split.images[:2] / np.float32(255) - 0.5) / 0.25  # Without a lesion, and not labelled.
  variables = {'params': last.extra.params, 'batch_stats': last.extra.batch_stats}
  assert jax.nn.sigmoid(infer(unet, variables, dark)).mean() > 0.6


def test_views_of_unimatch(make_task, start, split):
  """Two of each image with boxes and colours of their own, and one as the teacher's, of which half
  of the channels are dropped.
  """
  task = make_task(views=2, feature_dropout=0.5, targets='hard')
  first, count = start(task), len(split)
  teacher = {'params': first.params, 'batch_stats': first.batch_stats}
  batch = Batch(split.images, split.masks, split.labels, np.arange(count, dtype=np.int32))
  step = task.step.consistency
  still = dataclasses.replace(step.config, augment=AugmentConfig(flip=False, scale=0.0))
  step = dataclasses.replace(step, config=still)
  views = step.views(jax.random.key(0), teacher, batch, (), 0)
  assert views.images.shape == (3 * count, 16, 16, 3)
  one, other, plain = np.split(np.asarray(views.images), 3)
  assert np.abs(one - other).max((1, 2, 3)).min() > 0.01
  says = jax.nn.sigmoid(infer(step.unet.clone(axis_name=None), teacher, plain))
  np.testing.assert_array_equal(views.targets[-count:], says >= 0.5)
  assert [scale.shape for scale in views.scales] == [(3 * count, 4), (3 * count, 8)]
  for scale in views.scales:
    assert (scale[:-count] == 1).all()
    assert set(np.unique(scale[-count:])) == {0, 2}


def test_unimatch_learns(make_task, start, run):
  task = make_task(views=2, feature_dropout=0.5, targets='hard', confidence=0.6)
  _, history = run(task, start(task), steps=STEPS)
  assert history[-1]['cross_entropy'] < 0.7 * history[0]['cross_entropy']
  assert history[-1]['consistency_loss'] < history[0]['consistency_loss']


HIDING = {'strategy': 'ahm', 'patch_size': 4, 'warmup': 0.0, 'mask_ratio': 0.5}


@pytest.fixture(scope='module')
def hiding(make_task):
  """hiding(**fields of `unlabelled`): a task in which an agent hides patches of the student's."""

  def make(masking=HIDING, **fields):
    return make_task(masking=MaskingConfig(**masking), cutmix=0.0, **fields)

  return make


def of_one_device(function, *arguments):
  """Under an axis of devices, of which there is one."""
  arguments = jax.tree.map(lambda x: jnp.asarray(x)[None], arguments)
  found = jax.vmap(function, axis_name=DEVICES)(*arguments)
  return jax.tree.map(lambda x: x[0], found)


@pytest.mark.parametrize('hide', ['grey', 'partner'])
def test_patches_are_hidden_in_grey_or_under_the_partner_s(hiding, start, split, hide):
  task = hiding(hide=hide)
  step, first = task.step.consistency, start(task)
  teacher = {'params': first.params, 'batch_stats': first.batch_stats}
  batch = Batch(split.images, split.masks, split.labels, np.arange(8, dtype=np.int32))

  def view(masker):
    return step.views(jax.random.key(0), teacher, batch, masker, 1)

  views = of_one_device(view, first.extra.strategy)
  hidden = np.asarray(to_pixels(views.proposal.hidden.reshape(8, 4, 4), 4)) > 0
  assert 0.3 < hidden.mean() < 0.7
  plain = (split.images / np.float32(255) - 0.5) / 0.25
  says = np.asarray(jax.nn.sigmoid(infer(step.unet.clone(axis_name=None), teacher, plain)))
  under = cutmix.partners(plain) if hide == 'partner' else 0 * plain
  others = cutmix.partners(says) if hide == 'partner' else says
  where = hidden[..., None]
  np.testing.assert_allclose(views.images, np.where(where, under, plain), atol=1e-6)
  np.testing.assert_allclose(views.unmasked, plain, atol=1e-6)
  np.testing.assert_allclose(views.targets, np.where(where, others, says), atol=1e-5)


def test_the_agent_learns_in_every_step_and_no_network_learns_for_it(hiding, start, run):
  """By the reward that asks most of the step; what each reward teaches is below."""
  task = hiding(hide='grey', reward='progress', confidence=0.6)
  first = start(task)
  last, (metrics,) = run(task, first)
  before, after = first.extra.strategy.params, last.extra.strategy.params
  changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
  assert all(jax.tree.leaves(changed))
  assert metrics['entropy'] > 0
  # The student's gradient is what it would be, were nobody to learn from what is hidden.
  plain = hiding({**HIDING, 'learning_rate': 0.0}, hide='grey', reward='progress', confidence=0.6)
  other, _ = run(plain, start(plain))
  jax.tree.map(np.testing.assert_array_equal, last.extra.params, other.extra.params)


@pytest.mark.parametrize('mask_classes', [(), ('one', 'two')])
def test_four_devices_equal_one(make_task, start, run, assert_close, mask_classes):
  """Where images change at random, exchange boxes, and some are not trusted."""
  task = make_task(augment=True, agreement=0.6, mask_classes=mask_classes)
  first, _ = run(task, start(task), steps=30)  # A fresh teacher always agrees, or never.
  (one, history), (four, others) = (run(task, first, devices) for devices in (1, 4))
  assert 0 < history[0]['trusted_share'] < 1
  assert_close(history, others)
  assert_close((one.batch_stats, one.opt_state), (four.batch_stats, four.opt_state))


def test_four_devices_equal_one_where_an_agent_hides(hiding, start, run, assert_close):
  """Where images change at random, and an agent hides patches of them."""
  task = hiding(hide='partner', augment=True)
  first = start(task)
  (one, history), (four, others) = (run(task, first, devices) for devices in (1, 4))
  assert_close(history, others)
  assert_close((one.batch_stats, one.opt_state), (four.batch_stats, four.opt_state))
  assert_close(one.extra.strategy.batch_stats, four.extra.strategy.batch_stats)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    one.extra.strategy.params,
    four.extra.strategy.params,
  )


@pytest.mark.parametrize(
  ('reward', 'polarity', 'expected'),
  [
    ('loss', 'hard', 'wrong'),
    ('loss', 'easy', 'right'),
    ('confident', 'hard', 'wrong and confident'),
    ('progress', 'hard', 'right'),
  ],
)
def test_a_planted_reward_is_learnt(hiding, start, reward, polarity, expected):
  """The student is wrong in the patches of the left half, and the teacher confident in those of
  the upper half; on the same images the teacher is as wrong anywhere.
  """
  task = hiding({**HIDING, 'learning_rate': 1e-2, 'polarity': polarity}, hide='grey', reward=reward)
  step, masker = task.step.consistency, start(task).extra.strategy
  left, upper = np.zeros((8, 16, 16, 1), np.float32), np.zeros((8, 16, 16), np.float32)
  left[:, :, :8], upper[:, :8] = 1, 1
  images = (np.concatenate([left, upper[..., None], 0 * left], -1) - 0.5) / 0.25
  logits = np.where(left > 0, np.float32(-2), np.float32(2))  # Where 1 is to be said.

  class Flat:
    def apply(self, variables, images, train):
      assert variables == {} and not train
      return jnp.zeros((*images.shape[:-1], 1))

  step = dataclasses.replace(step, unet=Flat())
  positions = np.arange(8, dtype=np.int32)

  def advance(masker, key):
    proposal = step.hiding.propose(masker, key, positions, images, left[..., 0], 1)
    views = consistency.Views(
      images, 0 * logits + 0.9, 0 * upper + 1, upper, unmasked=images, proposal=proposal
    )
    return step.learn(masker, views, logits, {}, 1)[0]

  advance = jax.jit(functools.partial(of_one_device, advance))
  for key in jax.random.split(jax.random.key(1), 60):
    masker = advance(masker, key)
  strategy = step.hiding.networks.strategy
  p = strategy.propose(masker, images, jax.random.key(0), 1.0, False).probability[0]
  wrong = np.zeros((4, 4), bool)
  wrong[:, :2] = True
  confident = np.zeros((4, 4), bool)
  confident[:2] = True
  where = {'wrong': wrong, 'right': ~wrong, 'wrong and confident': wrong & confident}[expected]
  assert p[where].mean() > p[~where].mean() + 0.3
