"""What a segmentation run finds in images, for its scores and for the classifier that looks
where it found something.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.dataset import Split
from ahm_jax.runs import directory
from ahm_jax.runs import trained as exported
from ahm_jax.training import classify as classification
from ahm_jax.training import segment as segmentation


def predict(config: Config, workdir: Path, images: np.ndarray) -> np.ndarray:
  """Lesion probabilities by the best checkpoint of the segmentation run in `workdir`.

  Args:
    config: that run's.
    images: uint8 [N, S, S, C].

  Returns:
    float32 [N, S, S]; where the run's masks have K classes, those of background and of each, [N, S,
    S, K + 1].
  """
  return segmentation.predict(*best_unet(config, workdir), images, config.evaluate.batch_size)


def find(config: Config, workdir: Path, images: np.ndarray, threshold: float) -> np.ndarray:
  """Where `predict` is at least `threshold`.

  With classes, where one is likelier than background: bool [N, S, S].
  """
  if config.data.mask_classes:
    return (
      segmentation.predict_classes(*best_unet(config, workdir), images, config.evaluate.batch_size)
      > 0
    )
  return predict(config, workdir, images) >= threshold


def best_unet(config: Config, workdir: Path) -> tuple[Any, Any, Any]:
  """The U-Net of a segmentation run, with the parameters and the batch statistics of its best
  checkpoint.
  """
  best = exported.load_run(workdir, 'segment', config).variables
  return (
    segmentation.network(config.model, len(config.data.mask_classes)),
    best['params'],
    best['batch_stats'],
  )


def in_parts(config: Config, workdir: Path, split: Split) -> Iterator[tuple[Split, np.ndarray]]:
  """A split in parts, with what `predict` gives for each: of all, many classes would fill the
  memory.
  """
  unet, batch_size = best_unet(config, workdir), config.evaluate.batch_size
  for start in range(0, len(split), batch_size):
    part = split.take(slice(start, start + batch_size))
    yield part, segmentation.predict(*unet, part.images, batch_size)


def classifier_inputs(config: Config, split: Split) -> Split:
  """The split with what the classifier sees in place of its images."""
  lesions = np.zeros(split.masks.shape, bool)
  if config.classify.input != 'image':
    segmenter = Path(config.init_from).expanduser()
    _, segmenter_config = directory.read(segmenter, ('segment',))
    lesions = find(segmenter_config, segmenter, split.images, config.evaluate.threshold)
  return dataclasses.replace(split, images=classification.inputs(split, lesions, config.classify))
