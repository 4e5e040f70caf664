"""What every reader shares: types, limits, names of files, and what becomes of errors."""

import contextlib
import importlib
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.errors import UserError, cannot_read, is_of_system, printable

RASTER = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
DICOM = ('.dcm', '.dicom', '.ima')
NIFTI = ('.nii', '.nii.gz')
VOLUMES = DICOM + NIFTI  # One slice or many.
SUFFIXES = RASTER + VOLUMES
# Of an image or slice: Pillow's own limit, 256 MiB of RGB. More is taken for a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_VALUES = 2**28  # Of a volume: 512 x 512 x 1024; 2 GiB where they are stored in 8 bytes.

# How modalities lie in files, for messages.
LAYOUTS = (
  'give a case one file (NIfTI with a fourth axis, or TIFF with a page a modality), or files '
  'CASE_0000, CASE_0001, ... in the order of config.data.modalities'
)

# Unicode categories: control characters, half surrogates, separators of lines.
_INVISIBLE = ('Cc', 'Cs', 'Zl', 'Zp')
# Would show a name in another order.
_TURNING = frozenset('\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')


class Unreadable(Exception):
  """A file that cannot be decoded; the message is its folder and name."""


class UnavailableFile(UserError):
  """A file that the system does not hand out now, or not into the memory that there is: what it
  holds is not known. Never skipped, and nothing that lacks it is kept.
  """


class UnsupportedImage(Exception):
  """A file that can be decoded but not used.

  The message is a line that says why, and what to do.
  """


class Held(NamedTuple):
  """A file that does not lie on a disk by itself.

  Stands for the Path of an image or mask that is no volume.
  """

  path: PurePath  # Where it is, for messages.
  read_bytes: Callable[[], bytes]

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def parent(self) -> PurePath:
    return self.path.parent


class Case(NamedTuple):
  """A patient's modalities, in one file or in a file each.

  Stands for the Path of an image; see `cases`.
  """

  name: str  # Without what tells its files apart, and without suffix.
  files: tuple[Path | None, ...]  # A file a modality, None where it is lacking; or that of all.

  @property
  def present(self) -> list[Path]:
    """The files that there are."""
    return [path for path in self.files if path is not None]

  @property
  def first(self) -> Path:
    """Of these."""
    return self.present[0]

  @property
  def parent(self) -> Path:
    return self.first.parent


class Picture(NamedTuple):
  """An image, or a slice of a volume."""

  pixels: np.ndarray  # uint8 [H, W, C], turned as its EXIF orientation asks; maybe read-only.
  # (row, column): mm from one pixel to the next down and across; None: unknown.
  spacing: tuple[float, float] | None
  # The file's own (height, width); `pixels` are smaller where `at_least` let them be.
  size: tuple[int, int]
  # EXIF orientation (1 to 8) by which `pixels` and `size` were turned; 1: they are as stored.
  orientation: int = 1
  # What its file says of voxel sizes twice, and differently; '': nothing. On the first slice only.
  remark: str = ''


def known_spacing(row: float, column: float) -> tuple[float, float] | None:
  """The spacing of a picture, from what a file gives for it; None where that means nothing."""
  row, column = float(row), float(column)
  return (row, column) if 0 < row < np.inf and 0 < column < np.inf else None


# Names.


def suffix(name: str) -> str:
  """The suffix of a file name in lower case, '.nii.gz' taken whole."""
  lower = name.lower()
  return '.nii.gz' if lower.endswith('.nii.gz') else PurePath(lower).suffix


def stem(name: str) -> str:
  """A file name without its suffix, where that is one of `SUFFIXES`: what follows the last dot of
  '1.2.840.7' is none.
  """
  ending = suffix(name)
  return name[: -len(ending)] if ending in SUFFIXES else name


def is_volume(path: PurePath | Held) -> bool:
  """Whether a file may hold many slices, by its name; `dispatch.is_volume_file` looks at it."""
  return suffix(path.name) in VOLUMES


