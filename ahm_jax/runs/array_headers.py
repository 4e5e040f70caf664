"""What headers of arrays on disk claim, which is checked before TensorStore sees them: it ends the
process where it cannot allocate.
"""

import math
import re

from ahm_jax.runtime import json_files, schema

_FREE = 2**26  # Bytes that arrays may take in memory, however little they take on disk.
RATIO = 100  # So many more for each byte on disk. Trained weights hardly shrink.
_MOST = 2**16  # Bytes of a header.
_DTYPE = re.compile(r'[<>|][biuf]([1248])|bfloat16')
_COMPRESSORS = (None, 'zstd', 'gzip', 'zlib')
_HEADER = schema.record(
  {
    'shape': schema.list_of(schema.count()),
    'chunks': schema.list_of(schema.count(1)),
    'dtype': schema.text,
    'compressor': schema.optional(schema.record({'id': schema.text})),
  }
)


def claim(header: bytes) -> int:
  """The bytes that an array of this .zarray takes in memory, or one of its chunks, if that is more.

  Raises:
    ValueError: it is no header of an array of numbers; says why.
  """
  if len(header) > _MOST:
    raise ValueError('a header of an array is too long')
  held = json_files.parse(header)
  schema.require(_HEADER, held)
  number = _DTYPE.fullmatch(held['dtype'])
  compressor = held['compressor'] and held['compressor']['id']
  if number is None or compressor not in _COMPRESSORS:
    what = compressor if number else held['dtype']
    raise ValueError(f'an array is of the type {schema.shown(what)}, which is not read')
  return int(number[1] or 2) * max(math.prod(held['shape']), math.prod(held['chunks']))


def check_total(
  claimed: int, stored: int, ratio: int = RATIO, said: str = 'its arrays claim'
) -> None:
  """Raises a ValueError where arrays claim too many bytes for the files that hold them.

  Args:
    ratio: of bytes in memory to those on disk, beyond some that are free.
    said: begins the sentence that says what claims them.
  """
  if claimed > _FREE + ratio * stored:
    raise ValueError(f'{said} {claimed:.1e} bytes, and its files have {stored}')
