"""What a trained segmentation finds in images: for its scores, and for the classifier that looks
where it found something.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ahm_jax.config import Config
from ahm_jax.data.dataset import Split
from ahm_jax.runs.trained import Trained
from ahm_jax.training import classify, segment


def probabilities(segmenter: Trained, images: np.ndarray) -> np.ndarray:
  """Lesion probabilities of uint8 images [N, S, S, C].

  Returns:
    float32 [N, S, S]; with K mask classes those of background and of each class, [N, S, S, K + 1].
  """
  evaluate = segmenter.config.evaluate
  return segment.predict(
    segmenter.network, segmenter.variables, images, evaluate.batch_size, evaluate.flips
  )


def find(segmenter: Trained, images: np.ndarray, threshold: float) -> np.ndarray:
  """Where a lesion's probability is at least `threshold`, bool [N, S, S]; with mask classes, where
  one is likelier than background.
  """
  if segmenter.mask_classes:
    evaluate = segmenter.config.evaluate
    found = segment.predict_classes(
      segmenter.network, segmenter.variables, images, evaluate.batch_size, evaluate.flips
    )
    return found > 0
  return probabilities(segmenter, images) >= threshold


def in_parts(segmenter: Trained, split: Split) -> Iterator[tuple[Split, np.ndarray]]:
  """A split in parts, with the `probabilities` of each: those of all, with many classes, would fill
  the memory.
  """
  batch_size = segmenter.config.evaluate.batch_size
  for start in range(0, len(split), batch_size):
    part = split.take(slice(start, start + batch_size))
    yield part, probabilities(segmenter, part.images)


def classifier_inputs(config: Config, segmenter: Trained | None, split: Split) -> Split:
  """The split with what the classifier sees in place of its images.

  Args:
    segmenter: None where config.classify.input is 'image'.
  """
  lesions = np.zeros(split.masks.shape, bool)
  if segmenter is not None:
    lesions = find(segmenter, split.images, config.evaluate.threshold)
  return dataclasses.replace(split, images=classify.inputs(split.images, lesions, config.classify))
