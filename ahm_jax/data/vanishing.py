"""Lesions that vanish where masks are resized to what networks see: they cover less than half of
any pixel of it. A network that is trained on such a mask learns that there is nothing.
"""

import collections
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.data.mask_png import decode_mask, mask_size
from ahm_jax.data.resize import squashed_mask

STEP = 32  # Sizes that are tried are multiples of it, which every size of a patch divides,
FINENESS = 8  # and, where they are large, one such share of themselves apart.
CONFIRMED_BY = 16  # Masks that a size is confirmed by.
SEARCH_PIXELS = 2**26  # Of the masks that sizes are tried on,
CHECKED_PIXELS = 2**30  # and of those that what is found is held against.


class Fate(NamedTuple):
  """What becomes of one mask."""

  held: frozenset[int]  # Classes that it holds at its own resolution, of a binary mask 1.
  lost: frozenset[int]  # Those of them that vanish.
  shares: Mapping[int, float] = MappingProxyType({})  # Of the image, that each of these has.


def fate(mask: np.ndarray, small: np.ndarray) -> Fate:
  """Compares a mask, bool [h, w] or class indices, uint8 [h, w], with what `squashed_mask` makes of
  it.
  """
  held = _classes(mask)
  lost = held - _classes(small)
  shares = {index: float(np.mean(mask == index)) for index in lost}
  return Fate(held, lost, shares)


def _classes(mask: np.ndarray) -> frozenset[int]:
  if mask.dtype == bool:
    return frozenset({1} if mask.any() else ())
  return frozenset(np.flatnonzero(np.bincount(mask.ravel())).tolist()) - {0}


class Vanished:
  """The lesions of a data set that vanish at a size, class by class."""

  def __init__(self, size: int, names: Sequence[str] = ()):
    """Args: size: side in pixels that masks are resized to; names: of mask classes, if any."""
    self._size = size
    self._names = names
    self._held: collections.Counter = collections.Counter()
    self._lost: dict[int, list[tuple[float, bytes]]] = collections.defaultdict(list)

  def add(self, found: Fate, mask: bytes) -> None:
    """Counts a mask, which is given as `mask_png.encode_mask` has it."""
    self._held.update(found.held)
    for index in found.lost:
      self._lost[index].append((found.shares[index], mask))

  def lines(self) -> list[str]:
    """A line for each class that vanishes somewhere: in how many masks, and at which size not."""
    return [self._line(index) for index in sorted(self._lost)]

  def _line(self, index: int) -> str:
    what = f'class {self._names[index - 1]}' if self._names else 'lesion'
    masks = [mask for _, mask in sorted(self._lost[index], key=lambda item: item[0])]
    size, checked = size_that_keeps(masks, index, self._size)
    cure = f'from {size} on it does not' if size else 'it does at any size up to their own'
    if checked < len(masks):
      cure += f' in the {checked} of them that have the least of it'
    return (
      f'in {len(masks)} of {self._held[index]} masks the {what} vanishes at '
      f'image_size={self._size}; {cure}'
    )


def size_that_keeps(masks: Sequence[bytes], index: int, above: int) -> tuple[int | None, int]:
  """The smallest size above another, a multiple of STEP, from which on class `index` vanishes from
  none of the masks; None: it does at all sizes up to their own. And in how many that was seen.

  Lesions that lie across the pixels' borders vanish at larger sizes than others, so what is found
  with the first masks is held against the others; of many large ones only against some.

  Args:
    masks: that hold the class, those with the least of it first.
  """
  rows, columns = np.max([mask_size(data) for data in masks], axis=0).tolist()
  largest = max(rows, columns)
  count = max(1, SEARCH_PIXELS // (rows * columns))
  checked = masks[: max(count, CHECKED_PIXELS // (rows * columns))]
  tried, others = collections.deque(map(decode_mask, checked[:count])), list(checked[count:])
  found = _search(tried, index, above, largest)
  while found:
    lost = next((data for data in others if not _keeps(decode_mask(data), index, found)), None)
    if lost is None:
      break
    others.remove(lost)
    tried.appendleft(decode_mask(lost))
    found = _search(tried, index, found, largest)
  return found, len(checked)


def _search(
  masks: collections.deque[np.ndarray], index: int, above: int, largest: int
) -> int | None:
  """`size_that_keeps` of all masks.

  The one that failed last comes first, so that a size that is too small costs little. A lesion may
  come back and vanish again, so a size is taken once some masks pass up to its double.
  """
  found, size = None, above // STEP * STEP
  while size < largest:
    size += max(1, size // FINENESS // STEP) * STEP
    tried = len(masks) if found is None else CONFIRMED_BY
    if _one_loses(masks, tried, index, size):
      found = None
    elif found is None:
      found = size
    elif size >= 2 * found:
      break
  return found


def _one_loses(masks: collections.deque[np.ndarray], count: int, index: int, size: int) -> bool:
  """Whether the class vanishes from one of the first masks, which then comes before the others."""
  for place, mask in zip(range(count), masks, strict=False):
    if not _keeps(mask, index, size):
      del masks[place]
      masks.appendleft(mask)
      return True
  return False


def _keeps(mask: np.ndarray, index: int, size: int) -> bool:
  """Whether a class is somewhere in a mask that is resized."""
  # Pillow, which is fast and not exact, tells where it most likely is.
  share = Image.fromarray((mask == index).astype(np.uint8) * 255).resize(
    (size, size), Image.Resampling.BOX
  )
  if _wins_at(mask, index, size, np.unravel_index(np.asarray(share).argmax(), (size, size))):
    return True
  return index in _classes(squashed_mask(mask, size))


def _wins_at(mask: np.ndarray, index: int, size: int, place: Sequence[np.intp]) -> bool:
  """Whether a class has the largest area in one pixel of a resized mask, as `squashed_mask` says
  it.
  """
  inside = []
  for length, pixel in zip(mask.shape, map(int, place), strict=True):
    first, last = pixel * length // size, -(-(pixel + 1) * length // size)
    edges = np.arange(first, last + 1) * size
    within = np.clip(edges, pixel * length, (pixel + 1) * length)
    inside.append((slice(first, last), np.diff(within)))  # Shares of rows or columns, times `size`.
  (rows, heights), (columns, widths) = inside
  areas = np.bincount(mask[rows, columns].ravel(), np.outer(heights, widths).ravel(), index + 1)
  return int(areas.argmax()) == index
