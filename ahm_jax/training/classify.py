"""Classification: a VGG16 learns the diagnosis from what the segmentation found."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from PIL import Image

from ahm_jax.config import CLASSIFY, AugmentConfig, ClassifyConfig, Config
from ahm_jax.data.augment import augment_batch, for_data, normalise
from ahm_jax.data.dataset import Split
from ahm_jax.data.resize import squashed
from ahm_jax.evaluation.metrics import classification_scores
from ahm_jax.models.build import classifier
from ahm_jax.models.layers import infer, init_variables
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.runtime.batching import in_batches
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.runtime.trees import replaced
from ahm_jax.task import Batch, Task, TrainState
from ahm_jax.training.optimizers import Optimizer, descend, first_state, optimizer


def build(
  config: Config,
  validation: Split,
  classes: int,
  steps: int,
  steps_per_epoch: float,
  class_weights: tuple[float, ...] | None = None,
  foreign: Any = None,
) -> Task:
  """The classification task.

  Args:
    validation: held-out inputs (see `inputs`), all with a label; the score is their balanced
      accuracy.
    classes: number of classes C.
    steps, steps_per_epoch: length of the whole training, and batches in one pass, for the learning
      rate schedule.
    class_weights: of each class in the loss (see `balanced_weights`); None: 1.
    foreign: variables of a VGG16 that was trained elsewhere, or some of them, to start from; or
      None.
  """
  training = config.classifier
  vgg = classifier(config.model, classes)
  step = ClassifyStep(
    vgg,
    optimizer(training, steps, steps_per_epoch),
    for_data(training.augment, config.data),
    class_weights,
  )

  def init(key):
    side = config.data.image_size
    variables = init_variables(vgg, key, (1, side, side, config.data.depth))
    if foreign is not None:
      variables = replaced(variables, foreign)
    return first_state(step.optimizer.transformation(), variables)

  def evaluate(state):
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    found = predict(vgg, variables, validation.images, config.evaluate.batch_size)
    scores = classification_scores(found, validation.labels)
    return {**scores, 'score': scores['balanced_accuracy']}

  return Task(
    name=CLASSIFY,
    init=init,
    step=step,
    evaluate=evaluate,
    keep_best=True,
    shown='balanced_accuracy',
  )


@dataclass(frozen=True)
class ClassifyStep:
  """The pure classification step over one device's share of the batch.

  It runs under an axis of devices named DEVICES.
  """

  vgg: VGG16
  optimizer: Optimizer
  augment: AugmentConfig
  class_weights: tuple[float, ...] | None = None

  def __call__(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    augment_key, dropout_key = jax.random.split(key)
    images, _ = augment_batch(augment_key, batch.images, batch.masks, batch.positions, self.augment)
    dropout_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(dropout_key, batch.positions)

    def objective(params):
      variables = {'params': params, 'batch_stats': state.batch_stats}
      logits, updates = self.vgg.apply(
        variables, normalise(images), train=True, keys=dropout_keys, mutable=['batch_stats']
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
      if self.class_weights is not None:
        losses = losses * jnp.array(self.class_weights)[batch.labels]
      return losses.mean(), (updates.get('batch_stats', {}), logits)

    gradient = jax.value_and_grad(objective, has_aux=True)
    (loss, (batch_stats, logits)), gradients = gradient(state.params)
    new = descend(self.optimizer.transformation(), state, gradients, batch_stats)
    accuracy = (logits.argmax(-1) == batch.labels).mean()
    return new, lax.pmean({'loss': loss, 'train_accuracy': accuracy}, DEVICES)


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
  """Weights N / (C n_c) that let each of the C classes that occur count alike, and 0 for others;
  their mean over images is 1.

  Args:
    labels: int [N], each in 0..classes - 1.
  """
  counts = np.bincount(labels, minlength=classes)
  occurring = np.count_nonzero(counts)
  return tuple(float(len(labels) / (occurring * count)) if count else 0.0 for count in counts)


def predict(vgg: VGG16, variables: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
  """Class probabilities, float32 [N, C], of uint8 images [N, S, S, channels].

  Args:
    variables: {'params'} and, with norms, 'batch_stats'.
  """
  return in_batches(functools.partial(_compiled, vgg, variables), images, batch_size)


def probabilities(vgg: VGG16, variables: Any, images: jax.Array) -> jax.Array:
  """Of one batch, as `predict` has them; pure."""
  return jax.nn.softmax(infer(vgg, variables, normalise(images / 255.0)))


_compiled = functools.partial(jax.jit, static_argnums=0)(probabilities)


def inputs(images: np.ndarray, lesions: np.ndarray, config: ClassifyConfig) -> np.ndarray:
  """What the classifier sees of each image.

  Args:
    images: uint8 [N, S, S, C].
    lesions: bool [N, S, S], predicted masks; not looked at where config.input is 'image'.
    config: `input` is 'image', 'crop' (square around the lesion, with a margin, resized to S) or
      'masked' (the rest is black).

  Returns:
    uint8 [N, S, S, C]. An image in which no lesion was found is kept whole.
  """
  if config.input == 'image':
    return images
  change = _masked if config.input == 'masked' else functools.partial(_crop, margin=config.margin)
  return np.stack(
    [
      change(image, lesion) if lesion.any() else image
      for image, lesion in zip(images, lesions, strict=True)
    ]
  )


def _masked(image: np.ndarray, lesion: np.ndarray) -> np.ndarray:
  return image * lesion[..., None]


def _crop(image: np.ndarray, lesion: np.ndarray, margin: float) -> np.ndarray:
  """The smallest square around the lesion's box plus a margin on each side, moved inside the
  image where it sticks out.
  """
  size = len(image)
  rows, columns = np.flatnonzero(lesion.any(1)), np.flatnonzero(lesion.any(0))
  box = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
  side = min(size, round(box * (1 + 2 * margin)))
  top, left = (
    int(np.clip((span[0] + span[-1] + 1 - side) // 2, 0, size - side)) for span in (rows, columns)
  )
  cut = image[top : top + side, left : left + side]
  return squashed(np.ascontiguousarray(cut), size, Image.Resampling.BILINEAR)
