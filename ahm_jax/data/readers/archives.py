"""Files inside zip archives, read where they lie: nothing is unpacked, and nothing that a header
promises is believed.
"""

import functools
import threading
import zipfile
from pathlib import Path, PurePosixPath

from ahm_jax.data.readers.base import Held, unavailable
from ahm_jax.errors import UserError, is_of_system, printable

MAX_BYTES = 2**27  # Of a member, unpacked; more is taken for a zip bomb.
MAX_MEMBERS = 200_000
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks others without a bound.
_ENCRYPTED = 0x1  # Flag bit.


def members(path: Path, again: str) -> dict[str, Held]:
  """The files in a zip archive by their bare names, whatever folder of it they lie in; hidden ones
  are passed over.

  Args:
    path: the archive. It is kept open; threads may read its members.
    again: what to do where it is damaged, the end of a line for the user.

  Raises:
    UserError: it is no whole archive, a name leads out of it or is there twice, or a member is
      encrypted, too large, or packed in another way than deflate.
  """
  try:
    archive = zipfile.ZipFile(path)
  except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
    if isinstance(error, OSError) and is_of_system(error):
      raise unavailable(path, error) from error
    raise UserError(f'{path} cannot be read as a zip archive ({error}); {again}') from error
  infos = [info for info in archive.infolist() if not info.is_dir()]
  if len(infos) > MAX_MEMBERS:
    raise UserError(f'{path} holds {len(infos)} files, more than {MAX_MEMBERS}; {again}')
  lock = threading.Lock()
  found: dict[str, Held] = {}
  for info in infos:
    place = PurePosixPath(info.filename)
    _check(path, info, place, again)
    if place.name.startswith('.') or '__MACOSX' in place.parts:
      continue
    if place.name in found:
      raise UserError(f'{path} holds {place.name} twice; {again}')
    found[place.name] = Held(
      PurePosixPath(path.name) / place.name, functools.partial(_read, archive, info, lock)
    )
  return found


def _check(path: Path, info: zipfile.ZipInfo, place: PurePosixPath, again: str) -> None:
  name = printable(info.filename)
  if place.is_absolute() or '..' in place.parts or '\\' in info.filename or ':' in info.filename:
    raise UserError(f'{path} holds {name!r}, a name that leads out of it; {again}')
  if info.file_size > MAX_BYTES:
    raise UserError(
      f'{path} holds {name}, which says that it unpacks to {info.file_size} bytes, over '
      f'{MAX_BYTES}; {again}'
    )
  if info.flag_bits & _ENCRYPTED or info.compress_type not in _KINDS:
    raise UserError(f'{path} holds {name}, which is encrypted or packed in an unusual way; {again}')


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, lock: threading.Lock) -> bytes:
  """A member's bytes.

  Python stops unpacking at the size that was checked, and compares the sum of what there is.
  """
  with lock:  # Python counts who reads an archive, but not safely among threads.
    return archive.read(info)
