"""Scores of a trained run on one split: per image at the image's own resolution, and in the
mean.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.metrics import UNKNOWN, class_scores, segmentation_scores


def at_own_size(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Probabilities float32 [S, S], resized bilinearly to `shape` (h, w).

  Those of that shape are returned as they are.
  """
  if probabilities.shape == tuple(shape):
    return probabilities
  height, width = shape
  return np.asarray(
    Image.fromarray(probabilities).resize((width, height), Image.Resampling.BILINEAR)
  )


def predicted_mask(
  probabilities: np.ndarray, shape: tuple[int, int], threshold: float
) -> np.ndarray:
  """What was found in an image, at its own resolution `shape` (h, w).

  Args:
    probabilities: float32 [S, S], or with classes [S, S, K + 1], that of background first; they are
      resized as `at_own_size`.
    threshold: lesion where the probability is at least this; with classes, the most probable is
      taken instead.

  Returns:
    bool [h, w], or with classes uint8 [h, w], 0 for background.
  """
  if probabilities.ndim == 2:
    return at_own_size(probabilities, shape) >= threshold
  highest = at_own_size(probabilities[..., 0], shape)
  found = np.zeros(shape, np.uint8)
  for k in range(1, probabilities.shape[-1]):  # One class at a time, for there may be many pixels.
    probability = at_own_size(probabilities[..., k], shape)
    found[probability > highest] = k
    highest = np.maximum(highest, probability)
  return found


def mask_scores(
  prediction: np.ndarray,
  truth: np.ndarray,
  mask_classes: Sequence[str],
  spacing: Sequence[float] = UNKNOWN,
) -> dict[str, float | int]:
  """`class_scores` where there are classes, else `segmentation_scores`."""
  if mask_classes:
    return class_scores(prediction, truth, mask_classes, spacing)
  return segmentation_scores(prediction, truth, spacing)


def group_numbers(split: Split) -> dict[str, int]:
  """The number of each image's group, by the image's name, from 0 on.

  The group's own name may be a patient's.
  """
  numbers = {}
  return {
    name: numbers.setdefault(group, len(numbers))
    for name, group in zip(split.ids, split.groups, strict=True)
  }


def with_groups(rows: Sequence[dict], split: Split) -> list[dict]:
  """Rows of images of `split`, each with the number of its group under 'group'."""
  groups = group_numbers(split)
  return [{'image': row['image'], 'group': groups[row['image']], **row} for row in rows]


def segmentation_rows(
  probabilities: np.ndarray, split: Split, threshold: float, mask_classes: Sequence[str] = ()
) -> list[dict]:
  """One row of `mask_scores` an image with a mask, with its name under 'image'.

  Args:
    probabilities: float32 [N, S, S] of the split's N images; with K classes [N, S, S, K + 1].
    threshold: see `predicted_mask`.
    mask_classes: names of the K classes; none: lesion and background.
  """
  rows = []
  for i in np.flatnonzero(split.has_mask):
    truth = split.full_mask(i)
    rows.append(
      mask_row(
        split, i, predicted_mask(probabilities[i], truth.shape, threshold), truth, mask_classes
      )
    )
  return rows


def mask_row(
  split: Split, i: int, prediction: np.ndarray, truth: np.ndarray, mask_classes: Sequence[str] = ()
) -> dict:
  """`mask_scores` of image i of a split, with its name under 'image'."""
  return {'image': split.ids[i], **mask_scores(prediction, truth, mask_classes, split.spacing[i])}


def classification_rows(
  probabilities: np.ndarray, split: Split, class_names: tuple[str, ...]
) -> list[dict]:
  """One row an image with a label: its name, class, predicted class, and the probability of each
  class.

  Args:
    probabilities: [N, C] of the split's N images.
  """
  rows = []
  for i in np.flatnonzero(split.labels >= 0):
    row = {
      'image': split.ids[i],
      'label': class_names[split.labels[i]],
      'predicted': class_names[probabilities[i].argmax()],
    }
    row.update(
      {
        f'probability_{name}': float(value)
        for name, value in zip(class_names, probabilities[i], strict=True)
      }
    )
    rows.append(row)
  return rows
