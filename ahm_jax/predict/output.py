"""The folder that predictions are written into: what is in it already, and how it grows.

  predict.json      what made it: checkpoint, images, options, versions
  predictions.csv   a row an image, or a slice of a volume, in the order of the images' names
  made.txt          what was made of each image, and when that was last changed; see `made`
  masks/            and probabilities/ and overlays/ where they are asked for; folders and names are
                    those of the images
  volumes/          the masks of each NIfTI image as one volume; see `volumes.place` for its name

A file appears by renaming, whole. What was made of an image goes into made.txt after all its files
are on disk, and then into the table, which is written anew from made.txt where they differ. So
neither a kill nor a power cut leaves a row without its files.
"""

import contextlib
import importlib.metadata
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from ahm_jax.data.readers.base import Case
from ahm_jax.errors import UserError
from ahm_jax.predict import folder, made, volumes
from ahm_jax.predict.folder import IDENTITY, SCRATCH, TABLE
from ahm_jax.predict.images import Images
from ahm_jax.predict.journal import Journal
from ahm_jax.predict.listing import some
from ahm_jax.runs import directory
from ahm_jax.runtime import durable, json_files, places

OK = 'ok'  # Status of an image that has a mask.
SYNC_SECONDS = 1.0  # Rows wait so long for others, since syncing takes time.
SYNCED_TOGETHER = 16  # Files; file systems write what is asked for at a time in one go.
_PACKAGES = ('ahm_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'pillow')


class Output:
  """The folder, from which on it is this process's alone; a context manager.

  Args:
    out: the folder, that `folder.check` has let pass.
    identity: as for `folder.check`.
    columns: of the table; the first is 'image', and 'status' is among them.
    images: by their cells in the table, in the order of the table.
  """

  def __init__(
    self,
    out: Path,
    identity: dict[str, Any],
    columns: Sequence[str],
    images: Mapping[str, Path | Case],
  ):
    self.out, self._identity = out, identity
    self._place = out.resolve()
    self._images, self._journal = Images(images), Journal(out, columns)
    self._with_volume = {
      name for name, path in images.items() if volumes.is_kept(volumes.named(name, path))
    }
    self._order = {name: number for number, name in enumerate(images)}
    self._last, self._in_order = -1, True
    self._waiting: list[made.Entry] = []
    self._synced = time.monotonic()
    self._done: set[str] = set()
    self.notes: list[str] = []  # What is made again, and why, in lines.

  def __enter__(self) -> 'Output':
    with contextlib.ExitStack() as stack:
      stack.enter_context(directory.owned(self.out))
      folder.check(self.out, self._identity)  # Another process may have been here since.
      durable.sync_folder(self.out.parent)
      shutil.rmtree(self.out / SCRATCH, ignore_errors=True)
      (self.out / SCRATCH).mkdir()
      stack.callback(shutil.rmtree, self.out / SCRATCH, ignore_errors=True)
      if not (self.out / IDENTITY).exists():
        told = {'made_by': self._identity, 'versions': _versions()}
        json_files.write_json(self.out / IDENTITY, told)
      self._syncing = stack.enter_context(ThreadPoolExecutor(SYNCED_TOGETHER))
      self._resume()
      stack.enter_context(self._journal)
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *_):
    with self._stack:
      self._flush()  # What is done counts, whatever ended the rest.

  @property
  def folds_case(self) -> bool:
    """Whether its file system takes a letter's cases for one."""
    return (self.out / IDENTITY.upper()).exists()

  def is_done(self, name: str) -> bool:
    """Whether an image, by its cell in the table, has all its files, and was not changed since."""
    return name in self._done

  def put(self, place: str, write: Callable[[Path], object]) -> int:
    """Lets `write` write a file elsewhere and moves it to `place` below the folder, with the
    folders on its way; returns its size.
    """
    places.check(self.out)
    scratch, target = self.out / SCRATCH / uuid.uuid4().hex, self.out / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if self._leads_out(target):
      raise UserError(f'{target.parent} is a link that leads out of --out; remove it')
    try:
      write(scratch)
      size = scratch.stat().st_size
      scratch.replace(target)
      return size
    finally:
      scratch.unlink(missing_ok=True)

  def append(self, rows: Sequence[dict[str, Any]], files: dict[str, int]) -> None:
    """Adds the rows of one image to the table.

    Args:
      files: that were put for it, with their sizes; they go where it has no mask after all.
    """
    name = rows[0]['image']
    if rows[0]['status'] != OK:
      self._remove(files)
      files = {}
    entry = made.Entry(name, self._images.stamps[name], files, self._journal.lines(rows))
    self._waiting.append(entry)
    self._take_place(name)
    if time.monotonic() - self._synced >= SYNC_SECONDS:
      self._flush()

  def finish(self) -> list[str]:
    """Puts the rows in the order of the names, from which retried images have brought them.

    Returns:
      files that belong to no image of the table: those of images that were removed or renamed.
    """
    self._flush()
    if not self._in_order:
      self._journal.rewrite(
        sorted(self._journal.entries(), key=lambda entry: self._order[entry.image])
      )
    durable.sync(self.out / TABLE)
    own = {place for entry in self._journal.entries() for place in entry.files}
    return sorted(place for place in self._files() if place not in own)

  def _flush(self) -> None:
    """Writes down what waits; see the head of this file."""
    entries, self._waiting = self._waiting, []
    if entries:
      places.check(self.out)
      entries = list(self._syncing.map(self._images.with_digest, entries))
      files = [place for entry in entries for place in entry.files]
      list(self._syncing.map(durable.sync, map(self.out.joinpath, files)))
      for place in _folders(files):
        durable.sync_folder(self.out / place)
      self._journal.append(entries)
      self._synced = time.monotonic()

  def _resume(self) -> None:
    """Finds out what is done. Files of an image that has changed since, or that are not as they
    were written, are removed.
    """
    entries = list(self._journal.entries())
    if self._journal.has_other_rows(entries):
      self.notes.append(
        f'{self.out / TABLE} held other rows than {made.FILE}, and is written anew; images that '
        'are not listed there are done again'
      )
    kept, again = [], []
    for entry in self._syncing.map(self._images.restamped, entries):
      if not entry.files or entry.image not in self._order or entry.image in self._done:
        continue
      if self._is_whole(entry):
        kept.append(entry)
        self._done.add(entry.image)
        self._take_place(entry.image)
      else:
        again.append(entry.image)
        self._remove(entry.files)
    if again:
      self.notes.append(f'done again, as the image or its files have changed: {some(again)}')
    self._journal.rewrite(kept)

  def _is_whole(self, entry: made.Entry) -> bool:
    has_volume = any(map(volumes.is_place, entry.files))
    if has_volume != (entry.image in self._with_volume):  # It was made before there were volumes.
      return False
    return entry.stamp == self._images.stamps[entry.image] != () and all(
      made.has_size(self.out / place, size) and not self._leads_out(self.out / place)
      for place, size in entry.files.items()
    )

  def _take_place(self, name: str) -> None:
    self._in_order &= self._order[name] > self._last
    self._last = self._order[name]

  def _remove(self, files: Iterable[str]) -> None:
    for place in files:
      if not self._leads_out(self.out / place):
        (self.out / place).unlink(missing_ok=True)

  def _leads_out(self, target: Path) -> bool:
    return not target.parent.resolve().is_relative_to(self._place)

  def _files(self) -> Iterator[str]:
    """Of images, by their paths below the folder; hidden ones are left out."""
    for name in made.FOLDERS:
      for place, _, files in os.walk(self.out / name):
        below = Path(place).relative_to(self.out)
        yield from ((below / file).as_posix() for file in files if not file.startswith('.'))


def _folders(places: Iterable[str]) -> set[PurePosixPath]:
  """The folders on the way to files, which must be on disk for these to be found."""
  return {folder for place in places for folder in PurePosixPath(place).parents}


def _versions() -> dict[str, str]:
  found = {'python': sys.version.split()[0]}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found
