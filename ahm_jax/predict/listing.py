"""The images below a folder, by name; of pixels it reads none."""

import contextlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import (
  NIFTI,
  RASTER,
  SUFFIXES,
  Case,
  UnavailableFile,
  is_odd,
  shown,
  suffix,
)
from ahm_jax.data.readers.base import stem as bare
from ahm_jax.data.readers.cases import together
from ahm_jax.errors import UserError, first, printable

_SLICE = re.compile(r'_s\d{4,}$')


class Listing(NamedTuple):
  """What lies below a folder, as paths relative to it, with '/', in order."""

  images: list[str]
  passed_over: list[str]  # What is no image, and links to folders; hidden files are not named.


def list_images(root: Path) -> Listing:
  """The images below `root`: what has one of `SUFFIXES`, and DICOM of any other name.

  Raises:
    UserError: there is none; a folder cannot be listed; two would have the same mask; or a package
      is missing that reads one of them.
  """
  with _said(root):
    if not root.is_dir():
      raise UserError(
        f'--images={root}: there is no such folder; give the folder that holds the images'
      )
    if (root / 'images').is_dir() and (root / 'masks').is_dir():
      raise UserError(
        f'--images={root} holds images/ and masks/, and masks are no images; give {root / "images"}'
      )
    images, passed_over = _walk(root)
  if not images:
    others = f'; it holds {some(passed_over)}' if passed_over else ''
    raise UserError(
      f'--images={root} holds no image; it should hold files that end in {", ".join(SUFFIXES)}, or '
      f'DICOM of any name{others}'
    )
  images.sort(key=as_cell)
  check_stems(root, images)
  for volume in {suffix(name) in NIFTI: name for name in images if is_volume(name)}.values():
    dispatch.require(root / volume)
  return Listing(images, sorted(map(as_cell, passed_over)))


def stem(name: str) -> str:
  """The path without its suffix, of which the names of what is made from it are built."""
  folder, slash, last = name.rpartition('/')
  return folder + slash + bare(last)


def is_volume(name: str) -> bool:
  """Whether a listed image may hold many slices; one without a suffix of ours is DICOM."""
  return suffix(name) not in RASTER


def as_cell(name: str) -> str:
  """The name as the table has it: itself, or escaped where it holds what would break a line or
  hide.
  """
  return printable(name) if is_odd(name) else name


def some(names: Sequence[str]) -> str:
  """How many there are, and the first few, for a line."""
  return f'{len(names)} ({first(names, 3)})'


def look_alikes(names: Sequence[str]) -> tuple[str, str] | None:
  """The first two whose masks share a name where a file system takes a letter's cases, or ways to
  compose it, for one.
  """
  seen: dict[str, str] = {}
  for name in names:
    other = seen.setdefault(unicodedata.normalize('NFC', stem(name)).casefold(), name)
    if other != name:
      return other, name
  return None


def _walk(root: Path) -> tuple[list[str], list[str]]:
  images: list[str] = []
  others: list[str] = []
  for place, folders, files in os.walk(root, onerror=_raise):
    folders[:] = [name for name in folders if not name.startswith('.')]
    below = Path(place).relative_to(root)
    others += [
      f'{(below / name).as_posix()}/ (a link)' for name in folders if Path(place, name).is_symlink()
    ]
    for name in files:
      if not name.startswith('.'):
        kind = images if _may_be_image(Path(place, name)) else others
        kind.append((below / name).as_posix())
  return images, others


def _may_be_image(path: Path) -> bool:
  """Whether a file is an image, or cannot be looked at now, as its row will say."""
  try:
    return dispatch.is_image_file(path)
  except UnavailableFile:
    return True


def _raise(error: OSError) -> NoReturn:
  raise error


@contextlib.contextmanager
def _said(root: Path) -> Iterator[None]:
  """Images that cannot be seen now are not to be taken for gone."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'--images={root}: {error.filename or root} cannot be listed ({error.strerror or error}); '
      'make it readable, or move it elsewhere'
    ) from error


def cases_of(root: Path, names: Sequence[str], modalities: Sequence[str]) -> dict[str, Case]:
  """The cases that listed images hold, by name, in order: a file with all modalities by its own
  name, files of one modality each by what their names have in common.

  Raises:
    UserError: one is numbered as no modality, or two would have the same mask.
  """
  found: dict[str, Case] = {}
  problems: list[str] = []
  for folder, members in itertools.groupby(sorted(names, key=_folder), key=_folder):
    files = {bare(name.rpartition('/')[2]): root / name for name in members}
    cases, wrong = together(files, modalities)
    problems += wrong
    for case in cases.values():
      whole = len(case.files) < len(modalities) or bare(case.first.name) == case.name
      name = folder + (case.first.name if whole else case.name)
      other = found.setdefault(name, case)
      if other is not case:
        problems.append(f'{shown(other.first)} and {shown(case.first)} would have the same mask')
  if problems:
    raise UserError(f'{root}: {problems[0]}')
  found = dict(sorted(found.items(), key=lambda item: as_cell(item[0])))
  check_stems(root, list(found))
  return found


def _folder(name: str) -> str:
  """With a slash at its end, or nothing."""
  return name[: -len(name.rpartition('/')[2])]


def check_stems(root: Path, names: Sequence[str]) -> None:
  """Refuses what would be written in one place; a volume may give slices up to any number."""
  seen: dict[str, str] = {}
  for name in names:
    other = seen.setdefault(stem(name), name)
    if other != name:
      raise UserError(
        f'{root}: {as_cell(other)} and {as_cell(name)} would have the same mask; rename one of them'
      )
  for key, name in seen.items():
    volume = seen.get(_SLICE.sub('', key), name)
    if volume != name and is_volume(volume):
      raise UserError(
        f'{root}: {as_cell(name)} and a slice of {as_cell(volume)} would have the same mask; '
        'rename one of them'
      )
