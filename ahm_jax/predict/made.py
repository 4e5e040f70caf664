"""made.txt: what was made of each image, by which the next run knows what is done, and from what.

A line an image: a checksum, and JSON with the image's stamp and digest, the sizes of its files and
its rows of the table. A line that is not as it was written counts as missing, so that its image is
done again. It is a file of its own, since times and sizes would be in a reader's way in the table.
"""

import hashlib
import json
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ahm_jax.data.readers.base import Case

FILE = 'made.txt'
FOLDERS = ('masks', 'probabilities', 'overlays', 'volumes')

# Of each file of an image its size, and times of the last change of content and of status in ns:
# copies may keep the former time, and new permissions or links change the latter alone. Empty where
# the system does not tell.
Stamp = tuple[int, ...]


class Entry(NamedTuple):
  """Of one image."""

  image: str  # Its cell in the table.
  stamp: Stamp
  files: dict[str, int]  # Size of each by its path below the folder; none: it has no mask.
  rows: str  # The lines of the table.
  digest: str = ''  # Of the image as it was read; '': not known.


def stamp(image: Path | Case) -> Stamp:
  """What changes when an image is written again, or another put into its place."""
  try:
    found = [path.stat() for path in files(image)]
  except OSError:
    return ()
  return tuple(
    number for file in found for number in (file.st_size, file.st_mtime_ns, file.st_ctime_ns)
  )


def digest(image: Path | Case, expected: Stamp) -> str:
  """Of the content of its files; '' where one cannot be read, or its stamp is not what is
  expected.
  """
  found = []
  try:
    for path in files(image):
      with path.open('rb') as file:
        found.append((path.name, hashlib.file_digest(file, 'sha256').hexdigest()))
  except OSError:
    return ''
  if stamp(image) != expected:
    return ''
  if isinstance(image, Path):
    return found[0][1]
  return hashlib.sha256(repr(found).encode()).hexdigest()


def files(image: Path | Case) -> list[Path]:
  """Those that an image lies in."""
  return image.present if isinstance(image, Case) else [image]


def is_same_but_for_status(first: Stamp, second: Stamp) -> bool:
  """Whether of two stamps that differ only times of the last change of status do."""
  pairs = enumerate(zip(first, second, strict=False))
  changed = {place % 3 for place, (one, other) in pairs if one != other}
  return len(first) == len(second) > 0 and changed <= {2}


def has_size(path: Path, size: int) -> bool:
  """Whether a file, and no link, is there and has this size."""
  try:
    found = path.lstat()
  except OSError:
    return False
  return stat.S_ISREG(found.st_mode) and found.st_size == size


def header(columns: Sequence[str]) -> bytes:
  """The first line, which says how rows are to be read."""
  return _line({'columns': list(columns)})


def line(entry: Entry) -> bytes:
  return _line(entry._asdict())


def read(path: Path, columns: Sequence[str]) -> Iterator[Entry]:
  """The entries, in the order in which they were written; none where the rows have other columns,
  or there is no such file.
  """
  try:
    file = path.open('rb')
  except FileNotFoundError:
    return
  with file:
    if file.readline() == header(columns):
      yield from filter(None, map(_entry, file))


def _line(content: dict) -> bytes:
  text = json.dumps(content).encode()
  return b'%08x %s\n' % (zlib.crc32(text), text)


def _entry(line: bytes) -> Entry | None:
  checksum, _, text = line.rstrip(b'\n').partition(b' ')
  if checksum != b'%08x' % zlib.crc32(text):
    return None
  try:
    entry = Entry(**json.loads(text))  # Which the checksum vouches for.
    is_sound = (
      isinstance(entry.image, str)
      and isinstance(entry.rows, str)
      and isinstance(entry.digest, str)
      and all(isinstance(size, int) and _is_ours(place) for place, size in entry.files.items())
    )
    return entry._replace(stamp=tuple(entry.stamp)) if is_sound else None
  except (ValueError, TypeError, AttributeError, RecursionError):
    return None


def _is_ours(place: str) -> bool:
  folder, *others = PurePosixPath(place).parts or ['']
  return folder in FOLDERS and '..' not in others and '\0' not in place
