"""What .safetensors say that they hold: nothing is read or allocated for an array before somebody
who has seen its shape asks for it.
"""

import functools
import math
import os
from typing import IO, Any

import numpy as np

from ahm_jax.runtime import json_files, schema
from ahm_jax.runtime.npz import Stored

HALF = 'bfloat16'  # Which NumPy does not have; it is read as float32, which holds it exactly.
FLOATS = (HALF, 'float16', 'float32', 'float64')
_METADATA = '__metadata__'
_MOST_HEADER = 10**8  # Bytes of a header, as of the package safetensors.
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


def safetensors(file: IO[bytes]) -> dict[str, Stored]:
  """The arrays in an open .safetensors, whose format is that of
  https://github.com/huggingface/safetensors; raises a ValueError for any other file.
  """
  header, begin = _header(file)
  header.pop(_METADATA, None)
  found, ends = {}, []
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
  if begin + place != os.fstat(file.fileno()).st_size:
    raise ValueError('it is not as long as its header says')
  return found


def metadata(file: IO[bytes]) -> Any:
  """What an open .safetensors says beside its arrays; raises as `safetensors`."""
  return _header(file)[0].get(_METADATA)


def _header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
  """The header, and where it ends."""
  total = os.fstat(file.fileno()).st_size
  length = int.from_bytes(start := file.read(8), 'little')
  if len(start) < 8 or 8 + length > total or length > _MOST_HEADER:
    raise ValueError('its header is not whole')
  header = json_files.parse(file.read(length))
  schema.require(schema.mapping(), header)
  return header, 8 + length


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
