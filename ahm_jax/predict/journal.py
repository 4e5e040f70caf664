"""made.txt and the table, which hold the same rows: the table is written anew where they differ."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.evaluation.per_image import spreadsheet_safe
from ahm_jax.predict import made
from ahm_jax.predict.folder import TABLE
from ahm_jax.runtime import durable


class Journal:
  """Both files; a context manager, within which one may append.

  Args:
    out: their folder.
    columns: of the table.
  """

  def __init__(self, out: Path, columns: Sequence[str]):
    self._out, self._columns = out, list(columns)
    self._header = self.lines([dict(zip(self._columns, self._columns, strict=True))])

  def __enter__(self) -> 'Journal':
    with contextlib.ExitStack() as stack:
      self._made, self._table = (
        stack.enter_context((self._out / name).open('ab', buffering=0))
        for name in (made.FILE, TABLE)
      )
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_):
    self._stack.close()

  def lines(self, rows: Sequence[dict[str, Any]]) -> str:
    """Rows as the table has them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, self._columns, restval='', lineterminator='\n')
    writer.writerows({key: spreadsheet_safe(value) for key, value in row.items()} for row in rows)
    return text.getvalue()

  def entries(self) -> Iterator[made.Entry]:
    return made.read(self._out / made.FILE, self._columns)

  def has_other_rows(self, entries: Iterable[made.Entry]) -> bool:
    """Whether the table holds other rows than those of the entries, or more.

    Raises:
      UserError: it has other columns.
    """
    table = self._out / TABLE
    before, header = _bytes(table), self._header.encode()
    if not (header.startswith(before) or before.startswith(header)):
      raise UserError(
        f'{table} does not begin with the columns of these predictions; move it away and run the '
        'same command again: it is written anew'
      )
    return not self._whole(entries).startswith(before)

  def rewrite(self, entries: Sequence[made.Entry]) -> None:
    """Makes both hold these entries and nothing else."""
    own = made.header(self._columns) + b''.join(map(made.line, entries))
    for name, data in ((made.FILE, own), (TABLE, self._whole(entries))):
      if _bytes(self._out / name) != data:
        durable.write(self._out / name, data)

  def append(self, entries: Sequence[made.Entry]) -> None:
    """Adds entries, whose files are on disk, and waits until made.txt is."""
    _append(self._made, b''.join(map(made.line, entries)))
    os.fsync(self._made.fileno())
    _append(self._table, ''.join(entry.rows for entry in entries).encode())

  def _whole(self, entries: Iterable[made.Entry]) -> bytes:
    return ''.join([self._header, *(entry.rows for entry in entries)]).encode()


def _bytes(path: Path) -> bytes:
  return path.read_bytes() if path.exists() else b''


def _append(file: FileIO, data: bytes) -> None:
  before = os.fstat(file.fileno()).st_size
  if file.write(data) != len(data):  # The disk is full.
    file.truncate(before)
    file.write(data)  # Says so.
