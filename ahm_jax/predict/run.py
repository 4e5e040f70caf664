"""From a folder of images to a folder of masks, in bounded memory.

Threads read and shrink images ahead of the device, and write behind it what was found; the main
thread fills batches of one size, of which one is computed while the next is filled. The queues
between them are bounded, so that memory does not grow with the number of images.

The last digits of a network's output may depend on the place in the batch. So as many images as a
batch has rows form a group, which begins a batch, and is computed whole if any of it is missing:
what an earlier run left makes no difference to a mask.
"""

import collections
import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import (
  Unreadable,
  UnsupportedImage,
  is_odd,
  is_volume,
  link_problem,
)
from ahm_jax.errors import UserError, full_disk
from ahm_jax.evaluation.masks import at_own_size, predicted_mask
from ahm_jax.predict import measures, writing
from ahm_jax.predict.diagnosis import diagnose
from ahm_jax.predict.flips import with_flips
from ahm_jax.predict.listing import as_cell, list_images, stem
from ahm_jax.predict.output import OK, Output, check
from ahm_jax.predict.views import Tiled, Whole, view
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime.progress import Bar


@dataclass(frozen=True)
class Options:
  """What predictions depend on beside the weights and the images."""

  # Lesion where the probability is at least this; of several classes, the likeliest is taken.
  threshold: float
  flips: bool = False
  tile: int = 0  # Side of a window in pixels of the image; 0: images are looked at as a whole.
  overlap: float = 0.5  # Of windows, as a share of their side.
  probabilities: bool = False  # Write them too.
  overlays: bool = False  # Write these too.


class Counts(NamedTuple):
  done: int  # Images with a mask now, those of earlier runs too.
  failed: int  # Images without one.


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
  if classifier and options.tile:
    raise UserError(
      '--classifier looks at images as a whole, and --tile does not; leave out one of them'
    )
  check_places(images, out)
  names = list_images(images)
  columns = [
    'image',
    'slice',
    'mask',
    'status',
    'width',
    'height',
    *measures.columns(segmenter.mask_classes),
  ]
  columns += diagnosis_columns(classifier)
  identity = _identity(segmenter, images, options, classifier)
  check(out, identity)
  threads = threads or max(2, os.cpu_count() or 2)
  with _writing(out), Output(out, identity, columns, [as_cell(name) for name in names]) as output:
    done = {name for name in names if output.is_done(as_cell(name))}
    bar = Bar('predict', len(done), len(names))
    with contextlib.closing(bar), ThreadPoolExecutor(threads) as pool:
      try:
        line = _Line(segmenter, options, classifier, batch_size, threads, pool, output, bar)
        line.run(names, done, lambda name: read(images, name, segmenter.config, options))
      finally:
        pool.shutdown(cancel_futures=True)
    output.finish()
  return Counts(len(names) - line.failed, line.failed)


def check_places(images: Path, out: Path) -> None:
  """Refuses folders that lie in each other: masks would be taken for images, or written among
  them.
  """
  inner, outer = out.resolve(), images.resolve()
  if inner.is_relative_to(outer) or outer.is_relative_to(inner):
    raise UserError(
      f'--out={out} and --images={images} lie in each other; choose a folder beside the images'
    )


def _identity(
  segmenter: Trained, images: Path, options: Options, classifier: Trained | None
) -> dict[str, Any]:
  return {
    '--checkpoint': segmenter.digest,
    '--images': str(images.resolve()),
    '--classifier': classifier.digest if classifier else '',
    **{f'--{name}': getattr(options, name) for name in Options.__dataclass_fields__},
    'config.data.window': segmenter.config.data.window,
    'config.data.slice_axis': segmenter.config.data.slice_axis,
  }


def diagnosis_columns(classifier: Trained | None) -> list[str]:
  """The columns that a classifier adds."""
  return (
    ['class_probability', *(f'class_probability_{name}' for name in classifier.class_names)]
    if classifier
    else []
  )


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if said := full_disk(error):
      raise UserError(
        f'{said.lower()} in {out}; make room, and the same command goes on'
      ) from error
    raise UserError(
      f'{out}: {error.strerror or error} ({error.filename}); mend it, and the same command goes on'
    ) from error


# One image.


@dataclass(eq=False)
class Slice:
  """An image, or a slice of a volume, that was read."""

  name: str  # As its files are to be called, without suffixes.
  number: int | str  # Of the slice in its volume, from 0; '' for an image.
  size: tuple[int, int]  # Height and width.
  spacing: tuple[float, float] | None
  view: Whole | Tiled
  last: bool  # Of its volume.
  shown: np.ndarray | None = None  # For its overlay, uint8 [h, w, 3].
  diagnosis: np.ndarray | None = None  # Probability of each class.


