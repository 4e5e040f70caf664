"""The pages of a TIFF: which of them are images, and which only previews or parts of them.

Cameras and scanners of slides put reduced images beside the image, sometimes before it. Each page
says what it is; where none does, the first one counts.
"""

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from PIL import TiffImagePlugin as plugin

# Kinds of pages: the lower is looked for before the other; of what is lost nothing is known.
IMAGE, TRANSPARENCY, PREVIEW, LOST = range(4)
_SUBFILE, _OLD_SUBFILE = 254, 255  # What a page is: bits of it, and a number of TIFF 4.
_REDUCED, _MASK = 1, 4
_OLD_REDUCED = 2
_SUBDIRECTORIES = 330
_NUMBERS = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # Types of TIFF by those of struct.
_MAX_TAGS = 2**16 - 1


class Directory(NamedTuple):
  """What describes a page, read without what it points to."""

  entries: dict[int, tuple[int, int, bytes]]  # By tag: type, number of values, and their bytes.
  next: int  # Where the next one begins; 0: nowhere.
  length: int  # In bytes.
  is_cut: bool

  def number(self, tag: int, order: str) -> int:
    """The value of a tag of one number; 0 where there is none."""
    kind, count, data = self.entries.get(tag, (0, 0, b''))
    form = order + _NUMBERS.get(kind, 'B')
    if count != 1 or kind not in _NUMBERS or struct.calcsize(form) > len(data):
      return 0
    return struct.unpack_from(form, data)[0]


def directory(file: IO[bytes], tags: plugin.ImageFileDirectory_v2, place: int) -> Directory:
  """The directory at `place` of a file of the byte order and kind of `tags`."""
  count, entry, pointer = ('Q', 'HHQ8s', 'Q') if tags._bigtiff else ('H', 'HHI4s', 'I')
  before = file.tell()
  file.seek(place)
  size, each, last = (struct.calcsize(tags._endian + kind) for kind in (count, entry, pointer))
  (length,) = struct.unpack(tags._endian + count, file.read(size).ljust(size, b'\0'))
  data = file.read(each * min(length, _MAX_TAGS))
  (following,) = struct.unpack(tags._endian + pointer, file.read(last).ljust(last, b'\0'))
  file.seek(before)
  is_cut = not length or len(data) < each * length
  whole = data[: len(data) // each * each]
  found = {
    tag: (kind, number, values)
    for tag, kind, number, values in struct.iter_unpack(tags._endian + entry, whole)
  }
  return Directory(found, 0 if is_cut else following, size + len(data) + last, is_cut)


def kinds(file: IO[bytes], tags: plugin.ImageFileDirectory_v2, first: int) -> Iterator[int]:
  """The kind of each page, as far as the chain of directories goes on; LOST ends it.

  Args:
    tags: of any page.
    first: where the directory of the first page begins.
  """
  before = file.tell()
  left = file.seek(0, 2)  # Directories that overlap are no pages, but would take for ever.
  file.seek(before)
  place, seen = first, set[int]()
  while place and place not in seen and left >= 0:
    seen.add(place)
    found = directory(file, tags, place)
    left -= found.length
    new, old = (found.number(tag, tags._endian) for tag in (_SUBFILE, _OLD_SUBFILE))
    yield LOST if found.is_cut else _kind(new, old)
    place = found.next


def kind(tags: plugin.ImageFileDirectory_v2) -> int:
  """The kind of a page that Pillow has read."""
  new, old = (tags.get(tag, 0) for tag in (_SUBFILE, _OLD_SUBFILE))
  return _kind(*(number if isinstance(number, int) else 0 for number in (new, old)))


def has_subdirectories(tags: plugin.ImageFileDirectory_v2) -> bool:
  """Whether a page has others below it, as raw files of cameras have their image."""
  return _SUBDIRECTORIES in tags


def _kind(new: int, old: int) -> int:
  if new & _REDUCED or old == _OLD_REDUCED:
    return PREVIEW
  return TRANSPARENCY if new & _MASK else IMAGE
