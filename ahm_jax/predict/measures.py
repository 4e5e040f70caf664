"""What a predicted mask measures: the numbers of its row in the table.

Confidence is that of Borges et al. 2024 (arXiv 2402.10665), soft Dice: 2 sum(p m) / (sum(p) +
sum(m)) over all pixels, of probabilities p and mask m. It is close to the Dice that the network
itself expects: 1 where it is sure of every pixel, and low where much probability lies outside of
the mask, or little within. Where nothing was found it is 1 - max(p).
"""

from collections.abc import Sequence

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
    probabilities: float32 [S, S], or with K classes [S, S, K + 1], as `evaluate.predicted_mask`
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
  sizes, means, soft, highest = [], [], [], 0.0
  for k in range(1, len(class_names) + 1):
    own = at_own_size(
      probabilities if binary else np.ascontiguousarray(probabilities[..., k]), mask.shape
    )
    inside = mask == k
    size, within, total = (
      int(inside.sum()),
      float(own[inside].sum(dtype=float)),
      float(own.sum(dtype=float)),
    )
    sizes.append(size)
    means.append(within / size if size else None)
    soft.append(2 * within / (total + size) if size else None)
    highest = max(highest, float(own.max()))
  if not binary and not any(sizes):
    highest = 1 - float(at_own_size(np.ascontiguousarray(probabilities[..., 0]), mask.shape).min())
  area = sum(sizes)
  found = [value for value in soft if value is not None]
  row = {
    **_areas(area, mask.size, spacing),
    'class': class_names[int(np.argmax(sizes))] if area else BACKGROUND,
    'probability': _rounded(
      sum(size * (mean or 0) for size, mean in zip(sizes, means, strict=True)) / area
    )
    if area
    else '',
    'confidence': _rounded(float(np.mean(found)) if found else 1 - highest),
  }
  for name, size, mean in zip(() if binary else class_names, sizes, means, strict=not binary):
    single = {
      **_areas(size, mask.size, spacing),
      'probability': '' if mean is None else _rounded(mean),
    }
    row |= {f'{key}_{name}': value for key, value in single.items()}
  return row


def _areas(
  size: int, pixels: int, spacing: tuple[float, float] | None
) -> dict[str, str | int | float]:
  millimetres = '' if spacing is None else _rounded(size * spacing[0] * spacing[1])
  return {'area_px': size, 'area_mm2': millimetres, 'area_share': _rounded(size / pixels)}


def _rounded(number: float) -> float:
  return round(number, 6)
