"""Images as they are given from Python: arrays, files, and modalities by name."""

import errno
import functools
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.api import arrays
from ahm_jax.api.arrays import Range, is_array
from ahm_jax.config import DataConfig, paths
from ahm_jax.data.readers import cases
from ahm_jax.data.readers.base import Case, stem
from ahm_jax.errors import UserError, cannot_read


class Given(NamedTuple):
  """One image."""

  name: str  # Its path; of anything else 'image', of one among several 'images[i]'.
  source: Path | Case | np.ndarray  # uint8 [h, w, C].
  lacking: Sequence[str] = ()  # Modalities that stand in no array.


def given(images: Any, data: DataConfig, value_range: Range | None) -> tuple[list[Given], bool]:
  """All images that were given, and whether that is a single one.

  Args:
    images: see `ahm_jax.api.model.Model.predict`.
    data: that the network was trained with.
    value_range: the values of arrays that are black and white; None: as `arrays.pixels` says.

  Raises:
    UserError: one is of no kind that is taken, holds other channels, another type or other values,
      lacks a modality that it may not, or there is no such file.
  """
  arrays.check_range(value_range)
  one = functools.partial(
    _one, data=data, value_range=value_range, numbered=functools.cache(_numbered)
  )
  if is_array(images) and images.ndim == 4:
    images = list(np.asarray(images))
  if not isinstance(images, list | tuple):
    return [one(images, 'image')], True
  several = [one(image, f'images[{i}]') for i, image in enumerate(images)]
  _check_files([item for image, item in zip(images, several, strict=True) if _is_path(image)])
  return several, False


def _check_files(several: Sequence[Given]) -> None:
  """Refuses two files of one case, which would be predicted twice."""
  seen: dict[Case, str] = {}
  for name, source, _ in several:
    other = seen.setdefault(source, name) if isinstance(source, Case) else name
    if other != name:
      raise UserError(f'{other} and {name} are files of one case; give one of them')


_Numbered = Callable[[Path], Mapping[str, Sequence[Path]]]


def _one(
  image: Any, name: str, data: DataConfig, value_range: Range | None, numbered: _Numbered
) -> Given:
  if isinstance(image, Mapping):
    return _by_modality(image, name, data, value_range)
  if is_array(image):
    return Given(name, arrays.pixels(np.asarray(image), name, data, value_range))
  if not _is_path(image):
    raise _of_no_kind(image, name, 'a NumPy array, a path, or a list of these')
  path = _file(image, value_range)
  if not data.modalities:
    return Given(os.fsdecode(image), path)
  case, problems = cases.of_file(path, data.modalities, numbered)
  if problems:
    raise UserError(problems[0])
  return Given(os.fsdecode(image), case)


def _by_modality(
  parts: Mapping[Any, Any], name: str, data: DataConfig, value_range: Range | None
) -> Given:
  """A case of which each modality that there is has an array or a file."""
  _check_names(parts, name, data)
  if all(map(_is_path, parts.values())):
    files = {modality: _file(path, value_range) for modality, path in parts.items()}
    if len(set(files.values())) < len(files):
      raise UserError(f'{name} gives one file to two modalities; give each its own')
    in_order = tuple(map(files.get, data.modalities))
    return Given(name, Case(stem(next(iter(files.values())).name), in_order))
  for modality, part in parts.items():
    if not is_array(part):
      if _is_path(part):
        raise UserError(f'{name} holds arrays and paths; give all of its modalities as one of them')
      raise _of_no_kind(part, f'{name}[{modality!r}]', 'a NumPy array or a path')
  planes = {modality: np.asarray(part) for modality, part in parts.items()}
  lacking = [modality for modality in data.modalities if modality not in parts]
  return Given(name, arrays.of_modalities(planes, name, data, value_range), lacking)


def _check_names(parts: Mapping[Any, Any], name: str, data: DataConfig) -> None:
  if not data.modalities:
    raise UserError(
      f'{name} is a mapping of modalities, and this network was trained without; give an array or '
      'a path'
    )
  known = ', '.join(data.modalities)
  unknown = [key for key in parts if key not in data.modalities]
  if unknown:
    raise UserError(f'{name} holds {unknown[0]!r}, and the modalities are {known}; rename it')
  if not parts:
    raise UserError(f'{name} holds nothing; give at least one of the modalities {known}')
  lacking = [modality for modality in data.modalities if modality not in parts]
  if lacking and not data.modality_dropout:
    raise UserError(
      f'{name} lacks {", ".join(lacking)}; add it, or train with config.data.modality_dropout'
    )


def _is_path(value: Any) -> bool:
  return isinstance(value, str | os.PathLike)


def _of_no_kind(value: Any, name: str, allowed: str) -> UserError:
  return UserError(f'{name} is of type {type(value).__name__}; give {allowed}')


def _file(path: str | os.PathLike[str], value_range: Range | None) -> Path:
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
  return found


def _numbered(folder: Path) -> dict[str, list[Path]]:
  try:
    return cases.numbered(folder)
  except OSError as error:
    raise UserError(cannot_read(folder, error)) from error
