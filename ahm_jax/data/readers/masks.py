"""What a mask stores, as class indices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ahm_jax.data.readers.base import Held, UnsupportedImage, shown

# Of a label in floats from its integer, where scaling or resampling has left it beside.
TOLERANCE = 1e-3
_BINARY: tuple[list[int], ...] = ([], [0], [1], [255], [65535], [0, 1], [0, 255], [0, 65535])


def class_indices(
  values: np.ndarray,
  path: Path | Held,
  classes: Sequence[str],
  named_by: str = 'config.data.mask_classes',
) -> np.ndarray:
  """Class indices of one mask, or of all masks of a volume: uint8, of the shape of `values`.

  Args:
    values: as they are stored, bool or numbers of any shape. Floats are rounded where all are
      within `TOLERANCE` of an integer.
    path: their file, for messages.
    classes: names of the values 1, 2, ..., where 0 is background; empty: a binary mask of 0 and 1,
      of 0 and 255, or of 0 and 65535, which gives 0 and 1.
    named_by: what names them, for messages.

  Raises:
    UnsupportedImage: there are other values.
  """
  if values.dtype == bool:
    return values.astype(np.uint8)
  found = np.unique(values)
  if values.dtype.kind == 'f':
    values, found = _rounded(values, found)
  if classes:
    other = [value for value in found if value not in range(len(classes) + 1)]
    if other:
      raise UnsupportedImage(
        f'{shown(path)} holds the value {_digits(other[0])}, but {named_by} names {len(classes)} '
        f'({_named(classes)}); name every class, or correct the mask'
      )
    return values.astype(np.uint8)
  if found.tolist() not in _BINARY:
    some = ', '.join(_digits(value) for value in found[:6])
    raise UnsupportedImage(
      f'{shown(path)} is not binary: its values are {some}{", ..." if len(found) > 6 else ""}; it '
      'may hold 0 and 1, or 0 and 255 (of 16 bits, 65535); name classes, where these are some, in '
      'config.data.mask_classes'
    )
  return (values > 0).astype(np.uint8)


def _rounded(values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Labels and their unique values `found`, rounded where they are integers but for rounding."""
  with np.errstate(invalid='ignore'):
    is_near = (np.abs(found - np.rint(found)) <= TOLERANCE).all()
  return (np.rint(values), np.unique(np.rint(found))) if is_near else (values, found)


def _digits(value: np.number) -> str:
  """A number with as many digits as tell it from its neighbours."""
  short = f'{value:g}'
  return short if float(short) == value else str(value)


def _named(classes: Sequence[str]) -> str:
  """The first few values with their names."""
  names = (f'{index} {name}' for index, name in enumerate(('background', *classes[:6])))
  return ', '.join(names) + (', ...' if len(classes) > 6 else '')
