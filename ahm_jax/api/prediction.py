"""What a model finds in an image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ahm_jax.errors import printable
from ahm_jax.evaluation.masks import at_own_size
from ahm_jax.predict import findings
from ahm_jax.predict.findings import Findings
from ahm_jax.predict.options import Predictor
from ahm_jax.predict.reading import Slice


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
  """What a model finds in an image of h x w pixels, as `launch.predict` writes it.

  Attributes:
    image: the image's path, or of an array or a mapping 'image' or 'images[i]'.
    slice: its number in a volume of several, from 0; None: it is no such slice.
    lacking: the modalities that the case lacks.
    mask: bool [h, w], True where the lesion is; with K classes uint8 [h, w], 0 for background, k
      for class k.
    class_name: the class of the mask with the largest area, or 'background'; with diagnoses the
      likeliest of them.
    confidence: in [0, 1], 1 where the network is sure of every pixel of the mask, 0.5 where the
      mask lies on the threshold (`ahm_jax.evaluation.confidence`).
    class_probabilities: of each diagnosis, in [0, 1], by name; empty where none is told.
    measured: the numbers of the image's row in predictions.csv, by column: area_px, area_mm2,
      area_share, class, probability, confidence, and those of each class; None: not known.
  """

  image: str
  slice: int | None
  lacking: tuple[str, ...]
  mask: np.ndarray
  class_name: str
  confidence: float
  class_probabilities: Mapping[str, float]
  measured: Mapping[str, str | int | float | None]
  _probabilities: np.ndarray
  _shown: np.ndarray

  @property
  def probabilities(self) -> np.ndarray:
    """Of lesion, float32 [h, w]; with K classes [h, w, K + 1], that of background first.

    Of classes they are resized to the image's size each time that they are asked for.
    """
    if self._probabilities.ndim == 2:
      return self._probabilities
    planes = np.moveaxis(self._probabilities, -1, 0)
    shape = self.mask.shape
    return np.stack([at_own_size(np.ascontiguousarray(plane), shape) for plane in planes], -1)

  def overlay(self) -> np.ndarray:
    """The image with the border of its mask, with classes each in its colour and pattern.

    Returns:
      uint8 [H, W, 3], of the image's own size, or smaller: no side is above 1,024 pixels.
    """
    return findings.overlay(self._shown, self.mask)

  def __repr__(self) -> str:
    height, width = self.mask.shape
    number = '' if self.slice is None else f', slice {self.slice}'
    without = f', without {", ".join(self.lacking)}' if self.lacking else ''
    share = self.measured['area_share']
    told = f'{self.class_name}, {share:.1%} of the image, confidence {self.confidence:.3f}'
    if self.class_probabilities:
      likeliest = self.class_probabilities[self.class_name]
      told = f'{self.class_name} ({likeliest:.3f}), lesion {told.partition(", ")[2]}'
    about = f'{printable(self.image)}{number}{without}, {width} x {height} pixels'
    return f'Prediction({about}: {told})'


def of(item: Slice, found: Findings, predictor: Predictor) -> Prediction:
  """What was found in a slice, whose options asked for overlays."""
  assert item.shown is not None
  measured = {name: None if value == '' else value for name, value in found.measured.items()}
  names = predictor.class_names if item.diagnosis is not None else ()
  return Prediction(
    image=item.image,
    slice=None if item.number == '' else int(item.number),
    lacking=tuple(item.lacking),
    mask=found.mask,
    class_name=str(measured['class']),
    confidence=float(found.measured['confidence']),
    class_probabilities={name: found.measured[f'class_probability_{name}'] for name in names},
    measured=measured,
    _probabilities=found.probabilities,
    _shown=item.shown,
  )