def read(root: Path, name: str, config: Config, options: Options) -> list[Slice] | str:
  """Reads an image as training reads it; what it holds, or in a line what is wrong with it."""
  path, size = root / name, config.data.image_size
  if is_odd(name):
    return f'{as_cell(name)} has control characters in its name, shown as \\x..; rename it'
  if problem := link_problem(path, root):
    return problem
  reading = {'window': config.data.window, 'axis': config.data.slice_axis}
  try:
    at_least = None if options.tile else (2 * size, 2 * size)
    slices = dispatch.read_slices(path, config.data.channels, at_least=at_least, **reading)
    whole = slices
    if options.overlays and any(picture.pixels.shape[:2] != picture.size for _, picture in slices):
      whole = dispatch.read_slices(path, config.data.channels, **reading)
  except Unreadable as problem:
    return f'{problem} is damaged or not an image; replace it'
  except UnsupportedImage as problem:
    return str(problem)
  found = []
  for number, ((ending, picture), (_, full)) in enumerate(zip(slices, whole, strict=True)):
    item = Slice(
      name=stem(name) + ending,
      number=number if ending else '',
      size=picture.size,
      spacing=picture.spacing,
      view=view(picture.pixels, size, options.tile, options.overlap),
      last=number == len(slices) - 1,
      shown=writing.shrunk(full.pixels) if options.overlays else None,
    )
    found.append(item)
  return found


def finish(
  item: Slice,
  image: str,
  segmenter: Trained,
  options: Options,
  labels: Sequence[str],
  output: Output,
) -> dict:
  """Writes the files of what was found in an image, and returns its row."""
  probabilities = item.view.result()
  if (
    probabilities.ndim == 2
  ):  # Once and for all; of several classes, all at once would take much memory.
    probabilities = at_own_size(probabilities, item.size)
  mask = predicted_mask(probabilities, item.size, options.threshold)
  place = f'masks/{item.name}.png'
  row = {
    'image': as_cell(image),
    'slice': item.number,
    'mask': place,
    'status': OK,
    'width': item.size[1],
    'height': item.size[0],
  }
  row |= measures.measure(probabilities, mask, item.spacing, segmenter.lesion_names)
  if item.diagnosis is not None:
    row |= {
      'class': labels[int(item.diagnosis.argmax())],
      'class_probability': round(float(item.diagnosis.max()), 6),
    }
    row |= {
      f'class_probability_{name}': round(float(p), 6)
      for name, p in zip(labels, item.diagnosis, strict=True)
    }
  output.put(place, lambda path: writing.write_mask(path, mask))
  if options.probabilities:
    for folder, plane in writing.planes(probabilities, segmenter.mask_classes):
      place = f'probabilities/{folder}{item.name}.png'
      output.put(
        place, lambda path, plane=plane: writing.write_probabilities(path, plane, item.size)
      )
  if options.overlays:
    output.put(
      f'overlays/{item.name}.jpg', lambda path: writing.write_overlay(path, item.shown, mask)
    )
  return row


# All of them.


@functools.lru_cache(maxsize=4)
def forward(segmenter: Trained, flips: bool) -> Callable[[Any, np.ndarray], jax.Array]:
  """The segmenter's `probabilities`, compiled, with flips where asked for."""
  return jax.jit(with_flips(segmenter.probabilities) if flips else segmenter.probabilities)


def lesions(probabilities: np.ndarray, threshold: float) -> np.ndarray:
  """Where something was found, bool [B, S, S], as `lesions.find` says it."""
  return probabilities >= threshold if probabilities.ndim == 3 else probabilities.argmax(-1) > 0


def ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable, depth: int) -> Iterator:
  """Results of a function in order, of which threads work on the next `depth`."""
  started: collections.deque[Future] = collections.deque()
  for item in items:
    started.append(pool.submit(function, item))
    if len(started) > depth:
      yield started.popleft().result()
  while started:
    yield started.popleft().result()


@dataclass(eq=False)
class _Work:
  """An image on its way."""

  name: str
  done: bool  # By an earlier run.
  rows: list[Future] = field(default_factory=list)
  problem: str = ''
  whole: bool = False  # All that is to come of it is among `rows`.


class _Spot(NamedTuple):
  """What a row of a batch is."""

  work: _Work
  item: Slice
  index: int  # Of the window.


