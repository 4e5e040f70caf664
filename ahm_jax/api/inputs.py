"""Images as they are given from Python: arrays, whose values are checked, and files."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ahm_jax.config import paths
from ahm_jax.data.readers.intensity import to_bytes
from ahm_jax.errors import UserError

Range = tuple[float, float]


class Given(NamedTuple):
  """One image."""

  name: str  # Its path; of an array 'image', of one among several 'images[i]'.
  source: Path | np.ndarray  # uint8 [h, w, C].


def given(images: Any, channels: int, value_range: Range | None) -> tuple[list[Given], bool]:
  """All images that were given, and whether that is a single one.

  Args:
    images: an array [h, w, C] or [b, h, w, C], a path, or a list of arrays [h, w, C] and paths; of
      grey images (C = 1), arrays [h, w] too.
    channels: C.
    value_range: the values of arrays that are black and white; None: they are uint8.

  Raises:
    UserError: one is none of these, holds other channels, another type or other values, or there is
      no such file.
  """
  _check_range(value_range)
  if isinstance(images, list | tuple):
    several = [_one(image, f'images[{i}]', channels, value_range) for i, image in enumerate(images)]
    return several, False
  if isinstance(images, np.ndarray | jax.Array) and images.ndim == 4:
    return given(list(np.asarray(images)), channels, value_range)
  return [_one(images, 'image', channels, value_range)], True


def _check_range(value_range: Any) -> None:
  if value_range is None:
    return
  try:
    low, high = map(float, value_range)
    fine = -np.inf < low < high < np.inf
  except (TypeError, ValueError):
    fine = False
  if not fine:
    raise UserError(
      f'range is {value_range!r}; give the values that are black and white, as range=(0, 1)'
    )


def _one(image: Any, name: str, channels: int, value_range: Range | None) -> Given:
  if isinstance(image, str | os.PathLike):
    return _file(os.fspath(image), value_range)
  if isinstance(image, np.ndarray | jax.Array):
    return Given(name, _pixels(np.asarray(image), name, channels, value_range))
  raise UserError(
    f'{name} is of type {type(image).__name__}; give a NumPy array, a path, or a list of these'
  )


def _file(path: str | bytes, value_range: Range | None) -> Given:
  name = os.fsdecode(path)
  if fault := paths.local(name):
    raise UserError(f'an image {fault}')
  if value_range is not None:
    raise UserError(f'range is of arrays, and {name} is a file, which is read as training reads it')
  found = Path(os.path.expanduser(name))  # noqa: PTH111 (of an unknown user, Path's raises)
  try:
    if stat.S_ISDIR(found.stat().st_mode):
      raise UserError(f'{name} is a folder; give a list of files, or take the command predict')
  except OSError as error:  # Of another, reading it will say why.
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
      raise UserError(f'{name}: there is no such file; give the path of an image') from error
  return Given(name, found)


def _pixels(array: np.ndarray, name: str, channels: int, value_range: Range | None) -> np.ndarray:
  """An array as uint8 [h, w, C]."""
  if channels == 1 and array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or array.shape[-1] != channels:
    taken = 'RGB images, [h, w, 3]' if channels == 3 else 'grey images, [h, w, 1] or [h, w]'
    raise UserError(f'{name} is of shape {_shape(array.shape)}; this network takes {taken}')
  if not array.size:
    raise UserError(f'{name} is of shape {_shape(array.shape)}, without a pixel; leave it out')
  if value_range is None:
    if array.dtype != np.uint8:
      raise UserError(
        f'{name} is of {array.dtype}; give uint8, or say which values are black and white, as '
        'range=(0, 1)'
      )
    return array
  return to_bytes(_in_range(array, name, value_range), *map(float, value_range))


def _in_range(array: np.ndarray, name: str, value_range: Range) -> np.ndarray:
  if array.dtype.kind not in 'uif':
    raise UserError(f'{name} is of {array.dtype}; give whole numbers or floats')
  lowest, highest = float(array.min()), float(array.max())
  if not (np.isfinite(lowest) and np.isfinite(highest)):
    raise UserError(f'{name} holds values that are not finite; replace them')
  low, high = value_range
  if lowest < low or highest > high:
    raise UserError(
      f'{name} holds values from {lowest:g} to {highest:g}, outside of range=({low:g}, {high:g}); '
      'give their range, or clip them'
    )
  return array


def _shape(shape: Sequence[int]) -> str:
  return f'[{", ".join(map(str, shape))}]'
