"""Pseudo-masks in the course of a training: what the moving average of a segmentation says of a few
images without their masks, kept at each validation for the report.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.dataset import Split
from ahm_jax.data.sampling import stratified
from ahm_jax.models.build import segmentation_unet
from ahm_jax.task import TrainState
from ahm_jax.training import segment

IMAGES = 4  # That are watched, at most.
# Names of a snapshot's arrays.
INDICES, FOUND = 'indices', 'pseudo_masks'


def watched(train: Split, labelled: np.ndarray, seed: int) -> np.ndarray:
  """Images that have no mask in a run, int64 [n], indices into the training split, n at most
  IMAGES.

  Those whose mask is known come first, for their Dice can be said; the masks themselves are not
  looked at. The choice is stratified as that of `labelled_indices`.

  Args:
    labelled: the images that the run learns from with their masks.
    seed: of the choice.
  """
  bare = np.setdiff1d(np.arange(len(train)), labelled)
  known = train.has_mask[bare]
  first = _some(train, bare[known], IMAGES, seed)
  return np.concatenate([first, _some(train, bare[~known], IMAGES - len(first), seed)])


def _some(train: Split, candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
  return stratified(train.labels, candidates, min(count, len(candidates)), seed)


def snapshot(
  config: Config, train: Split, labelled: np.ndarray
) -> Callable[[TrainState], dict[str, Any]] | None:
  """A segmentation's `Task.snapshot`; None where it uses no unlabelled images, or all have their
  mask in it.

  It keeps INDICES, int32 [n], see `watched`, and FOUND, uint8 [n, S, S]: 255 times the probability
  of lesion; with classes the most probable one, 0 for background. The programs are those of the
  validation.
  """
  if not config.segment.unlabelled.batch_size:
    return None
  chosen = watched(train, labelled, config.seed)
  if not len(chosen):
    return None
  images, batch_size = train.images[chosen], config.evaluate.batch_size
  unet = segmentation_unet(config.model, len(config.data.mask_classes))

  def keep(state: TrainState) -> dict[str, Any]:
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    if config.data.mask_classes:
      found = segment.predict_classes(unet, variables, images, batch_size)
    else:
      p = segment.predict(unet, variables, images, batch_size)
      found = np.round(255 * p).astype(np.uint8)
    return {INDICES: chosen.astype(np.int32), FOUND: found}

  return keep