def shown(path: PurePath | Held | Case) -> str:
  """Folder and name of a file in one line, with what is not printable escaped."""
  return printable((PurePath(path.parent.name) / path.name).as_posix())


def is_odd(text: str) -> bool:
  """Whether a name holds control characters, line breaks, halves of characters, or marks that
  turn the direction of writing.
  """
  return any(unicodedata.category(letter) in _INVISIBLE or letter in _TURNING for letter in text)


def link_problem(path: Path, root: Path) -> str:
  """What is wrong with a path that is a link.

  Links from one place within `root` to another are fine, as is one to `root`.
  """
  if not path.is_symlink():
    return ''
  name = path.name if path.parent == root else shown(path)
  if not path.exists():
    return f'{name} is a link to nothing; repair it or remove it'
  if not path.resolve().is_relative_to(root.resolve()):
    return f'{name} is a link that leads out of the folder; put a copy in its place'
  if not (path.is_file() or path.is_dir()):
    return f'{name} is a link to what is not a file; remove it'
  return ''


def count_of(modalities: int) -> str:
  """So many of them, in words."""
  return f'{modalities} modalit{"y" if modalities == 1 else "ies"}'


# Errors.


@contextlib.contextmanager
def decoding(path: Path | Held) -> Iterator[None]:
  """Where a decoder runs: whatever it raises becomes `Unreadable`; but `UnsupportedImage` where
  the image is too large or no file, and `UnavailableFile` where the system refuses the file or the
  memory.
  """
  try:
    _check_file(path)
    yield
  except (Unreadable, UnsupportedImage, UserError):
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise _too_large(path, MAX_PIXELS) from error
  except MemoryError as error:
    raise UnavailableFile(
      f'{shown(path)} does not fit into memory; free some, or split or shrink the file'
    ) from error
  except OSError as error:
    raise (unavailable(path, error) if is_of_system(error) else _failure(path)) from error
  # On broken files SyntaxError, ValueError, struct.error and others.
  except Exception as error:
    raise _failure(path) from error


def _check_file(path: Path | Held) -> None:
  """Refuses what would be read for ever, as a pipe, or cannot be, as a folder."""
  if not isinstance(path, Path):
    return
  with contextlib.suppress(OSError):  # Opening it will say why.
    if not stat.S_ISREG(path.stat().st_mode):
      raise UnsupportedImage(f'{shown(path)} is a pipe, socket, device or folder; remove it')


def _failure(path: Path | Held) -> Exception:
  """What it means that a decoder failed: some do not say that the system refused the file."""
  try:
    if isinstance(path, Path):
      with path.open('rb') as file:
        while file.read(2**20):
          pass
  except OSError as error:
    return unavailable(path, error)
  return Unreadable(shown(path))


def unavailable(path: Path | Held, error: OSError) -> UnavailableFile:
  """That the system refused a file, from its numbered error."""
  return UnavailableFile(cannot_read(shown(path), error))


def check_size(path: Path | Held, *lengths: int, limit: int = MAX_PIXELS) -> None:
  """Refuses what a header promises, before it is decoded: `lengths` of an image or volume that
  are not above 0, or too many.
  """
  if min(lengths) < 1:
    raise Unreadable(shown(path))
  total = 1
  for length in lengths:
    total *= int(length)  # Python's integers do not overflow.
  if total > limit:
    raise _too_large(path, limit)


def _too_large(path: Path | Held, limit: int) -> UnsupportedImage:
  return UnsupportedImage(
    f'{shown(path)} claims to hold more than {limit} pixels, which is taken for damage or an '
    'attack; scale it down'
  )


def package(name: str, path: Path) -> ModuleType:
  """Imports the optional package that reads a file.

  Raises:
    UserError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"{shown(path)} needs the package {name}; pip install 'ahm_jax[medical]' (in a checkout: "
      ".venv/bin/pip install -e '.[medical]')"
    ) from error
