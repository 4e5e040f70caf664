"""Arrays in .npz files of strangers: nothing is inflated or allocated for an array before somebody
who has seen its shape asks for it.
"""

import io
import math
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import IO, NamedTuple

import numpy as np

from ahm_jax.runtime import schema

_MOST_HEADER = 2**16  # Bytes of that of one array.


class Stored(NamedTuple):
  """An array in an open file.

  Attributes:
    shape: as the file says.
    dtype: NumPy's name, or another that its reader knows; of a type that cannot be read, what the
      file calls it, and a cure.
    read: gives the array; raises what a damaged file sets off.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]


def arrays(file: IO[bytes]) -> dict[str, Stored]:
  """The arrays in an open .npz; raises a ValueError, or what `zipfile` raises, for any other."""
  found: dict[str, Stored] = {}
  if file.read(6) == b'\x93NUMPY':
    raise ValueError('it is a single array')
  # Names that are no ASCII and not said to be UTF-8 are no concern of the user.
  archive = zipfile.ZipFile(file)
  for member in archive.infolist():
    name = member.filename.removesuffix('.npy')
    if name in found:
      raise ValueError(f'it holds {schema.shown(name)} twice')
    if member.flag_bits & 1:
      raise ValueError('it is encrypted')
    # NumPy writes no others, and of these alone a few bytes cannot become gigabytes at once.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(f'its compression, number {member.compress_type}, is none of NumPy')
    found[name] = _member(archive, member, name)
  return found


def comment(file: IO[bytes]) -> bytes:
  """Of an open .npz, as an archive has one; raises what `zipfile` raises for any other file."""
  return zipfile.ZipFile(file).comment


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Stored:
  with archive.open(member) as content:
    shape, in_fortran_order, dtype = _npy_header(content, name)
    start = content.tell()
  size = math.prod(shape) * dtype.itemsize
  if dtype.hasobject or min(shape, default=0) < 0 or start + size != member.file_size:
    why = 'holds Python objects' if dtype.hasobject else 'is not as long as its header says'
    raise ValueError(f'{schema.shown(name)} {why}')

  def read() -> np.ndarray:
    with archive.open(member) as content:
      content.read(start)
      numbers = content.read(size)
      content.read(1)  # At the end the checksum is looked at.
    flat = np.frombuffer(numbers, dtype)
    array = flat.reshape(shape[::-1]).T if in_fortran_order else flat.reshape(shape)
    return array.astype(dtype.newbyteorder('='))

  return Stored(shape, dtype.newbyteorder('=').name, read)


def _npy_header(content: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
  start = content.read(8)
  major = start[6] if start[:6] == b'\x93NUMPY' and len(start) == 8 else 0
  kind, reader = {
    1: ('<H', np.lib.format.read_array_header_1_0),
    2: ('<I', np.lib.format.read_array_header_2_0),
  }.get(major, (None, None))
  if kind is None or reader is None:
    raise ValueError(f'{schema.shown(name)} is no array')
  length = content.read(struct.calcsize(kind))
  size = struct.unpack(kind, length)[0]
  if size > _MOST_HEADER:
    raise ValueError(f'the header of {schema.shown(name)} is too long')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Headers of Python 2 are read, and warned of.
    try:
      return reader(io.BytesIO(length + content.read(size)))
    except Exception as error:  # NumPy evaluates the text, and what that sets off has no end.
      raise ValueError(f'the header of {schema.shown(name)} is damaged') from error
