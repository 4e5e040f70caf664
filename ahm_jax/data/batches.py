"""Training batches: from images that live on the devices where they fit, else streamed by Grain,
in the same order.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.dataset import Split
from ahm_jax.data.sampling import (
  DIAGNOSED,
  ORDER,
  RECONSTRUCTED,
  UNLABELLED,
  batch_indices,
)
from ahm_jax.errors import UserError
from ahm_jax.runtime import parallel, processes
from ahm_jax.runtime.parallel import Picks, Resident
from ahm_jax.task import Batch

THREADS = 4  # Of the stream.
AHEAD = 4  # Batches that the stream keeps ready.


class Beside(NamedTuple):
  """Images that a step learns from beside others; those with a mask come first."""

  indices: np.ndarray  # int [n], of the split.
  batch_size: int  # Images per step, over all devices.
  stream: int  # Of their order, see `batch_indices`.
  what: str  # Of them is learnt from: 'mask', 'label', or 'image' alone.

  @classmethod
  def unlabelled(cls, split: Split, batch_size: int) -> 'Beside':
    """Any images of the split, in pairs."""
    return cls(np.arange(len(split)), batch_size, UNLABELLED, 'image')

  @classmethod
  def diagnosed(cls, indices: np.ndarray, batch_size: int) -> 'Beside':
    """Images with a label."""
    return cls(indices, batch_size, DIAGNOSED, 'label')

  @classmethod
  def reconstructed(cls, split: Split, batch_size: int) -> 'Beside':
    """Any images of the split."""
    return cls(np.arange(len(split)), batch_size, RECONSTRUCTED, 'image')


@dataclass(frozen=True, eq=False)
class Source:
  """The training images of one run, and the order they come in: that of `batch_indices`.

  On every device a batch ends with its share of those beside.
  """

  split: Split
  indices: np.ndarray  # int [examples]: the images of the split that are trained on.
  batch_size: int
  seed: int
  devices: tuple[jax.Device, ...]
  resident: Resident | None  # None: streamed.
  beside: tuple[Beside, ...] = ()

  def inputs(self, start: int, stop: int) -> Iterator[Picks | Batch]:
    """What steps start, start + 1, ..., stop - 1 take, each with leading axes [devices of this
    process, images a device].
    """
    if self.resident is not None:
      return map(self._picks, range(start, stop))
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(grain.MapDataset.range(start, stop).map(self._batch).to_iter_dataset(options))

  def names(self, step: int) -> list[str]:
    """The ids of the images of a step's batch, over all devices."""
    return [self.split.ids[i] for part in self._order(step) for i in part]

  def _order(self, step: int) -> list[np.ndarray]:
    """The images of a step, and those beside them."""
    parts = ((self.indices, self.batch_size, ORDER), *(part[:3] for part in self.beside))
    return [
      indices[batch_indices(self.seed, int(step), len(indices), batch_size, stream)]
      for indices, batch_size, stream in parts
    ]

  def _picks(self, step: int) -> Picks:
    picks, first = [], 0
    for part in self._order(step):
      positions = np.arange(first, first + len(part), dtype=np.int32)
      arrays = part.astype(np.int32), positions
      picks.append([parallel.own_rows(array, self.devices) for array in arrays])
      first += len(part)
    return Picks(*(np.concatenate(parts, 1) for parts in zip(*picks, strict=True)))

  def _batch(self, step: int) -> Batch:
    picks = self._picks(step)
    split = self.split
    return Batch(
      split.images[picks.indices],
      split.masks[picks.indices],
      split.labels[picks.indices],
      picks.positions,
    )


def check_pairs(unlabelled: int, devices: int) -> None:
  """Raises a UserError where devices cannot share the pairs of so many unlabelled images."""
  if unlabelled % (2 * devices):
    raise UserError(
      f'config.segment.unlabelled.batch_size is {unlabelled}, whose pairs {devices} devices cannot '
      f'share evenly; make it a multiple of {2 * devices}'
    )


def source(
  split: Split,
  config: DataConfig,
  indices: np.ndarray,
  batch_size: int,
  seed: int,
  devices: Sequence[jax.Device] | None = None,
  beside: tuple[Beside, ...] = (),
) -> Source:
  """The source of a run's training batches.

  Args:
    split: N images; all of them become resident, whichever are trained on, so that runs on
      different labels share them.
    config: its `resident_share` decides.
    indices: which images of the split to train on.
    batch_size: images per step, over all devices.
    seed: of the order.
    devices: what the run trains on; all devices of all processes where None.
    beside: what else each step takes.

  Raises:
    UserError: the devices do not divide a batch_size, or there is nothing to train on.
  """
  devices = parallel.all_devices() if devices is None else tuple(devices)
  labelled = Beside(np.asarray(indices), batch_size, ORDER, 'mask')
  for part in (labelled, *beside):
    if part.stream == UNLABELLED:
      check_pairs(part.batch_size, len(devices))
    parallel.check_shared(part.batch_size, devices)
    batch_indices(seed, 0, len(part.indices), part.batch_size)
  size = split.images.nbytes + split.masks.nbytes + split.labels.nbytes
  fits = processes.all_of(size <= config.resident_share * _memory(parallel.own(devices)))
  resident = _resident(split, devices) if fits else None
  return Source(split, np.asarray(indices), batch_size, seed, devices, resident, beside)


def _memory(devices: Sequence[jax.Device]) -> float:
  """Bytes of memory of the smallest device; host devices share the machine's."""
  limits = [(device.memory_stats() or {}).get('bytes_limit') for device in devices]
  host = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / len(devices)
  return min(limit or host for limit in limits)


@functools.lru_cache(maxsize=1)
def _resident(split: Split, devices: tuple[jax.Device, ...]) -> Resident:
  """The split on the devices.

  The latest one is kept, so that runs one after another on the same split send it once.
  """
  arrays: tuple[Any, ...] = (split.images, split.masks, split.labels)  # Not on devices yet.
  return parallel.replicate(Resident(*arrays), devices)
