"""The list of files that prepared data has, by which their damage is known before TFDS, which may
end the process, looks at them.
"""

import re
import zlib
from pathlib import Path

from ahm_jax.errors import UserError, cannot_read
from ahm_jax.runtime import durable, json_files, schema

FILE = 'files.json'
HOME = 'data'  # Of prepared data, in a workdir.
_NAME = re.compile(r'[A-Za-z0-9_]+-[0-9a-f]{16}(\.(lock|incomplete))?')
_LIST = schema.mapping(schema.record({'bytes': schema.count(), 'crc32': schema.count()}))


def folder_name(source: str, key: str) -> str:
  """That of the prepared data of a data set, by its name and a key, 16 hexadecimal digits."""
  return f'{source}-{key}'


def is_ours(name: str) -> bool:
  """Whether a name is that of prepared data, or of what stands beside them."""
  return _NAME.fullmatch(name) is not None


def write(folder: Path) -> None:
  """Writes the list of all that a folder holds; returns when it and they are on disk."""
  names = sorted(item.name for item in folder.iterdir())
  json_files.write_json(folder / FILE, {name: _sum(folder / name) for name in names})
  durable.sync_tree(folder)


def fault(folder: Path) -> str:
  """What is wrong with a folder, as 'dataset_info.json is not what was written'; '' where it is as
  it was written.

  Raises:
    UserError: the system does not let a file be read.
  """
  try:
    held = json_files.read_json(folder / FILE, _LIST)
  except json_files.Damaged:
    return f'{FILE} is not what was written'
  if held is None:
    return f'{FILE} is missing'
  for name, known in held.items():
    path = folder / name
    if path.name != name or not path.is_file():
      return f'{name} is missing'
    if _sum(path) != known:
      return f'{name} is not what was written'
  return ''


def _sum(path: Path) -> dict[str, int]:
  size = crc = 0
  try:
    with path.open('rb') as file:
      while part := file.read(2**20):
        size, crc = size + len(part), zlib.crc32(part, crc)
  except OSError as error:
    raise UserError(cannot_read(path, error)) from error
  return {'bytes': size, 'crc32': crc}
