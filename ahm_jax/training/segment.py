"""Segmentation: the U-Net, from scratch or pre-trained, learns masks from a few labelled images.

Without classes it has one output, the logit of lesion; with K classes it has K + 1, of background
first. Whatever else differs between the two follows from that number.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ahm_jax.config import SEGMENT, AugmentConfig, Config
from ahm_jax.data.augment import augment_batch, normalise
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation.flips import with_flips
from ahm_jax.masking.networks import Networks
from ahm_jax.models.build import agent, segmentation_unet
from ahm_jax.models.layers import infer, init_variables
from ahm_jax.models.unet import UNet
from ahm_jax.runtime import averages
from ahm_jax.runtime.batching import in_batches
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.runtime.trees import replaced
from ahm_jax.task import Batch, Task, TrainState
from ahm_jax.training import soft_losses
from ahm_jax.training.consistency import Consistency, Views
from ahm_jax.training.hiding import Hiding
from ahm_jax.training.multiclass import augment_classes, class_dice, class_losses
from ahm_jax.training.optimizers import Optimizer, descend, first_state, optimizer

# The U-Net's last layer: it has other outputs in pre-training, and always starts afresh.
HEAD = 'head'


def build(
  config: Config,
  validation: Split,
  steps: int,
  steps_per_epoch: float,
  pretrained: Any = None,
  foreign: Any = None,
) -> Task:
  """The segmentation task.

  Args:
    validation: held-out images, all with a mask; the score is their mean Dice at the size the
      network sees, with classes see `class_dice`.
    steps: length of the whole training, which the learning rate schedule runs over.
    steps_per_epoch: batches in one pass over the labelled images.
    pretrained: parameters of a pre-trained U-Net, or None. All but the head are taken over; batch
      statistics start afresh, since those of masked images are not those of whole ones.
    foreign: variables of a U-Net that was trained elsewhere, or some of them, or None. All are
      taken, batch statistics too.
  """
  training = config.segment
  mask_classes = config.data.mask_classes
  unet = segmentation_unet(config.model, len(mask_classes))
  from_scratch = pretrained is None and foreign is None
  step = SegmentStep(
    unet,
    optimizer(training, steps, steps_per_epoch),
    training.augment,
    encoder_rate=1.0 if from_scratch else config.transfer.encoder_rate,
    ema_decay=training.ema_decay,
    consistency=_consistency(config, unet, steps),
  )

  def init(key):
    shape = 1, config.data.image_size, config.data.image_size, config.data.channels
    variables = init_variables(unet, key, shape)
    if foreign is not None:
      variables = replaced(variables, foreign)
    if pretrained is not None:
      variables = {**variables, 'params': transfer(pretrained, variables['params'])}
    return step.first_state(variables, key, shape)

  def evaluate(state):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    batch_size = config.evaluate.batch_size
    if mask_classes:
      found = predict_classes(unet, variables, validation.images, batch_size)
      return class_dice(found, validation.masks, mask_classes)
    predicted = predict(unet, variables, validation.images, batch_size) >= config.evaluate.threshold
    dice = mean_dice(predicted, validation.masks.astype(bool))
    return {'dice': dice, 'score': dice}

  return Task(
    name=SEGMENT,
    init=init,
    step=step,
    evaluate=evaluate,
    keep_best=True,
    shown='dice',
  )


def _consistency(config: Config, unet: UNet, steps: int) -> Consistency | None:
  unlabelled = config.segment.unlabelled
  if not unlabelled.batch_size:
    return None
  hiding = None
  if unlabelled.hide:
    masking = unlabelled.masking
    networks = Networks(unet, agent(config.model, masking), masking)
    hiding = Hiding(networks, unlabelled.hide, unlabelled.reward, steps)
  return Consistency(unet, unlabelled, steps, hiding)


def mean_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
  """Mean over images of the Dice of masks, bool [N, S, S]; images where both are empty are left
  out, and it is 0 where there are no others.
  """
  overlap = (predicted & truth).sum((1, 2))
  total = predicted.sum((1, 2)) + truth.sum((1, 2))
  scored = total > 0
  return float(np.mean(2 * overlap[scored] / total[scored])) if scored.any() else 0.0


def transfer(pretrained: Any, fresh: Any) -> Any:
  """The fresh parameters with all but the head replaced by the pre-trained ones.

  Raises:
    UserError: the two U-Nets differ in width or in input channels.
  """
  body = {name: value for name, value in pretrained.items() if name != HEAD}
  if jax.tree.map(jnp.shape, body) != jax.tree.map(
    jnp.shape, {name: fresh[name] for name in fresh if name != HEAD}
  ):
    raise UserError(
      'config.init_from holds a U-Net of another shape; '
      'give both runs the same config.model.unet_width and config.data.channels'
    )
  return {**fresh, **body}


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
  consistency: Consistency | None = None  # The batch ends with its unlabelled images then.

  def transformation(self) -> optax.GradientTransformation:
    tx = self.optimizer.transformation()
    return slower_encoder(tx, self.encoder_rate) if self.encoder_rate < 1 else tx

  def first_state(
    self, variables: Mapping[str, Any], key: jax.Array, shape: tuple[int, ...]
  ) -> TrainState:
    """That before the first step, of the U-Net's fresh variables, for images of `shape`
    [1, S, S, C].
    """
    state = first_state(self.transformation(), variables)
    if not self.ema_decay:
      return state
    student = Student(*averages.copied((state.params, state.batch_stats)))
    if self.consistency and self.consistency.hiding:
      first = self.consistency.hiding.init(jax.random.fold_in(key, 1), shape, variables)
      student = student._replace(strategy=first)
    return state._replace(extra=student)

  def __call__(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    student = state.extra if self.ema_decay else Student(state.params, state.batch_stats)
    labelled, unlabelled = self._divided(batch)
    images, masks = _augment(key, labelled, self.augment, self.unet.out_channels)
    images, views = normalise(images), None
    teacher = {'params': state.params, 'batch_stats': state.batch_stats}
    if self.consistency:
      views_key = jax.random.split(key)[1]
      views = self.consistency.views(views_key, teacher, unlabelled, student.strategy, state.step)
      images = jnp.concatenate([images, views.images])

    def objective(params):
      variables = {'params': params, 'batch_stats': student.batch_stats}
      logits, updates = self.unet.apply(variables, images, train=True, mutable=['batch_stats'])
      loss, metrics = self._loss(logits, masks, views, state.step)
      return loss, (updates['batch_stats'], metrics, logits[len(masks) :])

    gradient = jax.value_and_grad(objective, has_aux=True)
    (loss, (batch_stats, metrics, logits)), gradients = gradient(student.params)
    before = state._replace(params=student.params, batch_stats=student.batch_stats)
    new = descend(self.transformation(), before, gradients, batch_stats)
    strategy = student.strategy
    if self.consistency and views:
      strategy, learnt = self.consistency.learn(strategy, views, logits, teacher, state.step)
      metrics |= learnt
    return self._averaged(state, new, strategy), lax.pmean({'loss': loss, **metrics}, DEVICES)

  def _loss(
    self, logits: jax.Array, masks: jax.Array, views: Views | None, step: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Of the student's outputs for labelled images, and for unlabelled ones behind them; its
    parts.
    """
    cross_entropy, dice = _losses(logits[: len(masks)], masks)
    loss, parts = cross_entropy + dice, {'cross_entropy': cross_entropy, 'dice_loss': dice}
    if self.consistency and views:
      agreement, metrics = self.consistency.loss(logits[len(masks) :], views, step)
      return loss + agreement, parts | metrics
    return loss, parts

  def _divided(self, batch: Batch) -> tuple[Batch, Batch]:
    """A device's labelled images, and its unlabelled ones."""
    count = self.consistency.config.batch_size // lax.axis_size(DEVICES) if self.consistency else 0
    first = len(batch.images) - count
    return Batch(*(x[:first] for x in batch)), Batch(*(x[first:] for x in batch))

  def _averaged(self, state: TrainState, new: TrainState, strategy: Any) -> TrainState:
    """`new`, a trained student, as the next state."""
    if not self.ema_decay:
      return new
    own, student = (state.params, state.batch_stats), (new.params, new.batch_stats)
    params, batch_stats = averages.moved(own, student, self.ema_decay, state.step)
    return new._replace(params=params, batch_stats=batch_stats, extra=Student(*student, strategy))


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


