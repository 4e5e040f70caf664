"""Arrays as images: their values are checked, and become 8 bits."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import cases
from ahm_jax.data.readers.base import count_of
from ahm_jax.data.readers.intensity import MISSING, modality_range, to_bytes
from ahm_jax.errors import UserError

Range = tuple[float, float]


def is_array(value: Any) -> bool:
  return isinstance(value, np.ndarray | jax.Array)


def check_range(value_range: Any) -> None:
  """Raises a UserError where that is none."""
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


def pixels(array: np.ndarray, name: str, data: DataConfig, value_range: Range | None) -> np.ndarray:
  """An image as a network sees it.

  Args:
    array: [h, w, C], or where C is 1 [h, w].
    name: of it, for messages.
    data: that the network was trained with.
    value_range: the values that are black and white; None: they are uint8, and of modalities what a
      file would hold.

  Returns:
    uint8 [h, w, C].

  Raises:
    UserError: it has another shape, another type or other values.
  """
  if data.depth == 1 and array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or array.shape[-1] != data.depth:
    raise UserError(f'{name} is of shape {_shape(array.shape)}; this network takes {_taken(data)}')
  if not array.size:
    raise UserError(f'{name} is of shape {_shape(array.shape)}, without a pixel; leave it out')
  if data.modalities:
    entries = cases.entries(data.intensity, data.modalities)
    _check(array, name, value_range)
    planes = [_plane(array[..., k], entry, value_range) for k, entry in enumerate(entries)]
    return np.stack(planes, -1)
  if value_range is not None:
    _check(array, name, value_range)
    return to_bytes(array, *map(float, value_range))
  if array.dtype != np.uint8:
    raise UserError(
      f'{name} is of {array.dtype}; give uint8, or say which values are black and white, as '
      'range=(0, 1)'
    )
  return array


def of_modalities(
  planes: Mapping[str, np.ndarray], name: str, data: DataConfig, value_range: Range | None
) -> np.ndarray:
  """As `pixels`, of an array [h, w] of each modality that there is, by its name; MISSING stands for
  the others.
  """
  first = next(iter(planes))
  shape = planes[first].shape
  for modality, plane in planes.items():
    own = f'{name}[{modality!r}]'
    if plane.ndim != 2 or not plane.size:
      raise UserError(f'{own} is of shape {_shape(plane.shape)}; give [h, w] of each modality')
    if plane.shape != shape:
      raise UserError(
        f'{own} is of shape {_shape(plane.shape)}, and {name}[{first!r}] {_shape(shape)}; resample '
        'the one onto the other'
      )
    _check(plane, own, value_range)
  return np.stack(
    [
      _plane(planes[modality], entry, value_range)
      if modality in planes
      else np.full(shape, MISSING, np.uint8)
      for modality, entry in zip(
        data.modalities, cases.entries(data.intensity, data.modalities), strict=True
      )
    ],
    -1,
  )


def _plane(values: np.ndarray, entry: str, value_range: Range | None) -> np.ndarray:
  """A modality, [h, w], as uint8: by its entry in config.data.intensity, as of a file."""
  low, high = modality_range(values, entry) if value_range is None else map(float, value_range)
  return to_bytes(values, low, high)


def _check(array: np.ndarray, name: str, value_range: Range | None) -> None:
  """Refuses what are no numbers, and those that lie outside of their range."""
  if array.dtype.kind not in 'uif':
    raise UserError(f'{name} is of {array.dtype}; give whole numbers or floats')
  lowest, highest = float(array.min()), float(array.max())
  if not (np.isfinite(lowest) and np.isfinite(highest)):
    raise UserError(f'{name} holds values that are not finite; replace them')
  low, high = value_range or (lowest, highest)
  if lowest < low or highest > high:
    raise UserError(
      f'{name} holds values from {lowest:g} to {highest:g}, outside of range=({low:g}, {high:g}); '
      'give their range, or clip them'
    )


def _taken(data: DataConfig) -> str:
  if data.modalities:
    layout = '[h, w, 1] or [h, w]' if data.depth == 1 else f'[h, w, {data.depth}]'
    return f'{count_of(data.depth)}, {layout}: {", ".join(data.modalities)}'
  return 'RGB images, [h, w, 3]' if data.depth == 3 else 'grey images, [h, w, 1] or [h, w]'


def _shape(shape: Sequence[int]) -> str:
  return f'[{", ".join(map(str, shape))}]'
