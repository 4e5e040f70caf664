"""Scores of a trained run on one split: per image at the image's own resolution, and in the mean."""

import numpy as np
from PIL import Image

from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.metrics import segmentation_scores


def at_own_size(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Probabilities float32 [S, S], resized bilinearly to `shape` (h, w)."""
  height, width = shape
  return np.asarray(Image.fromarray(probabilities).resize((width, height), Image.Resampling.BILINEAR))


def segmentation_rows(probabilities: np.ndarray, split: Split, threshold: float) -> list[dict]:
  """One row of `segmentation_scores` an image with a mask, with its name under 'image'.

  Args:
    probabilities: float32 [N, S, S] of the split's N images.
    threshold: lesion where the probability, resized to the image's own resolution, is at least this.
  """
  rows = []
  for i in np.flatnonzero(split.has_mask):
    truth = split.full_mask(i)
    prediction = at_own_size(probabilities[i], truth.shape) >= threshold
    rows.append({'image': split.ids[i], **segmentation_scores(prediction, truth, split.spacing[i])})
  return rows


def classification_rows(probabilities: np.ndarray, split: Split, class_names: tuple[str, ...]) -> list[dict]:
  """One row an image with a label: its name, class, predicted class, and the probability of each class.

  Args:
    probabilities: [N, C] of the split's N images.
  """
  rows = []
  for i in np.flatnonzero(split.labels >= 0):
    row = {'image': split.ids[i], 'label': class_names[split.labels[i]], 'predicted': class_names[probabilities[i].argmax()]}
    row.update({f'probability_{name}': float(value) for name, value in zip(class_names, probabilities[i], strict=True)})
    rows.append(row)
  return rows
