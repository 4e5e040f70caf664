"""A JPEG that lacks the marker which ends it, as interrupted cameras and careless copies leave it.

libjpeg gives pixels of any JPEG that is cut, if an end is put behind it: what is missing is grey.
So it must be shown that nothing is missing. Behind the data of the last scan bits are added of
several kinds. Where some of the image is missing they are taken for it, so that the pixels differ;
where none is, they change nothing. And they do change something where the last bytes are taken
away, or else the data ended before, and what follows them may have been taken for image, as the
zeros of a file that was laid out but not written.
"""

import io
import itertools
import re
from collections.abc import Callable
from typing import IO, NamedTuple

import numpy as np

_END = b'\xff\xd9'
_PADDING = b'\0\xff'
_SCAN, _IMAGE_END = 0xDA, 0xD9
_FRAMES = (0xC0, 0xC1, 0xC2)
_COEFFICIENTS = 64
# A marker that ends the data of a scan: not a byte 255 of the data, nor one that restarts them.
_MARKER = re.compile(rb'\xff+([^\x00\xff\xd0-\xd7])')
_RESTART = re.compile(rb'\xff([\xd0-\xd7])')
_RESTARTS = 8  # They are numbered in a circle.
_LAST, _FEW = 32, 2  # Bytes at the end of which some must matter.
_FILL = 512  # Bytes that are added for each interval between restarts.
_KINDS = (
  *(b'\xff\0' * _FILL, b'\0' * _FILL, b'\x55' * _FILL, b'\xaa' * _FILL),
  np.random.default_rng(0).integers(0, 255, _FILL, np.uint8).tobytes(),
)


class _Scan(NamedTuple):
  components: bytes  # Their numbers.
  first: int  # Coefficients, in the order of frequency.
  last: int
  low: int  # Bits of them that are left for later scans.
  start: int  # Of its data.


def is_lacking(file: IO[bytes]) -> bool:
  """Whether a JPEG has no end, in which case libjpeg may take for image whatever follows."""
  place = file.tell()
  file.seek(-len(_END), io.SEEK_END)
  found = file.read() != _END  # Other files and padding may follow it.
  if found:
    file.seek(0)
    found = not _scans(file.read())[1]
  file.seek(place)
  return found


def completed(data: bytes, decoded: Callable[[bytes], np.ndarray | None]) -> bytes | None:
  """A JPEG with an end, where that is all that it lacks; None where it has one, or lacks more.

  Args:
    data: the file.
    decoded: the pixels of a JPEG; None where they cannot be decoded.
  """
  scans, has_end = _scans(data)
  if has_end or not scans:
    return None
  head, body = data[: scans[-1].start], data[scans[-1].start :]
  least = len(body.rstrip(_PADDING))
  # What looks like padding may belong to the data: a byte of it, which is 0 or 255, or all, of an
  # image that ends in one colour.
  more = min(least + (2 if body[least : least + 1] == b'\xff' else 1), len(body))
  for end, last in sorted({len(body): _FEW, more: _LAST, least: _LAST}.items()):
    part = body[:end].rstrip(b'\xff')
    if _is_all(head, part, last, decoded):
      return head + part + _END
  return None


def _is_all(
  head: bytes, body: bytes, last: int, decoded: Callable[[bytes], np.ndarray | None]
) -> bool:
  """Whether these are the data of the last scan, and at most `last` bytes more."""
  expected = decoded(head + body + _END)
  if expected is None:
    return False

  def changes(part: bytes, kind: bytes) -> bool:
    pixels = decoded(head + part + _added(part, kind) + _END)
    return pixels is None or not np.array_equal(pixels, expected)

  if any(changes(body, kind) for kind in _KINDS):
    return False
  shorter = body[:-last].rstrip(b'\xff')
  return not shorter or any(changes(shorter, kind) for kind in _KINDS)


def _added(body: bytes, kind: bytes) -> bytes:
  """Bits of a kind, for the interval in which the data end and for all that may follow."""
  restarts = _RESTART.findall(body)
  after = restarts[-1][0] + 1 if restarts else 0
  numbers = (0xD0 + (after + index) % _RESTARTS for index in range(_RESTARTS))
  return kind + b''.join(bytes((0xFF, number)) + kind for number in numbers)


def _is_complete(components: bytes, scans: list[_Scan]) -> bool:
  """Whether the scans, if whole, hold each bit of each coefficient of each component."""
  left = set(itertools.product(components, range(_COEFFICIENTS)))
  for scan in scans:
    held = set(itertools.product(scan.components, range(scan.first, scan.last + 1)))
    left = left | held if scan.low else left - held
  return not left


def _scans(data: bytes) -> tuple[list[_Scan], bool]:
  """The scans of a JPEG, of which the last one reaches to the end of the data, and whether a marker
  ends them; there are no scans where one is missing, or the data end within a header.
  """
  components, scans, place = b'', list[_Scan](), 2
  while found := _MARKER.search(data, place):
    marker, start = found[1][0], found.end()
    if marker == _IMAGE_END:
      return scans, True
    place = start + int.from_bytes(data[start : start + 2])
    if place > len(data):
      break
    if marker in _FRAMES:
      components = data[start + 8 : place : 3]
    elif marker == _SCAN:
      first, last, bits = data[place - 3 : place]
      scans.append(_Scan(data[start + 3 : place - 3 : 2], first, last, bits & 15, place))
      if not _MARKER.search(data, place):
        return scans if _is_complete(components, scans) else [], False
  return [], False
