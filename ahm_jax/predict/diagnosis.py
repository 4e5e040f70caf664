"""A trained classifier that goes with a segmenter: the diagnosis of each image from what was
found in it.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.predict.model import Segmenter
from ahm_jax.runs import checkpoint_files
from ahm_jax.runs.source import load
from ahm_jax.training import classify


@dataclass(frozen=True, eq=False)
class Classifier:
  """A trained VGG16 with the names of its C classes; without norms its `batch_stats` are {}."""

  config: Config
  class_names: tuple[str, ...]
  params: Any
  batch_stats: Any

  @functools.cached_property
  def digest(self) -> str:
    """A SHA-256 over all its weights."""
    return checkpoint_files.digest((self.params, self.batch_stats))

  def probabilities(self, images: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Of each class, float32 [B, C], as `stages.evaluate` has them.

    Args:
      images: uint8 [B, S, S, channels].
      lesions: bool [B, S, S], where the segmenter found something at this size.
    """
    seen = classify.seen(images, lesions, self.config.classify)
    vgg = classify.network(self.config.model, len(self.class_names))
    return classify.predict(vgg, self.params, self.batch_stats, seen, len(seen))


def load_classifier(path: Path, segmenter: Segmenter) -> Classifier:
  """Loads the best checkpoint of a classify run.

  Raises:
    UserError: it holds no such run, one of images of another size than the segmenter's, or weights
      that do not fit its config.
  """
  trained = load(path, ('classify',), '--classifier')
  config, variables = trained.config, trained.variables
  for name in ('image_size', 'channels'):
    own, other = getattr(config.data, name), getattr(segmenter, name)
    if own != other:
      raise UserError(
        f'--classifier={path} was trained with config.data.{name}={own}, and {segmenter.path} with {other}'
      )
  return Classifier(
    config, trained.class_names, variables['params'], variables.get('batch_stats', {})
  )
