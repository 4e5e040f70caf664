"""The pure step of a segmentation, and its losses against masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import AugmentConfig
from ahm_jax.data.augment import augment_batch, normalise
from ahm_jax.models.unet import DIAGNOSIS, UNet
from ahm_jax.runtime import averages
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch, TrainState
from ahm_jax.training.consistency import Consistency
from ahm_jax.training.diagnosis import Diagnosing
from ahm_jax.training.multiclass import augment_classes, class_losses
from ahm_jax.training.optimizers import Optimizer, descend, first_state
from ahm_jax.training.reconstruction import Reconstructing

# What no labelled image has as its position, from which its key is made.
_UNLABELLED, _RECONSTRUCTED = 2**32 - 1, 2**32 - 2


def slower_encoder(tx: optax.GradientTransformation, rate: float) -> optax.GradientTransformation:
  """`tx` with the updates of the U-Net's encoder multiplied by `rate`, as a lower learning rate
  does.
  """

  def slow(updates, params):
    del params
    return {
      name: jax.tree.map(lambda x: rate * x, part) if name.startswith('encoder') else part
      for name, part in updates.items()
    }

  return optax.chain(tx, optax.stateless(slow))


class Student(NamedTuple):
  """The network that is trained, where a moving average of it is what a state holds as its own."""

  params: Any
  batch_stats: Any
  strategy: Any = ()  # State of the strategy that hides patches of unlabelled images.
  teacher: Any = ()  # Variables of a teacher that is no average of the student.
  masking: Any = ()  # State of the strategy that masks images for a reconstruction.


@dataclass(frozen=True)
class SegmentStep:
  """The pure segmentation step over one device's share of the batch.

  It runs under an axis of devices named DEVICES. A state's own parameters and batch statistics are
  what is validated and kept: with `ema_decay`, the average of the Student in its `extra`.
  """

  unet: UNet
  optimizer: Optimizer
  augment: AugmentConfig
  encoder_rate: float = 1.0  # Learning rate of the encoder, as a share of the other layers'.
  ema_decay: float = 0.0
  diagnosing: Diagnosing | None = None  # Images with a label follow those with a mask then,
  reconstructing: Reconstructing | None = None  # and those that are reconstructed follow these.
  consistency: Consistency | None = None  # The batch ends with its unlabelled images then.

  def transformation(self) -> optax.GradientTransformation:
    tx = self.optimizer.transformation()
    return slower_encoder(tx, self.encoder_rate) if self.encoder_rate < 1 else tx

  def first_state(
    self, variables: Mapping[str, Any], key: jax.Array, shape: tuple[int, ...], teacher: Any = None
  ) -> TrainState:
    """That before the first step.

    Args:
      variables: the U-Net's fresh ones.
      shape: of an image, [1, S, S, C].
      teacher: variables of one that is no average of the student.
    """
    state = first_state(self.transformation(), variables)
    if not self._keeps_student:
      return state
    student = Student(*averages.copied((state.params, state.batch_stats)))
    if self.consistency and self.consistency.hiding:
      first = self.consistency.hiding.init(jax.random.fold_in(key, 1), shape, variables)
      student = student._replace(strategy=first)
    if self.reconstructing:
      first = self.reconstructing.hiding.init(jax.random.fold_in(key, 2), shape, variables)
      student = student._replace(masking=first)
    if teacher is not None:
      student = student._replace(teacher=averages.copied(teacher))
    return state._replace(extra=student)

  def __call__(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    student = state.extra if self._keeps_student else Student(state.params, state.batch_stats)
    labelled, repaired, unlabelled = self._divided(batch)
    images, masks = _augment(key, labelled, self.augment, self.unet.out_channels)
    images, views, scales = normalise(images), None, None
    teacher = student.teacher or {'params': state.params, 'batch_stats': state.batch_stats}
    if self.consistency:
      views_key = jax.random.fold_in(key, _UNLABELLED)
      views = self.consistency.views(views_key, teacher, unlabelled, student.strategy, state.step)
      images = jnp.concatenate([images, views.images])
      scales = [jnp.pad(x, [(len(masks), 0), (0, 0)], constant_values=1) for x in views.scales]
    blocks, masked = (DIAGNOSIS,) if self.diagnosing else (), None
    if self.reconstructing:
      masked_key = jax.random.fold_in(key, _RECONSTRUCTED)
      masked = self.reconstructing.masked(masked_key, repaired, student.masking, state.step)

    def objective(params):
      variables = {'params': params, 'batch_stats': student.batch_stats}
      output, updates = self.unet.apply(
        variables, images, True, scales or None, blocks, mutable=['batch_stats']
      )
      logits, found = output if blocks else (output, {})
      loss, metrics = self._mask_loss(logits, masks)
      if self.diagnosing:
        diagnoses = found[DIAGNOSIS][: len(masks)]
        diagnosis_loss, parts = self.diagnosing.loss(diagnoses, labelled.labels)
        loss, metrics = self.diagnosing.joined(loss, diagnosis_loss, params), metrics | parts
      logits = logits[len(masks) :]
      if self.consistency and views:
        consistency_loss, parts = self.consistency.loss(logits, views, state.step)
        loss, metrics = loss + consistency_loss, metrics | parts
      patches = None
      if self.reconstructing and masked:
        added, (parts, patches) = self.reconstructing.loss(params, student.batch_stats, masked)
        loss, metrics = loss + added, metrics | parts
      return loss, (updates['batch_stats'], metrics, logits, patches)

    gradient = jax.value_and_grad(objective, has_aux=True)
    (loss, (batch_stats, metrics, logits, patches)), gradients = gradient(student.params)
    before = state._replace(params=student.params, batch_stats=student.batch_stats)
    new = descend(self.transformation(), before, gradients, batch_stats)
    student = student._replace(params=new.params, batch_stats=new.batch_stats)
    if self.consistency and views:
      strategy, learnt = self.consistency.learn(
        student.strategy, views, logits, teacher, state.step
      )
      student, metrics = student._replace(strategy=strategy), metrics | learnt
    if self.reconstructing and masked:
      variables = {'params': new.params, 'batch_stats': new.batch_stats}
      strategy, learnt = self.reconstructing.learn(
        student.masking, masked, patches, variables, state.step
      )
      student, metrics = student._replace(masking=strategy), metrics | learnt
    return self._averaged(state, new, student), lax.pmean({'loss': loss, **metrics}, DEVICES)

  def _mask_loss(
    self, logits: jax.Array, masks: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of the outputs for images with a mask, which come first; its parts."""
    count = len(masks) - self._share(self.diagnosing)
    cross_entropy, dice = _losses(logits[:count], masks[:count])
    return cross_entropy + dice, {'cross_entropy': cross_entropy, 'dice_loss': dice}

  def _divided(self, batch: Batch) -> tuple[Batch, Batch, Batch]:
    """A device's images with a mask or a label, those to reconstruct, and the unlabelled ones."""
    second = len(batch.images) - self._share(self.consistency)
    first = second - self._share(self.reconstructing)
    bounds = slice(first), slice(first, second), slice(second, None)
    labelled, repaired, unlabelled = (Batch(*(x[part] for x in batch)) for part in bounds)
    return labelled, repaired, unlabelled

  @property
  def _keeps_student(self) -> bool:
    """Whether the state's `extra` holds one."""
    return self.ema_decay > 0 or self.reconstructing is not None

  def _share(self, part: Diagnosing | Reconstructing | Consistency | None) -> int:
    """Of the images that a part of the loss adds to a batch, how many a device has."""
    return part.config.batch_size // lax.axis_size(DEVICES) if part else 0

  def _averaged(self, state: TrainState, new: TrainState, student: Student) -> TrainState:
    """`new`, which the student's parameters are in, as the next state."""
    if not self._keeps_student:
      return new
    own, trained = (state.params, state.batch_stats), (new.params, new.batch_stats)
    params, batch_stats = averages.moved(own, trained, self.ema_decay, state.step)
    return new._replace(params=params, batch_stats=batch_stats, extra=student)


def _augment(
  key: jax.Array, batch: Batch, config: AugmentConfig, outputs: int
) -> tuple[jax.Array, jax.Array]:
  example = key, batch.images, batch.masks, batch.positions, config
  return augment_batch(*example) if outputs == 1 else augment_classes(*example, outputs)


def _losses(logits: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
  return (
    segmentation_losses(logits[..., 0], masks)
    if logits.shape[-1] == 1
    else class_losses(logits, masks)
  )


def segmentation_losses(logits: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy and soft Dice loss, under an axis of devices named DEVICES.

  Dice is that of the whole batch, 1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1), its counts summed
  over the devices: a mean of the devices' Dice would be another number. Cross-entropy is this
  device's mean over pixels.

  Args:
    logits, masks: [b, H, W]; masks in {0, 1}.
  """
  cross_entropy = optax.sigmoid_binary_cross_entropy(logits, masks).mean()
  probabilities = jax.nn.sigmoid(logits)
  overlap, total = lax.psum(
    ((probabilities * masks).sum(), probabilities.sum() + masks.sum()), DEVICES
  )
  return cross_entropy, 1 - (2 * overlap + 1) / (total + 1)
