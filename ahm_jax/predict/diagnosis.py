"""A trained classifier that goes with a segmenter: the diagnosis of each image from what was found
in it.
"""

import operator

import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.pipeline.setup import PICTURE
from ahm_jax.runs.trained import Trained
from ahm_jax.training import classify


def check_together(classifier: Trained, segmenter: Trained, flag: str = '--classifier') -> None:
  """Raises a UserError where the two see images in different ways.

  Args:
    flag: that named the classifier, for messages.
  """
  for name in PICTURE:
    own, other = (operator.attrgetter(name)(each.config) for each in (classifier, segmenter))
    if own != other:
      raise UserError(
        f'{flag}={classifier.path} was trained with config.{name}={own}, and '
        f'{segmenter.path} with {other}; give two that were trained alike'
      )
  own, other = (each.config.data.modality_dropout for each in (classifier, segmenter))
  if other and not own:
    raise UserError(
      f'{flag}={classifier.path} was trained without config.data.modality_dropout, and '
      f'{segmenter.path} with {other}, so that cases may lack modalities; give two that were '
      'trained alike'
    )


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
