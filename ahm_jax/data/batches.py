"""Training batches: from images that live on the devices where they fit, else streamed by Grain,
in the same order.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.dataset import Split
from ahm_jax.data.sampling import UNLABELLED, batch_indices
from ahm_jax.errors import UserError
from ahm_jax.runtime import parallel, processes
from ahm_jax.runtime.parallel import Picks, Resident
from ahm_jax.task import Batch

THREADS = 4  # Of the stream.
AHEAD = 4  # Batches that the stream keeps ready.


@dataclass(frozen=True, eq=False)
class Source:
  """The training images of one run, and the order they come in: that of `batch_indices`.

  On every device a batch ends with its share of unlabelled images, any of the split.
  """

  split: Split
  indices: np.ndarray  # int [examples]: the images of the split that are trained on.
  batch_size: int
  seed: int
  devices: tuple[jax.Device, ...]
  resident: Resident | None  # None: streamed.
  unlabelled: int = 0  # Unlabelled images per step, over all devices.

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
    """The labelled images of a step, and the unlabelled ones if there are any."""
    step = int(step)
    order = [self.indices[batch_indices(self.seed, step, len(self.indices), self.batch_size)]]
    if self.unlabelled:
      order.append(batch_indices(self.seed, step, len(self.split), self.unlabelled, UNLABELLED))
    return order

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
  unlabelled: int = 0,
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
    unlabelled: unlabelled images per step, over all devices.

  Raises:
    UserError: the devices do not divide batch_size, or the pairs of unlabelled images, or there is
      nothing to train on.
  """
  devices = parallel.all_devices() if devices is None else tuple(devices)
  parallel.check_shared(batch_size, devices)
  check_pairs(unlabelled, len(devices))
  batch_indices(seed, 0, len(indices), batch_size)
  size = split.images.nbytes + split.masks.nbytes + split.labels.nbytes
  fits = processes.all_of(size <= config.resident_share * _memory(parallel.own(devices)))
  resident = _resident(split, devices) if fits else None
  return Source(split, np.asarray(indices), batch_size, seed, devices, resident, unlabelled)


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
