"""What a mask stores, as class indices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ahm_jax.data.readers.base import Held, UnsupportedImage, shown

_BINARY: tuple[list[int], ...] = ([], [0], [1], [255], [65535], [0, 1], [0, 255], [0, 65535])


def class_indices(values: np.ndarray, path: Path | Held, classes: Sequence[str]) -> np.ndarray:
  """Class indices of one mask, or of all masks of a volume: uint8, of the shape of `values`.

  Args:
    values: as they are stored, bool or numbers of any shape.
    path: their file, for messages.
    classes: names of the values 1, 2, ..., where 0 is background; empty: a binary mask of 0 and 1,
      of 0 and 255, or of 0 and 65535, which gives 0 and 1.

  Raises:
    UnsupportedImage: there are other values.
  """
  if values.dtype == bool:
    return values.astype(np.uint8)
  found = np.unique(values)
  if classes:
    other = [value for value in found.tolist() if value not in range(len(classes) + 1)]
    if other:
      raise UnsupportedImage(
        f'{shown(path)} holds the value {other[0]:g}, but config.data.mask_classes names '
        f'{len(classes)} ({_named(classes)}); name every class, or correct the mask'
      )
    return values.astype(np.uint8)
  if found.tolist() not in _BINARY:
    some = ', '.join(f'{value:g}' for value in found[:6].tolist())
    raise UnsupportedImage(
      f'{shown(path)} is not binary: its values are {some}{", ..." if len(found) > 6 else ""}; it '
      'may hold 0 and 1, or 0 and 255 (of 16 bits, 65535); name classes, where these are some, in '
      'config.data.mask_classes'
    )
  return (values > 0).astype(np.uint8)


def _named(classes: Sequence[str]) -> str:
  """The first few values with their names."""
  names = (f'{index} {name}' for index, name in enumerate(('background', *classes[:6])))
  return ', '.join(names) + (', ...' if len(classes) > 6 else '')
