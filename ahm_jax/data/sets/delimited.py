"""The text of labels.csv as rows of cells.

It is comma-separated UTF-8 text; semicolons or tabs, UTF-16 with its mark, and line ends of every
kind are read too, as spreadsheets write them. Cells are text, whatever they begin with.
"""

import codecs
import collections
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.errors import UserError

COLUMNS = ('image', 'label', 'split', 'group')
SEPARATORS = (',', ';', '\t')
_EXCEL = re.compile(r'"?sep=.[\s"]*', re.IGNORECASE)  # A first line of its own.


class Row(NamedTuple):
  line: int
  cells: dict[str, str]
  extra: int  # How many cells it has too many.


def parse(path: Path, data: bytes) -> tuple[list[str], list[Row]]:
  """The columns of a table, and its rows but for those that are blank.

  Raises:
    UserError: it is no table.
  """
  try:
    stream, skipped, separator = _opened(_decoded(data))
    reader = csv.DictReader(stream, delimiter=separator)
    columns = [_column(name or '') for name in reader.fieldnames or []]
    reader.fieldnames = columns
    rows = [
      Row(
        reader.line_num + skipped,
        {key: (row.get(key) or '').strip() for key in columns},
        len(row.get(None, ())),  # Cells without a column.
      )
      for row in reader
      if _says_something(row)
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


def _decoded(data: bytes) -> str:
  if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    text = data.decode('utf-16')
  else:
    text = data.decode('utf-8-sig') if b'\0' not in data else '\0'
  if '\0' in text:
    held = 'is a spreadsheet' if data.startswith(b'PK') else 'holds NUL, as UTF-16 does'
    raise csv.Error(f'it {held}')
  return text


def _opened(text: str) -> tuple[io.StringIO, int, str]:
  """A table from its first line that names columns on, how many lines come before, and what
  separates its cells.
  """
  stream, skipped, start = io.StringIO(text, newline=''), 0, 0
  while (line := stream.readline()) and (not line.strip() or _EXCEL.fullmatch(line)):
    skipped, start = skipped + 1, stream.tell()
  stream.seek(start)
  fitting = (
    separator
    for separator in SEPARATORS
    if 'image' in map(_column, next(csv.reader([line], delimiter=separator), []))
  )
  return stream, skipped, next(fitting, SEPARATORS[0])


def _says_something(row: Mapping[str | None, Any]) -> bool:
  """Whether a row of the reader has a cell that is not blank; those of no column are a list."""
  cells = [*(row[key] or '' for key in row if key is not None), *row.get(None, ())]
  return any(cell.strip() for cell in cells)


def _column(text: str) -> str:
  """The name of a column, whatever its case and the blanks around it."""
  name = text.strip()
  return name.lower() if name.lower() in COLUMNS else name


def quoted(text: str) -> str:
  return repr(text if len(text) <= 80 else text[:80] + '...')
