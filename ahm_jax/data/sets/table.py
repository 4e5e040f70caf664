"""labels.csv: what it says of the images of a folder.

Names are compared in Unicode's composed form (NFC), since macOS and others write an accent as a
letter of its own; they are shown and written as the files have them.
"""

import collections
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ahm_jax.data.readers.base import Case, is_odd, link_problem, stem
from ahm_jax.data.sets.delimited import COLUMNS, Row, parse, quoted
from ahm_jax.data.sets.items import SPLITS
from ahm_jax.errors import UserError, first

NAME = 'labels.csv'
NAMES_SHOWN = 5
MAX_BYTES = 2**26
MAX_CELL = 1000  # Letters.
SUFFIXES = ('.csv', '.tsv', '.xlsx', '.xls', '.ods')  # Of tables.
# What programs write for nothing, in lower case; and what may be a class as well.
_NOTHING = frozenset(('nan', 'n/a', 'na', '#n/a', '<na>', 'null'))
_AMBIGUOUS = frozenset(('none', '-'))
_SIGNS = ('+', '-')  # Which are classes together.
_JOINTS = re.compile(r'(?<=[^\W_])[\s_-]+(?=[^\W_])')
_NUMBER = re.compile(r'[+-]?[0-9]+([.,][0-9]*)?', re.ASCII)


class Table(NamedTuple):
  columns: list[str]
  rows: dict[str, dict[str, str]]  # By composed image name.
  problems: list[str]  # What is wrong with rows, which are then left out.
  notes: list[str]


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


def read(root: Path, images: Mapping[str, Path | Case]) -> Table | None:
  """Reads labels.csv; None where there is none.

  Args:
    images: the files, or cases, that it may name, by composed name without suffix; a case also by
      the name of any of its files.

  Raises:
    UserError: as `read_bytes`; or it is no table.
  """
  data = read_bytes(root)
  if data is None:
    return None
  columns, raw = parse(root / NAME, data)
  others = [name for name in columns if name and name not in COLUMNS]
  notes = (
    [
      f'{NAME} has columns that are not used: {some(others)}; those that count are '
      f'{", ".join(COLUMNS)}'
    ]
    if others
    else []
  )
  files = {
    composed(form): name
    for name, path in images.items()
    for file in (path.present if isinstance(path, Case) else (path,))
    for form in (file.name, stem(file.name))
  }
  table = Table(columns, {}, [], notes)
  emptied: collections.defaultdict = collections.defaultdict(list)
  nothing = {'group': _NOTHING | _AMBIGUOUS, 'label': _no_labels(raw)}
  for row in raw:
    for column, text in _empty_cells(row.cells, nothing):
      emptied[column, text].append(row.cells['image'])
    name = composed(row.cells['image'])
    name = name if name in images else files.get(name, name)
    problem = _problem(row, name, table, images)
    if problem:
      table.problems.append(f'{NAME} line {row.line}{problem}')
    else:
      table.rows[name] = row.cells
  table.notes.extend(_said_of_cells(emptied, table.rows.values()))
  return table


def composed(name: str) -> str:
  return unicodedata.normalize('NFC', name)


def some(names: list[str]) -> str:
  """The first few names, quoted, in one line."""
  return first(list(map(quoted, names)), NAMES_SHOWN)


# Cells.


def _no_labels(rows: Iterable[Row]) -> frozenset[str]:
  """What is no label in these rows, in lower case."""
  signs = {row.cells.get('label') for row in rows}.issuperset(_SIGNS)
  return (_NOTHING | _AMBIGUOUS) - ({'-'} if signs else set())


def _empty_cells(
  cells: dict[str, str], nothing: Mapping[str, Collection[str]]
) -> list[tuple[str, str]]:
  """Empties what says nothing in these columns; the columns and what stood there."""
  found = [(key, cells[key]) for key in nothing if cells.get(key, '').lower() in nothing[key]]
  for key, _ in found:
    cells[key] = ''
  return found


def _said_of_cells(
  emptied: Mapping[tuple[str, str], list[str]], rows: Iterable[Mapping[str, str]]
) -> list[str]:
  """Notes on cells that say nothing, and on classes that differ in spelling alone."""
  notes = []
  for column in ('label', 'group'):
    found = {text: images for (key, text), images in emptied.items() if key == column}
    if found:
      images = [image for text in sorted(found) for image in found[text]]
      notes.append(
        f'rows of {NAME} whose {column} is {some(sorted(found))}, which counts as none: '
        f'{len(images)} ({some(images)}){_cure(column, found)}'
      )
  spellings = collections.defaultdict(set)
  for row in rows:
    if label := row.get('label'):
      spellings[_meaning(label)].add(label)
  alike = [sorted(group) for _, group in sorted(spellings.items()) if len(group) > 1]
  if alike:
    pairs = '; '.join(' and '.join(map(quoted, group)) for group in alike[:NAMES_SHOWN])
    rest = '; ...' if len(alike) > NAMES_SHOWN else ''
    notes.append(
      f'classes that differ in spelling alone, and are classes of their own: {pairs}{rest}; write '
      f'each in one way in {NAME}'
    )
  return notes


def _cure(column: str, texts: Iterable[str]) -> str:
  """What to do where a text may be meant as a class."""
  doubtful = sorted(text for text in texts if text.lower() in _AMBIGUOUS)
  if column != 'label' or not doubtful:
    return ''
  return (
    f'; {some(doubtful)} may mean that nothing was found as well as that nothing is known: where '
    "it is a class, write it out, as 'healthy' or 'negative'"
  )


def _meaning(label: str) -> str:
  """What spellings of one class have in common, as 'Basal cell' and 'basal_cell', '1' and '1.0'."""
  text = _JOINTS.sub(' ', unicodedata.normalize('NFKC', label).casefold()).strip()
  return str(float(text.replace(',', '.'))) if _NUMBER.fullmatch(text) else text


# Rows.


def _problem(row: Row, name: str, table: Table, images: Iterable[str]) -> str:
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
