"""From a folder of images to a folder of masks, in bounded memory."""

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax

from ahm_jax.data.readers.base import Case
from ahm_jax.errors import UserError, full_disk, printable
from ahm_jax.predict import stream, volumes
from ahm_jax.predict.folder import check
from ahm_jax.predict.listing import (
  as_cell,
  cases_of,
  is_volume,
  list_images,
  look_alikes,
  some,
)
from ahm_jax.predict.options import Options, Predictor, identity
from ahm_jax.predict.output import OK, Output
from ahm_jax.predict.reading import Problem, Slice, is_of_nnunet, read
from ahm_jax.predict.writing import Written, columns, write
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime.progress import Bar


class Counts(NamedTuple):
  """Of images."""

  done: int  # With a mask now, those of earlier runs too.
  failed: int  # Without one.


def predict(
  segmenter: Trained,
  images: Path,
  out: Path,
  options: Options,
  classifier: Trained | None = None,
  batch_size: int = 8,
  threads: int = 0,
) -> Counts:
  """Predicts a mask for every image below a folder that has none yet; see `output` for what is
  written.

  Args:
    threads: that read and write; 0: as many as there are cores, but at least 2.

  Raises:
    UserError: there is nothing to read, `out` holds something else or cannot be written to, or a
      package is missing.
  """
  predictor = Predictor(segmenter, options, classifier)
  check_places(images, out)
  if segmenter.class_names and options.tile:
    _say('no diagnosis is told: --tile looks at parts of images')
  names, passed_over = list_images(images)
  found: dict[str, Case] = {}
  if modalities := segmenter.config.data.modalities:
    found = cases_of(images, names, modalities)
    names = list(found)
  places = {name: found.get(name, images / name) for name in names}
  named = [volumes.named(name, place) for name, place in places.items()]
  _check_volumes(named, images, segmenter)
  made_by = identity(predictor, images)
  threads = threads or max(2, os.cpu_count() or 2)
  with _with_its_place(out):
    check(out, made_by)
    by_cell = {as_cell(name): place for name, place in places.items()}
    with Output(out, made_by, columns(predictor), by_cell) as output:
      _check_cases(names, named, output, segmenter)
      if passed_over:
        _say(f'passed over, of no kind that is read: {some(passed_over)}')
      for note in output.notes:
        _say(note)
      read_one = functools.partial(
        read, images, config=segmenter.config, options=options, found=found
      )
      failed = _predict_missing(output, predictor, read_one, names, batch_size, threads)
      if left := output.finish():
        _say(f'left over in {out}, of images that are gone or were renamed: {some(left)}')
  return Counts(len(names) - failed, failed)


def _say(line: str) -> None:
  print(printable(line), file=sys.stderr, flush=True)


def _check_volumes(named: Sequence[str], images: Path, segmenter: Trained) -> None:
  if pair := volumes.clash(named, is_of_nnunet(segmenter.config)):
    first, second = map(as_cell, pair)
    raise UserError(
      f'{images}: {first} and {second} would have the same volume of masks; rename one of them'
    )


def _check_cases(
  names: Sequence[str], named: Sequence[str], output: Output, segmenter: Trained
) -> None:
  if not output.folds_case:
    return
  of_nnunet = is_of_nnunet(segmenter.config)
  if pair := look_alikes(names) or volumes.clash(named, of_nnunet, folds_case=True):
    first, second = map(as_cell, pair)
    raise UserError(
      f'{first} and {second} would have the same mask in {output.out}, where upper and lower case '
      'are one; rename one of them, or choose another --out'
    )


def check_places(images: Path, out: Path) -> None:
  """Refuses folders that lie in each other: masks would be taken for images, or written among
  them.
  """
  inner, outer = out.resolve(), images.resolve()
  if inner.is_relative_to(outer) or outer.is_relative_to(inner):
    raise UserError(
      f'--out={out} and --images={images} lie in each other; choose a folder beside the images'
    )


def _predict_missing(
  output: Output,
  predictor: Predictor,
  read_one: Callable[[str], list[Slice | Problem]],
  names: Sequence[str],
  batch_size: int,
  threads: int,
) -> int:
  """Predicts the images that have no mask; returns how many of them still have none."""
  segmenter, options = predictor.segmenter, predictor.options
  done = {name for name in names if output.is_done(as_cell(name))}
  groups = stream.groups(names, done, batch_size)
  todo = [name for group in groups for name in group]
  network = functools.partial(
    stream.forward(segmenter, options.flips), jax.device_put(segmenter.variables)
  )

  def write_one(part: Slice | Problem) -> Written:
    return write(part, predictor, output)

  failed, stacks = 0, []
  with contextlib.closing(Bar('predict', len(done), len(names))) as bar, _pool(threads) as pool:
    parts = stream.read_ahead(pool, read_one, todo, _ahead(todo, options, batch_size, threads))
    batches = stream.fill(map(len, groups), parts, batch_size, segmenter.shape)
    found = stream.assemble(stream.compute(batches, network), predictor)
    missing = itertools.filterfalse(lambda part: part.image in done, found)
    behind = threads + (0 if options.tile else batch_size)
    for rows, files in stream.by_image(stream.write_behind(pool, write_one, missing, behind)):
      image, status, pages = (rows[0].get(name) for name in ('image', 'status', 'pages'))
      if status != OK:
        failed += 1
        bar.say(f'no mask for {image}: {status}')
      elif pages not in ('', 1):
        stacks.append(f'{image}: 1 of {pages}')
      output.append(rows, files)
      bar.advance()
  if stacks:
    _say(f'of several pages only the first was looked at: {some(stacks)}')
  return failed


def _ahead(names: Sequence[str], options: Options, batch_size: int, threads: int) -> int:
  """How many images to read ahead: few where each may be large."""
  few = options.tile or any(map(is_volume, names))
  return threads + (1 if few else 2 * batch_size)


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
  """Threads; what they have not begun when the context is left is not done."""
  with ThreadPoolExecutor(threads) as pool:
    try:
      yield pool
    finally:
      pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _with_its_place(out: Path) -> Iterator[None]:
  """Says of an error of the file system where it was."""
  try:
    yield
  except OSError as error:
    said = full_disk(error)
    if said:
      raise UserError(
        f'{said.lower()} in {out}; make room and run the same command again; it resumes'
      ) from error
    raise UserError(
      f'{out}: {error.strerror or error} ({error.filename}); fix it and run the same command '
      'again; it resumes'
    ) from error
