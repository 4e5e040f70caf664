"""A trained U-Net, ready to be used, from whatever a folder holds one in."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from ahm_jax.config import Config
from ahm_jax.runs import checkpoint_files
from ahm_jax.runs.source import load
from ahm_jax.training import segment

LESION = 'lesion'  # The one class of binary masks.


@dataclass(frozen=True, eq=False)
class Segmenter:
  """A trained U-Net with all that using it needs.

  Attributes:
    path: the folder that it came from.
    config: that it was trained with.
    step: of its training.
    variables: {'params', 'batch_stats'}, float32 arrays in nested dicts.
  """

  path: Path
  config: Config
  step: int
  variables: Any

  @property
  def image_size(self) -> int:
    """Side S in pixels of the square that it sees."""
    return self.config.data.image_size

  @property
  def channels(self) -> int:
    """3: RGB; 1: grey."""
    return self.config.data.channels

  @property
  def mask_classes(self) -> tuple[str, ...]:
    """Names of the K classes of its masks, whose values are 1, 2, ....

    Empty: its masks are binary.
    """
    return self.config.data.mask_classes

  @property
  def class_names(self) -> tuple[str, ...]:
    """As `mask_classes`, with LESION for the one of binary masks."""
    return self.mask_classes or (LESION,)

  @functools.cached_property
  def probabilities(self) -> Callable[[Any, jax.Array], jax.Array]:
    """A pure function (variables, images uint8 [B, S, S, C]) -> float32 [B, S, S].

    With K classes [B, S, S, K + 1].
    """
    return functools.partial(
      segment.probabilities, segment.network(self.config.model, len(self.mask_classes))
    )

  @functools.cached_property
  def digest(self) -> str:
    """A SHA-256 over all its weights."""
    return checkpoint_files.digest(self.variables)


def load_segmenter(path: Path) -> Segmenter:
  """Loads a U-Net that was trained to segment.

  Args:
    path: the workdir of a segmentation run, of which the best checkpoint is taken, or an export in
      Orbax's format.

  Raises:
    UserError: it holds none, one of another task, or weights that do not fit its config.
  """
  trained = load(path, ('segment',))
  return Segmenter(trained.path, trained.config, trained.step, trained.variables)
