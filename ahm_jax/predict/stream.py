"""The stream from images to rows: read -> fill batches -> run the network -> assemble -> write.

Each step is a generator that takes from the one before it only what it needs next. Threads read
ahead of the network and write behind it, at most so many images at a time, so that memory does not
grow with the number of images. All keep the order of the images.

The last digits of a network's output may depend on the place in the batch. So as many images as a
batch has rows form a group, which begins a batch, and is computed whole if any of it is missing:
what an earlier run left makes no difference to a mask.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from ahm_jax.evaluation.flips import with_flips
from ahm_jax.predict.diagnosis import diagnose, lesions
from ahm_jax.predict.options import Predictor
from ahm_jax.predict.output import OK
from ahm_jax.predict.reading import Problem, Slice
from ahm_jax.predict.writing import Row, Written
from ahm_jax.runs.trained import Trained

Item = TypeVar('Item')
Result = TypeVar('Result')
Outputs = tuple[jax.Array, ...]  # Of a segmenter, for a batch.


class Window(NamedTuple):
  """What a row of a batch is: a window of a slice, or the empty place of an image that cannot be
  read, so that those after it keep theirs.
  """

  part: Slice | Problem
  number: int = 0  # Of the window among the slice's.
  pixels: np.ndarray | None = None  # uint8 [S, S, C]; None: an empty place.


class Batch(NamedTuple):
  """Windows of one group of images; of the last batch of a group, not all rows may be used."""

  windows: list[Window]
  pixels: np.ndarray  # uint8 [B, S, S, C], 0 where there is no window.


def groups(names: Sequence[str], done: Collection[str], size: int) -> list[Sequence[str]]:
  """The groups of `size` images, in order, of which at least one is not done."""
  every = (names[start : start + size] for start in range(0, len(names), size))
  return [group for group in every if any(name not in done for name in group)]


def read_ahead(
  pool: ThreadPoolExecutor, read: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
  """What `read` returns of each item, in order, of which threads work on the next `depth`."""
  started: collections.deque[Future[Result]] = collections.deque()
  for task in map(lambda item: pool.submit(read, item), items):
    started.append(task)
    if len(started) > depth:
      yield started.popleft().result()
  while started:
    yield started.popleft().result()


def write_behind(
  pool: ThreadPoolExecutor, write: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[Result]:
  """What `write` returns of each item, in order, as soon as it and all before it are done; takes no
  item while threads are at work on more than `depth`.
  """
  started: collections.deque[Future[Result]] = collections.deque()
  for task in map(lambda item: pool.submit(write, item), items):
    started.append(task)
    while started and (len(started) > depth or started[0].done()):
      yield started.popleft().result()
  while started:
    yield started.popleft().result()


def fill(
  sizes: Iterable[int],
  images: Iterator[list[Slice | Problem]],
  batch_size: int,
  shape: tuple[int, int, int],
) -> Iterator[Batch]:
  """Batches of the windows of images, a new one with each group.

  Args:
    sizes: how many images each group has.
    images: the parts of each.
    shape: of a window, (S, S, C).
  """
  for size in sizes:
    parts = itertools.chain.from_iterable(itertools.islice(images, size))
    windows = itertools.chain.from_iterable(map(_windows, parts))
    while taken := list(itertools.islice(windows, batch_size)):
      # A new array for each batch: on CPU, JAX reads where NumPy wrote.
      pixels = np.zeros((batch_size, *shape), np.uint8)
      for row, window in zip(pixels, taken, strict=False):
        row[:] = 0 if window.pixels is None else window.pixels
      yield Batch(taken, pixels)


def _windows(part: Slice | Problem) -> Iterator[Window]:
  if isinstance(part, Problem):
    yield Window(part)
    return
  for number, pixels in enumerate(part.view.windows()):
    yield Window(part, number, pixels)


@functools.lru_cache(maxsize=4)
def forward(segmenter: Trained, flips: bool) -> Callable[[Any, np.ndarray], Outputs]:
  """The segmenter's `outputs`, compiled, with flips where asked for."""
  return jax.jit(with_flips(segmenter.outputs) if flips else segmenter.outputs)


def compute(
  batches: Iterable[Batch], network: Callable[[np.ndarray], Outputs]
) -> Iterator[tuple[Batch, tuple[np.ndarray, ...]]]:
  """What the network finds in each batch; the device is at work on one while the next is filled."""
  running: tuple[Batch, Outputs] | None = None
  for batch in batches:
    started = batch, network(batch.pixels)
    if running:
      yield running[0], jax.tree.map(np.asarray, running[1])
    running = started
  if running:
    yield running[0], jax.tree.map(np.asarray, running[1])


def assemble(
  found: Iterable[tuple[Batch, tuple[np.ndarray, ...]]], predictor: Predictor
) -> Iterator[Slice | Problem]:
  """Slices of which every window was computed, with their diagnoses, and problems."""
  for batch, (probabilities, *told) in found:
    if predictor.classifier:
      found_lesions = lesions(probabilities, predictor.options.threshold)
      told = [diagnose(predictor.classifier, batch.pixels, found_lesions)]
    for diagnoses in told if predictor.class_names else ():
      for window, diagnosis in zip(batch.windows, diagnoses, strict=False):
        if isinstance(window.part, Slice):
          window.part.diagnosis = diagnosis
    yield from _complete(batch.windows, probabilities)
    # Large images are not to be kept until the next batch is computed.
    del batch, probabilities, told


def _complete(windows: Sequence[Window], found: np.ndarray) -> Iterator[Slice | Problem]:
  for (part, number, _), probabilities in zip(windows, found, strict=False):
    if isinstance(part, Problem) or part.view.add(number, probabilities):
      yield part


def by_image(written: Iterable[Written]) -> Iterator[tuple[list[Row], dict[str, int]]]:
  """Of each image the rows, those of its slices or the one that says why there is no mask, and its
  files with their sizes.

  Args:
    written: of each slice or problem, in order.
  """
  rows: list[Row] = []
  files: dict[str, int] = {}
  for one in written:
    rows.append(one.row)
    files |= one.files
    if one.last:
      failed = [row for row in rows if row['status'] != OK]
      yield failed[:1] or rows, files
      rows, files = [], {}
