"""Whether a file is DICOM whatever its name is, as scanners and archives write them.

By 'DICM' after a preamble (PS3.10), or by elements at once, as files from before 1993 and dumps of
what went over a network begin.
"""

import re
import struct
from pathlib import Path

from ahm_jax.data.readers.base import unavailable

_PREAMBLE, _MARK = 128, b'DICM'
_DIRECTORY = b'UI\x14\x001.2.840.10008.1.3.10'  # A DICOMDIR, which names other files.
_SEEN = 2**12  # Bytes from the start that are looked at.
_CHECKED = 3  # Elements that must follow each other.
_LAST_GROUP = 0x28  # That an image begins with.
# Value representations by the size of their lengths, 16 or 32 bits.
_SHORT = re.compile(b'A[EST]|CS|D[AST]|F[DL]|IS|L[OT]|PN|S[HLST]|TM|U[ILS]')
_LONG = re.compile(b'O[BDFLVW]|S[QV]|U[CNRTV]')


def is_content(path: Path) -> bool:
  """Whether a file holds DICOM that may be an image; opens regular files only.

  Raises:
    UnavailableFile: the system refuses it.
  """
  try:
    if not path.is_file():
      return False
    with path.open('rb') as file:
      start = file.read(_SEEN)
  except FileNotFoundError:
    return False
  except OSError as error:
    raise unavailable(path, error) from error
  return is_start(start) and not (data_offset(start) and _DIRECTORY in start)


def is_start(start: bytes) -> bool:
  """Whether these are the first bytes of a DICOM file."""
  return data_offset(start) > 0 or any(_has_elements(start, order) for order in '<>')


def data_offset(start: bytes) -> int:
  """Where the elements of a DICOM file begin: after its preamble, or at once."""
  end = _PREAMBLE + len(_MARK)
  return end if start[_PREAMBLE:end] == _MARK else 0


def _has_elements(start: bytes, order: str) -> bool:
  """Whether bytes begin with elements of the first groups, in order, in a byte order."""
  place, last = 0, (0, 0)
  for index in range(_CHECKED):
    if len(start) < place + 12:
      return False
    tag = struct.unpack_from(f'{order}HH', start, place)
    is_first = index == 0 and tag[0] not in (2, 8)
    if is_first or tag <= last or tag[0] > _LAST_GROUP or tag[0] % 2:
      return False
    place, last = _after(start, place, order), tag
  return True


def _after(start: bytes, place: int, order: str) -> int:
  """Where the element after that at `place` begins, or would if it were one."""
  vr = start[place + 4 : place + 6]
  if _SHORT.match(vr):
    return place + 8 + struct.unpack_from(f'{order}H', start, place + 6)[0]
  if _LONG.match(vr):
    return place + 12 + struct.unpack_from(f'{order}I', start, place + 8)[0]
  return place + 8 + struct.unpack_from(f'{order}I', start, place + 4)[0]  # An implicit one.
