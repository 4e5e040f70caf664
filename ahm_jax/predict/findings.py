"""What is found in an image whose windows were all computed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.evaluation.masks import at_own_size, predicted_mask
from ahm_jax.predict import measures
from ahm_jax.predict.options import Predictor
from ahm_jax.predict.reading import Slice


class Findings(NamedTuple):
  """Of an image of h x w pixels."""

  # float32 [h, w]; with K classes [S, S, K + 1], for at their own size they would take much memory.
  probabilities: np.ndarray
  mask: np.ndarray  # bool [h, w]; with classes uint8 [h, w], 0 for background.
  measured: dict[str, Any]  # As `measures.measure` has it, and the diagnosis, by column.


def concluded(item: Slice, predictor: Predictor) -> Findings:
  """What is found in a slice."""
  probabilities = item.view.result()
  if probabilities.ndim == 2:
    probabilities = at_own_size(probabilities, item.size)
  mask = predicted_mask(probabilities, item.size, predictor.options.threshold)
  names = predictor.segmenter.lesion_names
  measured = measures.measure(probabilities, mask, item.spacing, names)
  if item.diagnosis is not None:
    measured |= _diagnosed(item.diagnosis, predictor.class_names)
  return Findings(probabilities, mask, measured)


def _diagnosed(probabilities: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
  """The columns that a diagnosis adds or changes, of the probability of each of its classes."""
  return {
    'class': names[int(probabilities.argmax())],
    'class_probability': round(float(probabilities.max()), 6),
    **{
      f'class_probability_{name}': round(float(probability), 6)
      for name, probability in zip(names, probabilities, strict=True)
    },
  }


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """An image, uint8 [h, w, 3], with the border of its mask; with classes each in its colour and
  pattern.
  """
  from ahm_jax.report import class_pictures, pictures  # Here, since it imports Matplotlib.

  if mask.dtype != bool:
    return class_pictures.class_overlay(image, mask)
  picture = image.copy()
  pictures.draw_border(picture, mask, pictures.PREDICTION_COLOUR, 1)
  return picture
