"""The folder that predictions are written into: what it is known by, what is in it already, and how
it grows.

  predict.json      what made it: checkpoint, images, options, versions
  predictions.csv   a row an image, or a slice of a volume, in the order of the images' names
  masks/            and probabilities/ and overlays/ where they are asked for; folders and names are
                    those of the images

A file appears by renaming, whole. An image's rows are written in one go, after all its files are
there, so that the table says what is done.
"""

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.evaluation.per_image import spreadsheet_safe
from ahm_jax.runs import directory
from ahm_jax.runtime import json_files

IDENTITY = 'predict.json'
TABLE = 'predictions.csv'
OK = 'ok'  # Status of an image that has a mask.
_SCRATCH = '.tmp'
_PACKAGES = ('ahm_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'pillow')


def check(out: Path, identity: dict[str, Any]) -> None:
  """Makes sure that `out` holds no predictions but these; writes nothing.

  Args:
    identity: what the predictions depend on, by the names of the flags that say it.

  Raises:
    UserError: it is no folder, holds something else, or predictions of another checkpoint, other
      images or other options.
  """
  if out.exists() and not out.is_dir():
    raise UserError(f'--out={out} is not a folder; choose another')
  path = out / IDENTITY
  if not path.exists():
    if out.is_dir() and any(item.name not in (directory.LOCK, _SCRATCH) for item in out.iterdir()):
      raise UserError(
        f'--out={out} holds other files, and nothing is written over; choose an empty folder, or '
        'one to be made'
      )
    return
  try:
    held = json.loads(path.read_text())['made_by']
    held.items()
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path} cannot be read as the description of predictions; choose another --out'
    ) from error
  wanted = json.loads(json.dumps(identity))
  for name in dict.fromkeys([*wanted, *held]):
    if held.get(name) != wanted.get(name):
      raise UserError(
        f'--out={out} holds predictions with {name}={_short(held.get(name))}, and this command has '
        f'{_short(wanted.get(name))}; choose another --out, or give the same'
      )


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 100 else text[:12] + '...'


class Output:
  """The folder, from which on it is this process's alone; a context manager.

  Args:
    out: the folder, that `check` has let pass.
    identity: as for `check`.
    columns: of the table; the first is 'image', and 'status' is among them.
    names: of the images, as their cells in the table have them, in the order of the table.
  """

  def __init__(
    self, out: Path, identity: dict[str, Any], columns: Sequence[str], names: Sequence[str]
  ):
    self.out, self._identity, self._columns = out, identity, list(columns)
    self._order = {spreadsheet_safe(name): number for number, name in enumerate(names)}
    self._last, self._in_order = -1, True
    self._stack = contextlib.ExitStack()
    self._done: set[str] = set()

  def __enter__(self) -> 'Output':
    with contextlib.ExitStack() as stack:
      stack.enter_context(directory.owned(self.out))
      shutil.rmtree(self.out / _SCRATCH, ignore_errors=True)
      (self.out / _SCRATCH).mkdir()
      stack.callback(shutil.rmtree, self.out / _SCRATCH, ignore_errors=True)
      if not (self.out / IDENTITY).exists():
        json_files.write_json(
          self.out / IDENTITY, {'made_by': self._identity, 'versions': _versions()}
        )
      self._resume()
      self._table = stack.enter_context((self.out / TABLE).open('ab', buffering=0))
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_):
    self._stack.close()

  def is_done(self, name: str) -> bool:
    """Whether an image, by its cell in the table, has a mask already.

    Of one that could not be read the row was taken out.
    """
    return spreadsheet_safe(name) in self._done

  def put(self, place: str, write: Callable[[Path], object]) -> None:
    """Lets `write` write a file elsewhere and moves it to `place` below the folder, with the
    folders on its way.
    """
    scratch, target = self.out / _SCRATCH / uuid.uuid4().hex, self.out / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(self.out.resolve()):
      raise UserError(f'{target.parent} is a link that leads out of --out; remove it')
    try:
      write(scratch)
      scratch.replace(target)
    finally:
      scratch.unlink(missing_ok=True)

  def append(self, rows: Sequence[dict[str, Any]]) -> None:
    """Adds the rows of one image to the table."""
    data = self._lines(rows)
    before = os.fstat(self._table.fileno()).st_size
    number = self._order[spreadsheet_safe(rows[0]['image'])]
    self._in_order &= number > self._last
    self._last = number
    if self._table.write(data) != len(data):  # The disk is full.
      self._table.truncate(before)
      self._table.write(data)  # Says so.

  def finish(self) -> None:
    """Puts the rows in the order of the names, from which retried images have brought them."""
    if not self._in_order:
      groups = sorted(
        _groups(self.out / TABLE, self._columns),
        key=lambda group: self._order.get(group[0], len(self._order)),
      )
      self._rewrite(lines for _, _, lines in groups)

  def _resume(self) -> None:
    """Reads which images are done.

    Half a line of a killed process goes, and so do the rows of images without a mask.
    """
    path = self.out / TABLE
    header = self._lines([dict(zip(self._columns, self._columns, strict=True))])
    if not path.exists() or not _first_line(path).endswith(b'\n'):
      self._write_whole(path, [header])
    if _first_line(path) != header:
      raise UserError(
        f'{path} does not begin with the columns of these predictions; choose another --out'
      )
    kept, dropped = [], False
    for name, rows, lines in _groups(path, self._columns):
      if (
        all(row['status'] == OK and (self.out / row['mask']).is_file() for row in rows)
        and name in self._order
      ):
        kept.append(lines)
        self._done.add(name)
        self._in_order &= self._order[name] > self._last
        self._last = self._order[name]
      else:
        dropped = True
    if dropped or sum(map(len, kept)) + len(header) != path.stat().st_size:
      self._rewrite(kept)

  def _rewrite(self, groups: Iterable[bytes]) -> None:
    header = self._lines([dict(zip(self._columns, self._columns, strict=True))])
    self._write_whole(self.out / TABLE, [header, *groups])

  def _write_whole(self, path: Path, parts: Sequence[bytes]) -> None:
    self.put(path.name, lambda scratch: scratch.write_bytes(b''.join(parts)))

  def _lines(self, rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, self._columns, restval='', lineterminator='\n')
    writer.writerows({key: spreadsheet_safe(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _first_line(path: Path) -> bytes:
  with path.open('rb') as file:
    return file.readline()


def _groups(
  path: Path, columns: Sequence[str]
) -> Iterator[tuple[str, list[dict[str, str]], bytes]]:
  """Of every image in a table: its cell, its rows, and its lines. No cell holds the end of a line.

  A last line that is half written is left out, with the lines before it that may be of the same
  image.
  """
  group: list[bytes] = []
  rows: list[dict[str, str]] = []
  with path.open('rb') as file:
    file.readline()
    for line in file:
      if not line.endswith(b'\n'):
        return
      try:
        row = dict(zip(columns, next(csv.reader([line.decode()])), strict=True))
      except (ValueError, csv.Error) as error:
        raise UserError(
          f'{path}: the row {line[:60]!r} was not written by this command; choose another --out'
        ) from error
      if rows and row['image'] != rows[0]['image']:
        yield rows[0]['image'], rows, b''.join(group)
        group, rows = [], []
      group.append(line)
      rows.append(row)
  if rows:
    yield rows[0]['image'], rows, b''.join(group)


def _versions() -> dict[str, str]:
  found = {'python': sys.version.split()[0]}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found
