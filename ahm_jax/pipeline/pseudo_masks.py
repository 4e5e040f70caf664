"""What the report shows of pseudo-masks: snapshots that segmentations of a grid have kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ahm_jax.config import Config, with_method
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.pipeline.cells import Cell
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.report.pseudo_masks import Course, Watched
from ahm_jax.runs import snapshots
from ahm_jax.training.pseudo_masks import FOUND, INDICES

STEPS = 5  # Shown of a run.


def courses(cells: Sequence[Cell], config: Config, data: Dataset) -> list[Course]:
  """That of the first run of each method that has kept any.

  Args:
    config: of the grid.
  """
  found: dict[str, Course] = {}
  for cell in cells:
    folder = cell.directory(SEGMENT)
    if cell.method not in found and (kept := _kept(snapshots.read(folder), data.splits['train'])):
      found[cell.method] = _course(cell, config, kept, data)
  return list(found.values())


def _kept(
  arrays: Mapping[int, Mapping[str, Any]], train: Split
) -> dict[int, Mapping[str, np.ndarray]]:
  """The snapshots that are of images of the split, and of the same ones as the last."""
  sound = {step: each for step, each in arrays.items() if _is_sound(each, train)}
  if not sound:
    return {}
  last = sound[max(sound)][INDICES]
  return {step: each for step, each in sound.items() if np.array_equal(each[INDICES], last)}


def _is_sound(arrays: Mapping[str, np.ndarray], train: Split) -> bool:
  if not {INDICES, FOUND} <= arrays.keys():
    return False
  indices, found = arrays[INDICES], arrays[FOUND]
  return (
    (indices.dtype, found.dtype) == (np.int32, np.uint8)
    and indices.ndim == 1
    and len(indices) > 0
    and found.shape == (len(indices), *train.images.shape[1:3])
    and 0 <= indices.min() <= indices.max() < len(train)
  )


def _course(
  cell: Cell, config: Config, kept: Mapping[int, Mapping[str, np.ndarray]], data: Dataset
) -> Course:
  classes, train = data.mask_classes, data.splits['train']
  steps = snapshots.spread(kept, STEPS)

  def of(place: int, i: int) -> Watched:
    found = {step: kept[step][FOUND][place] for step in steps}
    if not classes:
      found = {step: each / np.float32(255) for step, each in found.items()}
    truth = (train.masks[i] if classes else train.masks[i] > 0) if train.has_mask[i] else None
    return Watched(train.ids[i], train.images[i], truth, found)

  indices = kept[steps[-1]][INDICES].tolist()
  return Course(
    cell.method,
    cell.labels,
    cell.seed,
    not with_method(config, cell.method).segment.unlabelled.teacher,
    [of(place, i) for place, i in enumerate(indices)],
    config.evaluate.threshold,
    classes,
  )
