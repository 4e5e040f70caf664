"""Cases of several modalities: which files belong to one, and their slices with a channel each.

A case lies in one file, NIfTI with a fourth axis or TIFF with a page a modality; or in a file a
modality, named as nnU-Net names them (Isensee et al., 2021): CASE_0000, CASE_0001, ... in the order
of config.data.modalities, with a suffix of NIfTI or of a raster image.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ahm_jax.data.readers import dispatch, nifti, raster
from ahm_jax.data.readers.base import (
  LAYOUTS,
  NIFTI,
  SUFFIXES,
  Case,
  Picture,
  UnsupportedImage,
  count_of,
  decoding,
  shown,
  stem,
  suffix,
)
from ahm_jax.data.readers.intensity import MISSING, modality_range, to_bytes

_NUMBERED = re.compile(r'(.+)_([0-9]{4})', re.DOTALL)
_CURE = (
  'resample the one onto the other, or give it the affine of the other where only its header is '
  'wrong'
)


def together(
  paths: Mapping[str, Path], modalities: Sequence[str]
) -> tuple[dict[str, Case], list[str]]:
  """The cases that files hold, by name, and what is wrong with how they are named.

  Where any file is numbered as one of the modalities, every file that ends in a number is taken for
  one; else each file is a case.

  Args:
    paths: by name without suffix, in order.
    modalities: their names, in the order of the numbers.
  """
  parts = {name: _NUMBERED.fullmatch(name) for name in paths}
  if not any(part and int(part[2]) < len(modalities) for part in parts.values()):
    parts = dict.fromkeys(parts)
  found: dict[str, dict[int, Path]] = {}
  cases: dict[str, Case] = {}
  problems = []
  for name, part in parts.items():
    path = paths[name]
    if part is None:
      cases[name] = Case(stem(path.name), (path,))
    elif int(part[2]) < len(modalities):
      found.setdefault(part[1], {})[int(part[2])] = path
    else:
      problems.append(
        f'{shown(path)} is numbered {part[2]}, but config.data.modalities names '
        f'{len(modalities)}, from 0000 on; name every modality, remove the file, or, where it '
        'holds them all, rename it: four digits at its end are the number of one'
      )
  for name, files in found.items():
    numbered = Case(
      stem(next(iter(files.values())).name)[:-5], tuple(map(files.get, range(len(modalities))))
    )
    if name in cases:
      problems.append(
        f'{shown(cases[name].first)} and {shown(numbered.first)} are of one case; keep one of them'
      )
    cases[name] = numbered
  return dict(sorted(cases.items(), key=lambda item: item[1].name)), problems


def of_file(
  path: Path, modalities: Sequence[str], beside: Callable[[Path], Mapping[str, Sequence[Path]]]
) -> tuple[Case, list[str]]:
  """The case that a file is of, and what is wrong with how its files are named.

  Args:
    modalities: as for `together`.
    beside: `numbered`, or what has kept what that gave.
  """
  alone = Case(stem(path.name), (path,))
  part = _NUMBERED.fullmatch(alone.name)
  if part is None:
    return alone, []
  others = beside(path.parent).get(part[1], ())
  files = {stem(other.name): other for other in others} | {alone.name: path}
  for other in others:
    kept = files[stem(other.name)]
    if other != kept:
      problem = f'{shown(kept)} and {shown(other)} are one modality of one case; keep one of them'
      return alone, [problem]
  found, problems = together(dict(sorted(files.items())), modalities)
  return next((case for case in found.values() if path in case.files), alone), problems


def numbered(folder: Path) -> dict[str, list[Path]]:
  """The image files in a folder whose names end in a number, by what stands before that."""
  found: dict[str, list[Path]] = {}
  for path in sorted(folder.iterdir()):
    part = _NUMBERED.fullmatch(stem(path.name))
    if part and suffix(path.name) in SUFFIXES:
      found.setdefault(part[1], []).append(path)
  return found


def lacking(case: Case, modalities: Sequence[str]) -> list[str]:
  """The modalities of which a case has no file."""
  if len(case.files) < len(modalities):
    return []
  return [name for name, path in zip(modalities, case.files, strict=True) if path is None]


def incomplete(case: Case, modalities: Sequence[str]) -> str:
  """What is to be said of a case that lacks modalities; '' where it has them all."""
  missing = lacking(case, modalities)
  if not missing:
    return ''
  places = (f'{case.name}_{modalities.index(name):04d}' for name in missing)
  return (
    f'case {shown(case)} lacks {", ".join(missing)}; add {", ".join(places)} beside '
    f'{shown(case.first)}, leave the case out, or train with config.data.modality_dropout'
  )


def entries(intensity: Sequence[str], modalities: Sequence[str]) -> tuple[str, ...]:
  """Of config.data.intensity, one for each modality."""
  return tuple(intensity) if len(intensity) > 1 else (*intensity,) * len(modalities)


def read_slices(case: Case, wanted: Sequence[str], axis: int = 2) -> list[tuple[str, Picture]]:
  """Reads a case.

  Args:
    wanted: of each modality, what `entries` gives.
    axis: as for `dispatch.read_slices`.

  Returns:
    As `dispatch.read_slices`; pictures are uint8 [H, W, M], MISSING where a modality has no file.

  Raises:
    Unreadable, UnsupportedImage: see there. The latter also where files have other numbers of
      modalities, sizes or places.
  """
  if len(case.files) < len(wanted):
    pictures = _read(case.first, wanted, axis)
  else:
    read = [
      None if path is None else _read(path, [entry], axis)
      for path, entry in zip(case.files, wanted, strict=True)
    ]
    _check_together(case, read)
    pictures = _joined(read)
  if len(pictures) == 1:
    return [('', pictures[0])]
  return [(f'_s{index:04d}', picture) for index, picture in enumerate(pictures)]


def _read(path: Path, wanted: Sequence[str], axis: int) -> list[Picture]:
  """The slices of one file that holds so many modalities."""
  with decoding(path):
    if suffix(path.name) in NIFTI:
      return nifti.read_modalities(path, wanted, axis)
    if dispatch.is_volume_file(path):
      raise UnsupportedImage(f'{shown(path)} is DICOM, of which no modalities are read; {LAYOUTS}')
    kind, pages = raster.describe(path)
    if kind and pages != len(wanted):
      raise UnsupportedImage(
        f'{shown(path)} holds {count_of(pages)} (pages), where {len(wanted)} should be; {LAYOUTS}'
      )
    planes = [raster.read_grey(path, page) for page in range(len(wanted))]
  (first, orientation), *others = planes
  for page, (values, _) in enumerate(others, 2):
    if values.shape != first.shape:
      raise UnsupportedImage(
        f'{shown(path)}: page 1 is {_size(first.shape)}, and page {page} {_size(values.shape)} '
        '(width x height); make them the same size'
      )
  pixels = [
    to_bytes(values, *modality_range(values, entry))
    for (values, _), entry in zip(planes, wanted, strict=True)
  ]
  height, width = first.shape
  return [Picture(np.stack(pixels, -1), None, (height, width), orientation)]


def _check_together(case: Case, read: Sequence[list[Picture] | None]) -> None:
  """Refuses files that do not show the same place."""
  (first, pictures), *others = (
    (path, found)
    for path, found in zip(case.files, read, strict=True)
    if path is not None and found is not None
  )
  for path, found in others:
    if (suffix(path.name) in NIFTI) != (suffix(first.name) in NIFTI):
      raise UnsupportedImage(
        f'{shown(path)} and {shown(first)} are not both NIfTI; save both as NIfTI, or neither'
      )
    if suffix(path.name) in NIFTI:
      nifti.check_pair(first, path, _CURE)
    if len(found) != len(pictures) or found[0].size != pictures[0].size:
      own, other = (
        f'{_size(each[0].size)}' + f' with {len(each)} slices' * (len(each) > 1)
        for each in (found, pictures)
      )
      raise UnsupportedImage(
        f'{shown(path)} is {own}, and {shown(first)} {other} (width x height); resample the one '
        'onto the other'
      )
    if found[0].orientation != pictures[0].orientation:
      raise UnsupportedImage(
        f'{shown(path)} and {shown(first)} are turned differently by their EXIF orientation; save '
        'both turned, without the tag'
      )


def _joined(read: Sequence[list[Picture] | None]) -> list[Picture]:
  """The slices of all modalities, in order."""
  known = [found for found in read if found is not None]
  empty = [np.full_like(picture.pixels, MISSING) for picture in known[0]]
  planes = [empty if found is None else [picture.pixels for picture in found] for found in read]
  return [
    picture._replace(
      pixels=np.concatenate([plane[index] for plane in planes], -1),
      remark=next(filter(None, (found[index].remark for found in known)), ''),
    )
    for index, picture in enumerate(known[0])
  ]


def _size(shape: tuple[int, ...]) -> str:
  """Of [height, width], as 'width x height'."""
  return f'{shape[1]}x{shape[0]}'
