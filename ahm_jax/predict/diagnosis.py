"""A trained classifier that goes with a segmenter: the diagnosis of each image from what was found
in it.
"""

from pathlib import Path

import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.runs.trained import Trained, load
from ahm_jax.training import classify


def load_classifier(path: Path, segmenter: Trained) -> Trained:
  """Loads a classifier.

  Args:
    path: the workdir of a classify run, or an export in Orbax's format.

  Raises:
    UserError: it holds no such network, one of images of another size than the segmenter's, or
      weights that do not fit its config.
  """
  classifier = load(path, (CLASSIFY,), '--classifier')
  for name in ('image_size', 'channels'):
    own, other = getattr(classifier, name), getattr(segmenter, name)
    if own != other:
      raise UserError(
        f'--classifier={path} was trained with config.data.{name}={own}, and {segmenter.path} with '
        f'{other}; give two that were trained alike'
      )
  return classifier


def diagnose(classifier: Trained, images: np.ndarray, lesions: np.ndarray) -> np.ndarray:
  """The probability of each of C classes, float32 [B, C], as `launch.evaluate` has them.

  Args:
    images: uint8 [B, S, S, channels].
    lesions: bool [B, S, S], where the segmenter found something at this size.
  """
  inputs = classify.inputs(images, lesions, classifier.config.classify)
  return classify.predict(classifier.network, classifier.variables, inputs, len(inputs))


def lesions(probabilities: np.ndarray, threshold: float) -> np.ndarray:
  """Where something was found, bool [B, S, S], as `ahm_jax.pipeline.lesions.find` says it."""
  return probabilities >= threshold if probabilities.ndim == 3 else probabilities.argmax(-1) > 0
