"""What a predicted mask measures: the numbers of its row in the table.

Confidence is that of Borges et al. 2024 (arXiv 2402.10665), soft Dice: 2 sum(p m) / (sum(p) +
sum(m)) over all pixels, of probabilities p and mask m. It is close to the Dice that the network
itself expects: 1 where it is sure of every pixel, and low where much probability lies outside of
the mask, or little within. Where nothing was found it is 1 - max(p).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ahm_jax.evaluation.masks import at_own_size

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
    own class; 'confidence' in [0, 1], see above, with classes the mean over those found. With
    classes also the area and the probability of each one, 'area_px_NAME' and so on. What is not
    known is ''.
  """
  binary = probabilities.ndim == 2
  classes = [
    _measured(_plane(probabilities, k, mask.shape), mask == k)
    for k in range(1, len(class_names) + 1)
  ]
  area = sum(single.size for single in classes)
  largest = max(range(len(classes)), key=lambda k: classes[k].size)  # The first of equals.
  soft = [single.soft_dice for single in classes if single.soft_dice is not None]
  row = {
    **_areas(area, mask.size, spacing),
    'class': class_names[largest] if area else BACKGROUND,
    'probability': _rounded(sum(single.mean * single.size for single in classes) / area)
    if area
    else '',
    'confidence': _rounded(
      float(np.mean(soft)) if soft else 1 - _highest(probabilities, classes, mask.shape)
    ),
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
  soft_dice: float | None  # See above; None where there are none.
  highest: float  # Probability, anywhere.


def _measured(probability: np.ndarray, inside: np.ndarray) -> _Measured:
  size, highest = int(inside.sum()), float(probability.max())
  if not size:
    return _Measured(0, 0.0, None, highest)
  within, total = (float(x.sum(dtype=float)) for x in (probability[inside], probability))
  return _Measured(size, within / size, 2 * within / (total + size), highest)


def _plane(probabilities: np.ndarray, k: int, shape: tuple[int, int]) -> np.ndarray:
  """Probability of class k, from 1, at the image's own size; of 0 with classes, of background."""
  binary = probabilities.ndim == 2
  return at_own_size(
    probabilities if binary else np.ascontiguousarray(probabilities[..., k]), shape
  )


def _highest(
  probabilities: np.ndarray, classes: Sequence[_Measured], shape: tuple[int, int]
) -> float:
  """Where nothing was found, the highest probability of something."""
  if probabilities.ndim == 2:
    return classes[0].highest
  return 1 - float(_plane(probabilities, 0, shape).min())


def _areas(
  size: int, pixels: int, spacing: tuple[float, float] | None
) -> dict[str, str | int | float]:
  millimetres = '' if spacing is None else _rounded(size * spacing[0] * spacing[1])
  return {'area_px': size, 'area_mm2': millimetres, 'area_share': _rounded(size / pixels)}


def _rounded(number: float) -> float:
  return round(number, 6)