class _Line:
  """The line from images to rows, at work."""

  def __init__(
    self,
    segmenter: Trained,
    options: Options,
    classifier: Trained | None,
    batch_size: int,
    threads: int,
    pool: ThreadPoolExecutor,
    output: Output,
    bar: Bar,
  ):
    self._segmenter, self._options, self._classifier = segmenter, options, classifier
    self._batch_size, self._threads, self._pool, self._output, self._bar = (
      batch_size,
      threads,
      pool,
      output,
      bar,
    )
    self._forward = forward(segmenter, options.flips)
    self._variables = jax.device_put(segmenter.variables)
    self._pending: collections.deque[_Work] = collections.deque()
    self._behind: collections.deque[Future] = (
      collections.deque()
    )  # What the threads are still to write.
    self._spots: list[_Spot | None] = []
    self._batch = self._empty_batch()
    self._in_flight: tuple[list[_Spot | None], np.ndarray, jax.Array] | None = None
    self.failed = 0

  def run(
    self, names: Sequence[str], done: Set[str], read: Callable[[str], list[Slice] | str]
  ) -> None:
    groups = [
      names[start : start + self._batch_size] for start in range(0, len(names), self._batch_size)
    ]
    groups = [group for group in groups if not done.issuperset(group)]
    todo = [name for group in groups for name in group]
    few = self._options.tile or any(is_volume(Path(name)) for name in todo)  # Each may be large.
    depth = self._threads + 1 if few else self._threads + 2 * self._batch_size
    found = ahead(self._pool, read, todo, depth)
    for group in groups:
      for name in group:
        self._take(_Work(name, name in done), next(found))
        self._commit()
      self._dispatch()
    self._deliver()
    while self._behind:
      self._behind.popleft().exception()
    self._commit()

  def _take(self, work: _Work, found: list[Slice] | str) -> None:
    self._pending.append(work)
    if isinstance(found, str):
      work.problem, work.whole = found, True
      self._add(None, 0)  # Its place stays empty, and those after it keep theirs.
      return
    for item in found:
      for index, window in enumerate(item.view.windows()):
        self._add(_Spot(work, item, index), window)

  def _add(self, spot: _Spot | None, window: np.ndarray | int) -> None:
    self._batch[len(self._spots)] = window
    self._spots.append(spot)
    if len(self._spots) == self._batch_size:
      self._dispatch()

  def _empty_batch(self) -> np.ndarray:
    side = self._segmenter.image_size  # A new one each time: on CPU, JAX reads where NumPy wrote.
    return np.zeros((self._batch_size, side, side, self._segmenter.channels), np.uint8)

  def _dispatch(self) -> None:
    """Starts on the batch, which may not be full, and sees to what the one before it has found."""
    if not self._spots:
      return
    started = self._spots, self._batch, self._forward(self._variables, self._batch)
    self._spots, self._batch = [], self._empty_batch()
    self._deliver()
    self._in_flight = started

  def _deliver(self) -> None:
    """Hands what a batch has found to the threads."""
    if self._in_flight is None:
      return
    spots, batch, found = self._in_flight
    self._in_flight = None
    found = np.asarray(found)
    if self._classifier:
      diagnoses = diagnose(self._classifier, batch, lesions(found, self._options.threshold))
      for spot, diagnosis in zip(spots, diagnoses, strict=False):
        if spot:
          spot.item.diagnosis = diagnosis
    for spot, probabilities in zip(spots, found, strict=False):
      if spot and spot.item.view.add(spot.index, probabilities):
        self._hand_over(spot)

  def _hand_over(self, spot: _Spot) -> None:
    spot.work.whole = spot.item.last
    if spot.work.done:
      return
    labels = self._classifier.class_names if self._classifier else ()
    task = self._pool.submit(
      finish, spot.item, spot.work.name, self._segmenter, self._options, labels, self._output
    )
    spot.work.rows.append(task)
    self._behind.append(task)
    room = self._threads + (0 if self._options.tile else self._batch_size)
    while len(self._behind) > room or (self._behind and self._behind[0].done()):
      # Waits; what was raised is raised where its row is wanted.
      self._behind.popleft().exception()

  def _commit(self) -> None:
    """Writes the rows of images that are done, in their order."""
    while (
      self._pending and self._pending[0].whole and all(row.done() for row in self._pending[0].rows)
    ):
      work = self._pending.popleft()
      if work.done:
        continue
      try:
        rows = [row.result() for row in work.rows]
      except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
          raise
        work.problem = f'{as_cell(work.name)} has too long a name for its mask; rename it'
      if work.problem:
        self.failed += 1
        rows = [{'image': as_cell(work.name), 'status': work.problem}]
        self._bar.say(f'no mask for {as_cell(work.name)}: {work.problem}')
      self._output.append(rows)
      self._bar.advance()
