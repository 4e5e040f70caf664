"""What a predicted mask measures: the numbers of its row in the table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ahm_jax.evaluation.confidence import in_mask, joined, plane

BACKGROUND = 'background'  # The class of an image in which nothing was found.


def columns(mask_classes: Sequence[str]) -> list[str]:
  """The names of all that `measure` gives, in order."""
  single = [
    f'{name}_{item}'
    for item in mask_classes
    for name in ('area_px', 'area_mm2', 'area_share', 'probability')
  ]
  return ['area_px', 'area_mm2', 'area_share', 'class', 'probability', 'confidence', *single]


def measure(
  probabilities: np.ndarray,
  mask: np.ndarray,
  spacing: tuple[float, float] | None,
  class_names: Sequence[str],
) -> dict[str, str | int | float]:
  """Measures a mask at the image's own resolution.

  Args:
    probabilities: float32 [S, S], or with K classes [S, S, K + 1], as `masks.predicted_mask`
      takes them.
    mask: what that gave: bool [h, w], or with classes uint8 [h, w].
    spacing: mm from a pixel to the next, down and across; None: unknown.
    class_names: of the K classes, or of the one of binary masks.

  Returns:
    'area_px', pixels of all classes but background; 'area_share', their share of the image;
    'area_mm2', where spacing is known. 'class', the one with the largest area, BACKGROUND where
    there is none; 'probability', where there is a mask, the mean over it of that of each pixel's
    own class; 'confidence' in [0, 1], see `evaluation.confidence`. With
    classes also the area and the probability of each one, 'area_px_NAME' and so on. What is not
    known is ''.
  """
  binary = probabilities.ndim == 2
  classes = [
    _measured(plane(probabilities, k, mask.shape), mask == k)
    for k in range(1, len(class_names) + 1)
  ]
  area = sum(single.size for single in classes)
  largest = max(range(len(classes)), key=lambda k: classes[k].size)  # The first of equals.
  row = {
    **_areas(area, mask.size, spacing),
    'class': class_names[largest] if area else BACKGROUND,
    'probability': _rounded(sum(single.mean * single.size for single in classes) / area)
    if area
    else '',
    'confidence': _rounded(joined([c.confidence for c in classes], probabilities, mask.shape)),
  }
  for name, single in zip(() if binary else class_names, classes, strict=not binary):
    own = {
      **_areas(single.size, mask.size, spacing),
      'probability': _rounded(single.mean) if single.size else '',
    }
    row |= {f'{key}_{name}': value for key, value in own.items()}
  return row


class _Measured(NamedTuple):
  """Of one class."""

  size: int  # Its pixels.
  mean: float  # Probability, over these; 0 where there are none.
  confidence: float | None  # None where there are none.


def _measured(probability: np.ndarray, inside: np.ndarray) -> _Measured:
  size = int(inside.sum())
  mean = float(probability[inside].mean(dtype=float)) if size else 0.0
  return _Measured(size, mean, in_mask(probability, inside))


def _areas(
  size: int, pixels: int, spacing: tuple[float, float] | None
) -> dict[str, str | int | float]:
  millimetres = '' if spacing is None else _rounded(size * spacing[0] * spacing[1])
  return {'area_px': size, 'area_mm2': millimetres, 'area_share': _rounded(size / pixels)}


def _rounded(number: float) -> float:
  return round(number, 6)
