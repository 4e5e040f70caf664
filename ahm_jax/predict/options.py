"""What predictions depend on, and what they are known by."""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ahm_jax.config import DataConfig
from ahm_jax.errors import UserError
from ahm_jax.runs.trained import Trained


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


def check(options: Options, batch_size: int, threads: int = 0, dashes: str = '--') -> None:
  """Raises a UserError where a number is out of its range.

  Args:
    dashes: what stands before its name in the message.
  """
  for name, value, kind, fine, allowed in (
    ('threshold', options.threshold, Real, lambda x: 0 < x < 1, 'strictly between 0 and 1'),
    ('tile', options.tile, Integral, lambda x: x == 0 or x >= 16, '0, or at least 16'),
    ('overlap', options.overlap, Real, lambda x: 0 <= x <= 0.9, 'between 0 and 0.9'),
    ('batch_size', batch_size, Integral, lambda x: x >= 1, 'at least 1'),
    ('threads', threads, Integral, lambda x: x >= 0, 'at least 0'),
  ):
    if not (isinstance(value, kind) and fine(value)):
      raise UserError(f'{dashes}{name} is {value!r}; it must be {allowed}')


@dataclass(frozen=True)
class Predictor:
  """What turns images into masks, and into diagnoses where there is a classifier."""

  segmenter: Trained
  options: Options
  classifier: Trained | None = None

  def __post_init__(self) -> None:
    if self.classifier and self.options.tile:
      raise UserError(
        'a classifier looks at images as a whole, and tile at parts of them; leave out one of them'
      )

  @property
  def class_names(self) -> tuple[str, ...]:
    """The diagnoses of images: the classifier's, or those that the segmenter tells itself of
    images that it looks at as a whole; none where there are none.
    """
    if self.classifier:
      return self.classifier.class_names
    return () if self.options.tile else self.segmenter.class_names


def identity(predictor: Predictor, images: Path) -> dict[str, Any]:
  """All that the predictions of the images below a folder depend on, by the names of the flags that
  say it.
  """
  segmenter, classifier = predictor.segmenter, predictor.classifier
  return {
    '--checkpoint': segmenter.digest,
    '--images': str(images.resolve()),
    '--classifier': classifier.digest if classifier else '',
    **{f'--{name}': value for name, value in dataclasses.asdict(predictor.options).items()},
    'config.data.window': segmenter.config.data.window,
    'config.data.slice_axis': segmenter.config.data.slice_axis,
    **_of_modalities(segmenter.config.data),
  }


def _of_modalities(data: DataConfig) -> dict[str, Any]:
  """Nothing without them, as in folders that are older than they are."""
  names = ('modalities', 'intensity') if data.modalities else ()
  return {f'config.data.{name}': getattr(data, name) for name in names}
