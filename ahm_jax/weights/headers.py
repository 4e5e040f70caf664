"""What files of arrays, .npz and .safetensors, say that they hold: nothing is read, inflated or
allocated for an array before somebody who has seen its shape asks for it.
"""

import functools
import io
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from ahm_jax.runtime import json_files, schema

HALF = 'bfloat16'  # Which NumPy does not have; it is read as float32, which holds it exactly.
FLOATS = (HALF, 'float16', 'float32', 'float64')
_MOST_NPY = 2**16  # Bytes of a header of one array,
_MOST_SAFETENSORS = 10**8  # and of one of a whole file, as of the package safetensors.
_SAFETENSORS = {
  **{f'F{bits}': f'float{bits}' for bits in (16, 32, 64)},
  **{f'I{bits}': f'int{bits}' for bits in (8, 16, 32, 64)},
  **{f'U{bits}': f'uint{bits}' for bits in (8, 16, 32, 64)},
  **{'BOOL': 'bool', 'BF16': HALF},
}
_TENSOR = schema.record(
  {
    'dtype': schema.text,
    'shape': schema.list_of(schema.count()),
    'data_offsets': schema.list_of(schema.count()),
  }
)


class Stored(NamedTuple):
  """An array in an open file.

  Attributes:
    shape: as the file says.
    dtype: NumPy's name, or HALF; of a type that cannot be read, what the file calls it, and a cure.
    read: gives the array; raises what a damaged file sets off.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]


def npz(file: IO[bytes]) -> dict[str, Stored]:
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
  if size > _MOST_NPY:
    raise ValueError(f'the header of {schema.shown(name)} is too long')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # Headers of Python 2 are read, and warned of.
    try:
      return reader(io.BytesIO(length + content.read(size)))
    except Exception as error:  # NumPy evaluates the text, and what that sets off has no end.
      raise ValueError(f'the header of {schema.shown(name)} is damaged') from error


def safetensors(file: IO[bytes]) -> dict[str, Stored]:
  """The arrays in an open .safetensors, whose format is that of
  https://github.com/huggingface/safetensors; raises a ValueError for any other file.
  """
  total = os.fstat(file.fileno()).st_size
  length = int.from_bytes(start := file.read(8), 'little')
  if len(start) < 8 or 8 + length > total or length > _MOST_SAFETENSORS:
    raise ValueError('its header is not whole')
  header = json_files.parse(file.read(length))
  schema.require(schema.mapping(), header)
  header.pop('__metadata__', None)
  begin, found, ends = 8 + length, {}, []
  for name, told in header.items():
    try:
      schema.require(_TENSOR, told)
      found[name] = _tensor(file, told, begin)
    except ValueError as error:
      raise ValueError(f'{schema.shown(name)}: {error}') from error
    ends.append(tuple(told['data_offsets']))
  place = 0
  for first, last in sorted(ends):
    if first != place:
      raise ValueError('its arrays overlap, or have gaps between them')
    place = last
  if begin + place != total:
    raise ValueError('it is not as long as its header says')
  return found


def _tensor(file: IO[bytes], told: dict[str, Any], begin: int) -> Stored:
  shape, dtype = tuple(told['shape']), _SAFETENSORS.get(told['dtype'])
  offsets = told['data_offsets']
  if len(offsets) != 2 or offsets[0] > offsets[1]:
    raise ValueError('its data_offsets are not two numbers in order')
  first, last = offsets
  if dtype is None:
    said = f'{schema.shown(told["dtype"])}, which is not read: save it as float32'
    return Stored(shape, said, functools.partial(_unread, said))
  kind = np.dtype('uint16' if dtype == HALF else dtype).newbyteorder('<')
  if math.prod(shape) * kind.itemsize != last - first:
    raise ValueError('its shape and its data_offsets do not belong together')

  def read() -> np.ndarray:
    file.seek(begin + first)
    array = np.frombuffer(file.read(last - first), kind).reshape(shape)
    if dtype == HALF:
      return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(kind.newbyteorder('='))

  return Stored(shape, dtype, read)


def _unread(said: str) -> np.ndarray:
  raise ValueError(f'an array is of type {said}')
