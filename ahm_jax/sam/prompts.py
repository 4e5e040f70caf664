"""Prompts for models that segment what one points at, drawn from a mask."""

import numpy as np
from scipy import ndimage

KINDS = ('box', 'point')
REGIONS = 3  # Of a mask that get a prompt, at most.


def prompts(mask: np.ndarray, kind: str, margin: int = 0) -> list[tuple[int, ...]]:
  """A box or a point for each of the largest REGIONS connected regions of a mask, bool [h, w]; none
  where it is empty.

  Separate parts get prompts of their own because Segment Anything did best so on medical images
  (Mazurowski et al., Segment anything model for medical image analysis: an experimental study,
  2023).

  Args:
    kind: 'box' or 'point'.
    margin: of `box`.
  """
  return [box(region, margin) if kind == 'box' else point(region) for region in regions(mask)]


def regions(mask: np.ndarray) -> list[np.ndarray]:
  """The largest REGIONS regions of a mask whose pixels touch at a side or a corner, largest
  first; all bool [h, w].
  """
  labels, _ = ndimage.label(mask, np.ones((3, 3)))
  areas = np.bincount(labels.ravel())[1:]
  return [labels == 1 + index for index in np.argsort(-areas, kind='stable')[:REGIONS]]


def box(mask: np.ndarray, margin: int = 0) -> tuple[int, int, int, int]:
  """The smallest box around all of a mask, bool [h, w], which is not empty.

  Args:
    margin: pixels that it is widened by to each side, as far as the image goes.

  Returns:
    (left, top, right, bottom): columns and rows of the first and last pixel in it, as MedSAM takes
    them (Ma et al., Segment anything in medical images, 2024).
  """
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  height, width = mask.shape
  left, top = max(0, columns[0] - margin), max(0, rows[0] - margin)
  right, bottom = min(width - 1, columns[-1] + margin), min(height - 1, rows[-1] + margin)
  return int(left), int(top), int(right), int(bottom)


def point(mask: np.ndarray) -> tuple[int, int]:
  """The pixel (column, row) deepest inside a mask, bool [h, w], which is not empty: the farthest
  from what is not in it or beyond the image.

  Of several the first by rows.
  """
  depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
  row, column = np.unravel_index(depth.argmax(), depth.shape)
  return int(column), int(row)