def predict(
  unet: UNet, variables: Any, images: np.ndarray, batch_size: int, flips: bool = False
) -> np.ndarray:
  """The `probabilities` of uint8 images [N, S, S, C]: float32 [N, S, S], or with classes
  [N, S, S, K + 1].

  Args:
    flips: average over four poses, see `with_flips`.
  """
  return in_batches(functools.partial(_compiled, unet, flips, variables), images, batch_size)


def probabilities(unet: UNet, variables: Any, images: jax.Array) -> jax.Array:
  """Of one batch of uint8 images [B, S, S, C]: probabilities of lesion, float32 [B, S, S]; with
  classes, which sum to 1, [B, S, S, K + 1]. Pure.
  """
  p = soft_losses.probabilities(infer(unet, variables, normalise(images / 255.0)))
  return p[..., 0] if unet.out_channels == 1 else p


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(unet: UNet, flips: bool, variables: Any, images: jax.Array) -> jax.Array:
  of = functools.partial(probabilities, unet)
  return (with_flips(of) if flips else of)(variables, images)


def predict_classes(
  unet: UNet, variables: Any, images: np.ndarray, batch_size: int, flips: bool = False
) -> np.ndarray:
  """The most probable class of every pixel, 0 for background: uint8 [N, S, S], of uint8 images
  [N, S, S, C].
  """
  run = functools.partial(_most_probable, unet, flips, variables)
  return in_batches(run, images, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _most_probable(unet: UNet, flips: bool, variables: Any, images: jax.Array) -> jax.Array:
  return _compiled(unet, flips, variables, images).argmax(-1).astype(jnp.uint8)
