"""The images below a folder, by name; reads no pixels."""

import os
import re
from pathlib import Path

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import RASTER, SUFFIXES, is_odd, is_volume, printable, suffix
from ahm_jax.errors import UserError

_SLICE = re.compile(r'_s\d{4,}$')


def list_images(root: Path) -> list[str]:
  """Paths of the images below `root`, relative to it, with '/', in order. Hidden files and links to
  folders are passed over.

  Raises:
    UserError: there is none; two would have the same mask; or a package is missing that reads one
      of them.
  """
  if not root.is_dir():
    raise UserError(
      f'--images={root}: there is no such folder; give the folder that holds the images'
    )
  if (root / 'images').is_dir() and (root / 'masks').is_dir():
    raise UserError(
      f'--images={root} holds images/ and masks/, and masks are no images; give {root / "images"}'
    )
  names = []
  for folder, folders, files in os.walk(root):
    folders[:] = [name for name in folders if not name.startswith('.')]
    place = Path(folder).relative_to(root)
    names += [
      (place / name).as_posix()
      for name in files
      if not name.startswith('.') and suffix(name) in SUFFIXES
    ]
  if not names:
    raise UserError(
      f'--images={root} holds no image; it should hold files that end in {", ".join(SUFFIXES)}'
    )
  names.sort(key=as_cell)
  _check_stems(root, names)
  for ending in {suffix(name) for name in names} - set(RASTER):
    dispatch.require(root / next(name for name in names if suffix(name) == ending))
  return names


def stem(name: str) -> str:
  """The name without its suffix, of which the names of what is made from it are built."""
  return name[: -len(suffix(name))]


def as_cell(name: str) -> str:
  """The name as the table has it: itself, or escaped where it holds what would break a line or
  hide.
  """
  return printable(name) if is_odd(name) else name


def _check_stems(root: Path, names: list[str]) -> None:
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
    if volume != name and is_volume(Path(volume)):
      raise UserError(
        f'{root}: {as_cell(name)} and a slice of {as_cell(volume)} would have the same mask; '
        'rename one of them'
      )
