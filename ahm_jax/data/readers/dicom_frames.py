"""What a DICOM file says of each of its frames: scale, window, padding, spacing and place.

Enhanced multi-frame files say it per frame, or for all frames (PS3.3 C.7.6.16). What is no number
counts as not said.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.data.readers.base import known_spacing

_GROUPS = ('PerFrameFunctionalGroupsSequence', 'SharedFunctionalGroupsSequence')


class Plane(NamedTuple):
  """Where a frame lies in the patient; each part None where the file does not say."""

  position: np.ndarray | None  # mm of the centre of the first pixel, [3].
  axes: np.ndarray | None  # Directions of rows (along a row) and columns (down), [2, 3].
  spacing: tuple[float, float] | None  # (row, column) in mm.


def attribute(dataset: Any, index: int, macro: str, name: str) -> Any:
  """An attribute of frame `index`: its own, that which all frames share, or that of a file
  without functional groups.
  """
  value = grouped(dataset, index, macro, name)
  return _get(dataset, name) if value is None else value


def grouped(dataset: Any, index: int, macro: str, name: str) -> Any:
  """As `attribute`, from functional groups alone."""
  for groups, place in zip(_GROUPS, (index, 0), strict=True):
    items = dataset.get(groups) or []
    inner = items[place].get(macro) if place < len(items) else None
    value = _get(inner[0], name) if inner else None
    if value is not None:
      return value
  return None


def _get(item: Any, name: str) -> Any:
  with contextlib.suppress(ValueError, TypeError):  # Text where numbers should be.
    return item.get(name)
  return None


def rescale(dataset: Any, index: int) -> tuple[float, float]:
  """Slope and intercept."""
  macro = 'PixelValueTransformationSequence'
  slope, intercept = (
    _first(attribute(dataset, index, macro, f'Rescale{x}')) for x in ('Slope', 'Intercept')
  )
  return slope or 1.0, intercept or 0.0


def window(dataset: Any, index: int) -> tuple[float, float] | None:
  """The values that the file's window maps onto black and white; None: it has none."""
  macro = 'FrameVOILUTSequence'
  centre, width = (
    _first(attribute(dataset, index, macro, f'Window{x}')) for x in ('Center', 'Width')
  )
  if centre is None or width is None or width <= 1:
    return None
  if (attribute(dataset, index, macro, 'VOILUTFunction') or 'LINEAR') == 'LINEAR':
    centre, width = centre - 0.5, width - 1
  return centre - width / 2, centre + width / 2


def spacing(dataset: Any, index: int) -> tuple[float, float] | None:
  found = _numbers(attribute(dataset, index, 'PixelMeasuresSequence', 'PixelSpacing'), 2)
  return None if found is None else known_spacing(*found)


def padding(dataset: Any, dtype: np.dtype) -> tuple[float, float] | None:
  """The lowest and highest stored value, of type `dtype`, that stand for no image (PS3.3
  C.7.5.1.1.2); None: all are image.
  """
  if dtype.kind == 'f':
    ends = [_get(dataset, f'FloatPixelPadding{x}') for x in ('Value', 'RangeLimit')]
  else:
    ends = [_get(dataset, f'PixelPadding{x}') for x in ('Value', 'RangeLimit')]
  stored = [_as_stored(end, dtype, dataset) for end in ends if isinstance(end, int | float)]
  found = [end for end in stored if end is not None]
  if not found or ends[0] is None or len(found) < len(stored):
    return None
  return min(found), max(found)


def _as_stored(value: float, dtype: np.dtype, dataset: Any) -> float | None:
  """A value as the pixels that have it come out, None where none can have it. Some files give it,
  in 16 bits, as a number of the other sign.
  """
  if dtype.kind == 'f':
    return float(value)
  bits = min(int(dataset.BitsStored), 8 * dtype.itemsize)
  low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == 'i' else (0, 2**bits - 1)
  if value < low:
    value += 2**16
  elif value > high and dtype.kind == 'i':
    value -= 2 ** (bits if value < 2**bits else 16)
  return float(value) if low <= value <= high else None


def planes(dataset: Any) -> list[Plane]:
  """Where each frame lies. Of several frames, a position that is given once tells nothing."""
  count = int(dataset.get('NumberOfFrames') or 1)
  find = attribute if count == 1 else grouped
  found = []
  for index in range(count):
    position = _numbers(find(dataset, index, 'PlanePositionSequence', 'ImagePositionPatient'), 3)
    directions = _numbers(
      attribute(dataset, index, 'PlaneOrientationSequence', 'ImageOrientationPatient'), 6
    )
    axes = None if directions is None else np.reshape(directions, (2, 3))
    if axes is not None and not np.allclose(axes @ axes.T, np.eye(2), atol=0.01):
      axes = None
    found.append(
      Plane(None if position is None else np.array(position), axes, spacing(dataset, index))
    )
  return found


def _first(value: Any) -> float | None:
  """A number, or the first of several."""
  several = _several(value)
  found = _numbers(several[:1], 1)
  return None if found is None else found[0]


def _numbers(value: Any, count: int) -> list[float] | None:
  """`count` finite numbers; None where they are not."""
  with contextlib.suppress(TypeError, ValueError):
    found = [float(each) for each in _several(value)]
    if len(found) == count and np.isfinite(found).all():
      return found
  return None


def _several(value: Any) -> list[Any]:
  is_one = isinstance(value, str) or not isinstance(value, Iterable)
  return [value] if is_one else list(value)
