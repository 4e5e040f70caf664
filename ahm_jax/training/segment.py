"""Segmentation: the U-Net, from scratch or pre-trained, learns masks from a few labelled images.

Without classes it has one output, the logit of lesion; with K classes it has K + 1, of background
first. Whatever else differs between the two follows from that number.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.config import SEGMENT, Config, MaskingConfig
from ahm_jax.data.augment import for_data, normalise, without_dropout
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation.flips import with_flips
from ahm_jax.evaluation.metrics import classification_scores
from ahm_jax.masking.networks import Networks
from ahm_jax.models.build import agent, segmentation_unet
from ahm_jax.models.layers import infer, init_variables
from ahm_jax.models.unet import DIAGNOSIS, RECONSTRUCTION, UNet
from ahm_jax.runtime.batching import in_batches
from ahm_jax.runtime.trees import replaced
from ahm_jax.task import Task
from ahm_jax.training import soft_losses
from ahm_jax.training.consistency import Consistency
from ahm_jax.training.diagnosis import Diagnosing
from ahm_jax.training.hiding import Hiding
from ahm_jax.training.multiclass import class_dice
from ahm_jax.training.optimizers import optimizer
from ahm_jax.training.reconstruction import Reconstructing
from ahm_jax.training.segment_step import SegmentStep

# The U-Net's last layer: it has other outputs in pre-training, and always starts afresh.
HEAD = 'head'


def build(
  config: Config,
  validation: Split,
  steps: int,
  steps_per_epoch: float,
  pretrained: Any = None,
  foreign: Any = None,
  teacher: Any = None,
  diagnosing: Diagnosing | None = None,
  diagnosed: Split | None = None,
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
    teacher: variables of a U-Net that says what is in unlabelled images, or None: the moving
      average of what is trained.
    diagnosing: how a diagnosis is learnt, or None.
    diagnosed: held-out images, all with a label, that it is scored on; the score is the mean of
      Dice and AUC then.
  """
  training = config.segment
  mask_classes = config.data.mask_classes
  diagnoses = len(diagnosing.class_weights) if diagnosing else 0
  channels = config.data.depth if training.reconstruction.batch_size else 0
  unet = segmentation_unet(config.model, len(mask_classes), diagnoses, channels)
  from_scratch = pretrained is None and foreign is None
  step = SegmentStep(
    unet,
    optimizer(training, steps, steps_per_epoch),
    for_data(training.augment, config.data),
    encoder_rate=1.0 if from_scratch else config.transfer.encoder_rate,
    ema_decay=training.ema_decay,
    diagnosing=diagnosing,
    reconstructing=_reconstructing(config, unet, steps),
    consistency=_consistency(config, unet, steps),
  )

  def init(key):
    shape = 1, config.data.image_size, config.data.image_size, config.data.depth
    variables = init_variables(unet, key, shape)
    if foreign is not None:
      variables = replaced(variables, foreign)
    if pretrained is not None:
      variables = {**variables, 'params': transfer(pretrained, variables['params'])}
    return step.first_state(variables, key, shape, teacher)

  def evaluate(state):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    scores = _mask_scores(config, unet, variables, validation)
    if diagnosed is None:
      return scores
    found = predict_diagnoses(unet, variables, diagnosed.images, config.evaluate.batch_size)
    told = classification_scores(found, diagnosed.labels)
    # AUC is steadier than balanced accuracy, but unknown where all are of one class.
    second = told['auc'] if math.isfinite(told['auc']) else told['balanced_accuracy']
    return scores | told | {'score': (scores['score'] + second) / 2}

  return Task(
    name=SEGMENT,
    init=init,
    step=step,
    evaluate=evaluate,
    keep_best=True,
    shown='dice',
  )


def _reconstructing(config: Config, unet: UNet, steps: int) -> Reconstructing | None:
  recipe = config.segment.reconstruction
  if not recipe.batch_size:
    return None
  augment = without_dropout(for_data(config.segment.augment, config.data))
  hiding = _hiding(config, unet, recipe.masking, 'grey', 'loss', steps)
  return Reconstructing(recipe, augment, hiding)


def _mask_scores(config: Config, unet: UNet, variables: Any, split: Split) -> dict[str, float]:
  batch_size, mask_classes = config.evaluate.batch_size, config.data.mask_classes
  if mask_classes:
    found = predict_classes(unet, variables, split.images, batch_size)
    return class_dice(found, split.masks, mask_classes)
  predicted = predict(unet, variables, split.images, batch_size) >= config.evaluate.threshold
  dice = mean_dice(predicted, split.masks.astype(bool))
  return {'dice': dice, 'score': dice}


def _consistency(config: Config, unet: UNet, steps: int) -> Consistency | None:
  unlabelled = config.segment.unlabelled
  if not unlabelled.batch_size:
    return None
  hiding = None
  if unlabelled.hide:
    fill, reward = unlabelled.hide, unlabelled.reward
    hiding = _hiding(config, unet, unlabelled.masking, fill, reward, steps)
  augment = for_data(unlabelled.augment, config.data)
  return Consistency(unet, dataclasses.replace(unlabelled, augment=augment), steps, hiding)


def _hiding(
  config: Config, unet: UNet, masking: MaskingConfig, fill: str, reward: str, steps: int
) -> Hiding:
  return Hiding(Networks(unet, agent(config.model, masking), masking), fill, reward, steps)


def mean_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
  """Mean over images of the Dice of masks, bool [N, S, S]; images where both are empty are left
  out, and it is 0 where there are no others.
  """
  overlap = (predicted & truth).sum((1, 2))
  total = predicted.sum((1, 2)) + truth.sum((1, 2))
  scored = total > 0
  return float(np.mean(2 * overlap[scored] / total[scored])) if scored.any() else 0.0


def transfer(pretrained: Any, fresh: Any) -> Any:
  """The fresh parameters with all but the heads replaced by the pre-trained ones; a head that
  reconstructs goes on with what the pre-trained one learnt.

  Raises:
    UserError: the two U-Nets differ in width or in input channels.
  """
  heads = HEAD, DIAGNOSIS, RECONSTRUCTION
  body, own = (
    {name: value for name, value in params.items() if name not in heads}
    for params in (pretrained, fresh)
  )
  if jax.tree.map(jnp.shape, body) != jax.tree.map(jnp.shape, own):
    raise UserError(
      'config.init_from holds a U-Net of another shape; '
      'give both runs the same config.model.unet_width and config.data.channels'
    )
  goes_on = {RECONSTRUCTION: pretrained[HEAD]} if RECONSTRUCTION in fresh else {}
  return {**fresh, **body, **goes_on}


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


def predict_diagnoses(
  unet: UNet, variables: Any, images: np.ndarray, batch_size: int, flips: bool = False
) -> np.ndarray:
  """The probability of each diagnosis, float32 [N, diagnoses], of uint8 images [N, S, S, C]."""
  run = functools.partial(_diagnosed, unet, flips, variables)
  return in_batches(run, images, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _diagnosed(unet: UNet, flips: bool, variables: Any, images: jax.Array) -> jax.Array:
  of = functools.partial(with_diagnoses, unet)
  return (with_flips(of) if flips else of)(variables, images)[1]


def with_diagnoses(unet: UNet, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
  """`probabilities` of one batch, and those of its diagnoses, float32 [B, diagnoses]. Pure."""
  logits, found = infer(unet, variables, normalise(images / 255.0), blocks=(DIAGNOSIS,))
  p = soft_losses.probabilities(logits)
  return (p[..., 0] if unet.out_channels == 1 else p), jax.nn.softmax(found[DIAGNOSIS])


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
