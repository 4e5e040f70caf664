"""Prompts for models that segment what one points at, drawn from a mask."""

import numpy as np
from scipy import ndimage

KINDS = ('box', 'point')


def box(mask: np.ndarray, margin: int = 0) -> tuple[int, int, int, int] | None:
  """The smallest box around all of a mask, bool [h, w].

  Args:
    margin: pixels that it is widened by to each side, as far as the image goes.

  Returns:
    (left, top, right, bottom): columns and rows of the first and last pixel in it, as MedSAM takes them (Ma et al., Segment
    anything in medical images, 2024). None: the mask is empty.
  """
  if not mask.any():
    return None
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  height, width = mask.shape
  left, top = max(0, columns[0] - margin), max(0, rows[0] - margin)
  right, bottom = min(width - 1, columns[-1] + margin), min(height - 1, rows[-1] + margin)
  return int(left), int(top), int(right), int(bottom)


def point(mask: np.ndarray) -> tuple[int, int] | None:
  """The pixel (column, row) deepest inside a mask, bool [h, w]: the farthest from what is not in it or beyond the image.

  Of several the first by rows. None: the mask is empty.
  """
  if not mask.any():
    return None
  depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
  row, column = np.unravel_index(depth.argmax(), depth.shape)
  return int(column), int(row)
