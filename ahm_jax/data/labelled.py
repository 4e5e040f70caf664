"""Which training images a segmentation learns from: a budget drawn at random, or the first images
of a list, `data.labelled_from`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.readers.base import stem
from ahm_jax.data.sampling import labelled_indices
from ahm_jax.data.sets import delimited
from ahm_jax.data.sets.delimited import quoted
from ahm_jax.data.sets.table import composed
from ahm_jax.errors import UserError
from ahm_jax.runtime import json_files

IMAGE, RANK = 'image', 'rank'  # Columns of a list; it need not have the second.
_FIELD = 'config.data.labelled_from'


def segmented_indices(config: Config, data: Dataset) -> np.ndarray:
  """The training images whose masks a run learns from, int64 [M], indices into the train split.

  The first `data.labels` images of the list `data.labelled_from`, or all of it where that is 0;
  without a list, see `labelled_indices`.

  Raises:
    UserError: there are too few, or the list names what is no training image with a mask.
  """
  count, train = config.data.labels, data.splits['train']
  if not config.data.labelled_from:
    return labelled_indices(train, count, config.seed)
  path = list_path(config)
  names = read_names(path)
  if len(names) < count:
    raise UserError(
      f'{path} names {len(names)} images, and config.data.labels (or config.grid.labels) asks for '
      f'{count}; lower it, or choose more by launch.select'
    )
  indices = _indices(path, names[: count or len(names)], data)
  _check_masks(path, [train.ids[i] for i in indices], train.has_mask[indices].tolist())
  return np.array(indices, np.int64)


def list_path(config: Config) -> Path:
  """The file that `data.labelled_from` names for the config's seed."""
  return Path(config.data.labelled_from.replace('{seed}', str(config.seed))).expanduser()


def read_names(path: Path) -> list[str]:
  """The images that a list names: in the order of its column rank, or as they stand.

  Raises:
    UserError: it is not there, is no table, names no image or one twice, or has a rank that is no
      whole number.
  """
  data = json_files.read_bytes(path)
  if data is None:
    raise UserError(
      f'{path}, in {_FIELD}, is not there; give the selection.csv of launch.select, or another '
      'table with a column image'
    )
  columns, rows = delimited.parse(path, data)
  if RANK in columns:
    for row in rows:
      if not re.fullmatch('[0-9]{1,9}', row.cells[RANK]):
        raise UserError(
          f'{path} line {row.line}: rank {quoted(row.cells[RANK])} is no whole number; correct it, '
          'or remove the column rank'
        )
    rows = sorted(rows, key=lambda row: int(row.cells[RANK]))
  names = [row.cells[IMAGE] for row in rows]
  if not names:
    raise UserError(f'{path}, in {_FIELD}, names no image; choose some by launch.select')
  seen: set[str] = set()
  for name in names:
    if composed(name) in seen:
      raise _named_twice(path, name)
    seen.add(composed(name))
  return names


def _indices(path: Path, names: Sequence[str], data: Dataset) -> list[int]:
  """The places of images in the train split; raises a UserError for one that is not there."""
  train = data.splits['train']
  places = _places(train)
  found = {name: _place(name, places) for name in names}
  missing = [name for name, i in found.items() if i is None]
  if missing:
    held = (key for key in data.splits if _place(missing[0], _places(data.splits[key])) is not None)
    where = next(held, '')
    told = f'is in the {where} split' if where else f'is not in the data set {data.name}'
    cure = (
      'give it split train in labels.csv, whose column split keeps it there'
      if where
      else 'restore it, or choose images of this data set'
    )
    raise UserError(f'{path} names {_first(missing)}, which {told}; {cure}')
  indices = [i for i in found.values() if i is not None]
  if len(set(indices)) < len(indices):
    twice = next(i for i in indices if indices.count(i) > 1)
    raise _named_twice(path, train.ids[twice])
  return indices


def _places(split: Split) -> dict[str, int]:
  return {composed(name): i for i, name in enumerate(split.ids)}


def _place(name: str, places: Mapping[str, int]) -> int | None:
  """Of an image that may be named by its file, or as spreadsheets need it."""
  forms = map(composed, (name, name.removeprefix("'"), stem(name)))
  return next((places[form] for form in forms if form in places), None)


def _check_masks(path: Path, names: Sequence[str], has_mask: Sequence[bool]) -> None:
  bare = [name for name, has in zip(names, has_mask, strict=True) if not has]
  if bare:
    ready = names.index(bare[0])
    others = f', or set config.data.labels={ready} for those before it' if ready else ''
    raise UserError(f'{path} names {_first(bare)}, which has no mask; label it{others}')


def _named_twice(path: Path, name: str) -> UserError:
  return UserError(f'{path} names the image {quoted(name)} twice; keep one of its rows')


def _first(names: Sequence[str]) -> str:
  more = f' (and {len(names) - 1} more)' if len(names) > 1 else ''
  return f'the image {quoted(names[0])}{more}'
