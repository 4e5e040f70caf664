"""labels.csv: what it says of the images of a folder.

Cells are text, whatever they begin with. Names are compared in Unicode's composed form (NFC), since
macOS and others write an accent as a letter of its own; they are shown and written as the files
have them.
"""

import collections
import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ahm_jax.data.readers.base import is_odd, link_problem
from ahm_jax.data.sets.items import SPLITS
from ahm_jax.errors import UserError

NAME = 'labels.csv'
COLUMNS = ('image', 'label', 'split', 'group')
NAMES_SHOWN = 5
MAX_BYTES = 2**26
MAX_CELL = 1000  # Letters.


class Table(NamedTuple):
  columns: list[str]
  rows: dict[str, dict[str, str]]  # By composed image name.
  problems: list[str]  # What is wrong with rows, which are then left out.
  notes: list[str]


class _Row(NamedTuple):
  line: int
  cells: dict[str, str]
  extra: int  # How many cells it has too many.


def read_bytes(root: Path) -> bytes | None:
  """The bytes of labels.csv; None where there is none.

  Raises:
    UserError: it is no file, is too large, or is a link that leads out of the folder.
  """
  path = root / NAME
  problem = link_problem(path, root)
  if problem:
    raise UserError(f'{root}: {problem}')
  if not path.exists():
    return None
  if not path.is_file() or path.stat().st_size > MAX_BYTES:
    raise UserError(
      f'{path}: is not a file of at most {MAX_BYTES} bytes; save it as comma-separated text'
    )
  return path.read_bytes()


def read(root: Path, images: Mapping[str, Path]) -> Table | None:
  """Reads labels.csv; None where there is none.

  Args:
    images: the files that it may name, by composed name without suffix.

  Raises:
    UserError: as `read_bytes`; or it is no table.
  """
  data = read_bytes(root)
  if data is None:
    return None
  columns, raw = _parse(root / NAME, data)
  others = [name for name in columns if name and name not in COLUMNS]
  notes = (
    [
      f'{NAME} has columns that are not used: {some(others)}; those that count are '
      f'{", ".join(COLUMNS)}'
    ]
    if others
    else []
  )
  files = {composed(path.name): stem for stem, path in images.items()}
  table = Table(columns, {}, [], notes)
  for row in raw:
    name = composed(row.cells['image'])
    name = name if name in images else files.get(name, name)
    problem = _problem(row, name, table, images)
    if problem:
      table.problems.append(f'{NAME} line {row.line}{problem}')
    else:
      table.rows[name] = row.cells
  return table


def composed(name: str) -> str:
  return unicodedata.normalize('NFC', name)


def quoted(text: str) -> str:
  return repr(text if len(text) <= 80 else text[:80] + '...')


def some(names: list[str]) -> str:
  """The first few names, quoted, in one line."""
  rest = ', ...' if len(names) > NAMES_SHOWN else ''
  return ', '.join(map(quoted, names[:NAMES_SHOWN])) + rest


def _problem(row: _Row, name: str, table: Table, images: Iterable[str]) -> str:
  """What is wrong with a row, to follow the number of its line; '' where nothing is.

  `name` is the image that it is about.
  """
  cells, columns = row.cells, table.columns
  value = cells['image']
  odd = [key for key in columns if is_odd(cells[key]) or len(cells[key]) > MAX_CELL]
  if row.extra:
    return (
      f' has {len(columns) + row.extra} cells for {len(columns)} columns; put a cell that holds a '
      'comma in double quotes, or remove what is too much'
    )
  if odd:
    return (
      f': {odd[0]} {quoted(cells[odd[0]])} has control characters or over {MAX_CELL} letters; '
      'correct it'
    )
  if '/' in value or '\\' in value or value in ('', '.', '..'):
    return f': {quoted(value)} is not an image name; write the bare name of a file in images/'
  if name not in images:
    return f' names {quoted(value)}, which is not in images/; add the image or remove the row'
  if name in table.rows:
    return f': {quoted(value)} has a row already; keep one of them'
  if 'split' in columns and cells['split'] not in SPLITS:
    return f': split of {quoted(value)} is {quoted(cells["split"])}; it may be {", ".join(SPLITS)}'
  return ''


def _parse(path: Path, data: bytes) -> tuple[list[str], list[_Row]]:
  """The columns of labels.csv, and its rows."""
  try:
    if b'\0' in data:
      raise csv.Error('it holds NUL, as UTF-16 does')
    reader = csv.DictReader(io.StringIO(data.decode('utf-8-sig'), newline=''))
    columns = [_column(name or '') for name in reader.fieldnames or []]
    reader.fieldnames = columns
    rows = [
      _Row(
        reader.line_num,
        {key: (row.get(key) or '').strip() for key in columns},
        len(row.get(None, ())),  # Cells without a column.
      )
      for row in reader
    ]
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(
      f'{path}: cannot be read as comma-separated UTF-8 text ({error}); save it as such'
    ) from error
  if 'image' not in columns:
    only = ', '.join(map(quoted, columns[:10]))
    raise UserError(
      f'{path}: has no column image, only [{only}]; its first line should be '
      'image,label,split,group'
    )
  twice = [name for name, count in collections.Counter(columns).items() if name and count > 1]
  if twice:
    raise UserError(f'{path}: has the column {quoted(twice[0])} twice; keep one of them')
  return columns, rows


def _column(text: str) -> str:
  """The name of a column, whatever its case and the blanks around it."""
  name = text.strip()
  return name.lower() if name.lower() in COLUMNS else name
