"""A trained segmentation, to be used from Python."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ahm_jax.api import prediction
from ahm_jax.api.arrays import Range
from ahm_jax.api.inputs import Given, given
from ahm_jax.api.prediction import Prediction
from ahm_jax.errors import UserError
from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT
from ahm_jax.predict import options as choices
from ahm_jax.predict import stream
from ahm_jax.predict.diagnosis import check_together
from ahm_jax.predict.findings import concluded
from ahm_jax.predict.options import Options, Predictor
from ahm_jax.predict.reading import Problem, Slice, of_pixels, read_place
from ahm_jax.runs import trained
from ahm_jax.runs.trained import Trained


def load(path: str | os.PathLike[str], classifier: str | os.PathLike[str] | None = None) -> 'Model':
  """Loads a trained segmentation.

  Args:
    path: the workdir of a segment run, of which the best checkpoint is taken, or an export of one
      in the format orbax.
    classifier: the workdir of a classify run, or an export of one: it tells the diagnosis of each
      image from what was found in it.

  Raises:
    UserError: there is no such run, it is damaged, or the two do not go together.
  """
  segmenter = trained.load(Path(path), (SEGMENT,), 'path')
  if classifier is None:
    return Model(segmenter)
  other = trained.load(Path(classifier), (CLASSIFY,), 'classifier')
  check_together(other, segmenter, 'classifier')
  return Model(segmenter, other)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
  """A trained segmentation, maybe with a classifier; see `load`."""

  _segmenter: Trained
  _classifier: Trained | None = None

  @property
  def path(self) -> Path:
    """The folder that it came from."""
    return self._segmenter.path

  @property
  def image_size(self) -> int:
    """Side in pixels of the squares that the network sees images as."""
    return self._segmenter.image_size

  @property
  def channels(self) -> int:
    """Of images: 3, RGB; 1, grey; or as many as there are `modalities`."""
    return self._segmenter.channels

  @property
  def modalities(self) -> tuple[str, ...]:
    """Names of what its images hold at each pixel, in order; empty: they are RGB or grey."""
    return self._segmenter.config.data.modalities

  @property
  def slice_axis(self) -> int:
    """The axis of a NIfTI volume, in RAS+ orientation, across which its slices lie."""
    return self._segmenter.config.data.slice_axis

  @property
  def mask_classes(self) -> tuple[str, ...]:
    """Names of the values 1, 2, ... of its masks; empty: masks are True where the lesion is."""
    return self._segmenter.mask_classes

  @property
  def class_names(self) -> tuple[str, ...]:
    """The diagnoses that it tells; empty: none."""
    return (self._classifier or self._segmenter).class_names

  @property
  def threshold(self) -> float:
    """Probability from which on a pixel is lesion, unless `predict` is given another."""
    return self._segmenter.config.evaluate.threshold

  @functools.cached_property
  def _variables(self) -> Any:
    return jax.device_put(self._segmenter.variables)

  def predict(
    self,
    images: Any,
    *,
    range: Range | None = None,
    threshold: float | None = None,
    flips: bool = False,
    tile: int = 0,
    overlap: float = 0.5,
    batch_size: int = 8,
  ) -> Prediction | list[Prediction]:
    """Finds masks, and diagnoses where the model tells them; of files, those that `launch.predict`
    writes for the same files in the same order.

    Args:
      images: one image or several, each of any size:
        - an array [h, w, C], C = `channels`; where that is 1 [h, w] too;
        - a batch of them, [b, h, w, C];
        - the path of a file: JPEG, PNG, TIFF, BMP, WebP, DICOM or NIfTI; with `modalities` that of
          a file that holds them all, or of any of CASE_0000, CASE_0001, ..., which hold one each;
        - a mapping of modalities, by name, to arrays [h, w] or to paths; where the network was
          trained with config.data.modality_dropout, some may lack;
        - a list of arrays, paths and mappings.
      range: the values of arrays that are black and white, as (0, 1) of floats; None: they are
        uint8, and of modalities what a file would hold, mapped as config.data.intensity says. By
        percentile or deviation that is of the array: of a slice of a volume, give the volume's
        path, or its modalities as training has mapped them, and range=(0, 255).
      threshold: lesion where the probability is at least this, in (0, 1); the model's where None.
        Of several classes the likeliest is taken.
      flips: average over the image as it is, upside down, mirrored, and both.
      tile: side in pixels of windows that overlap by `overlap`, in [0, 0.9], at least 16; no
        diagnosis is told then. 0: images are looked at as a whole.
      batch_size: images at a time. The first call with one compiles; that of 1 is quickest for
        single images. Last digits may depend on it.

    Returns:
      of an array [h, w, C] or the path of an image, what was found in it; else a list: an item an
      image, in order, and of a volume of several slices an item a slice: of NIfTI,
      numpy.stack([result.mask for result in results], slice_axis) lies on what nibabel has of it
      by as_closest_canonical.

    Raises:
      UserError: an image cannot be used, or an option is out of its range.
    """
    options = Options(
      self.threshold if threshold is None else threshold, bool(flips), tile, overlap, overlays=True
    )
    choices.check(options, batch_size, dashes='')
    predictor = Predictor(self._segmenter, options, self._classifier)
    items, single = given(images, self._segmenter.config.data, range)
    found = self._found(predictor, items, batch_size)
    return found[0] if single and len(found) == 1 else found

  def _found(self, predictor: Predictor, items: list[Given], batch_size: int) -> list[Prediction]:
    segmenter, options = self._segmenter, predictor.options
    network = functools.partial(stream.forward(segmenter, options.flips), self._variables)
    read = functools.partial(_read, segmenter=segmenter, options=options)
    sizes = map(len, stream.groups([item.name for item in items], (), batch_size))
    with ThreadPoolExecutor() as pool:
      try:
        parts = stream.read_ahead(pool, read, items, batch_size)
        batches = stream.fill(sizes, parts, batch_size, segmenter.shape)
        return [
          prediction.of(part, concluded(part, predictor), predictor)
          for part in stream.assemble(stream.compute(batches, network), predictor)
          if isinstance(part, Slice)
        ]
      finally:
        pool.shutdown(cancel_futures=True)

  def __repr__(self) -> str:
    kind = ' + '.join(self.modalities) or ('RGB' if self.channels == 3 else 'grey')
    told = f', diagnoses {", ".join(self.class_names)}' if self.class_names else ''
    by = f' by {self._classifier.path}' if self._classifier else ''
    return (
      f'Model({self.path}, step {self._segmenter.step}: {kind} images of any size, seen at '
      f'{self.image_size} x {self.image_size} pixels; masks of '
      f'{", ".join(self._segmenter.lesion_names)}{told}{by})'
    )


def _read(item: Given, segmenter: Trained, options: Options) -> list[Slice | Problem]:
  """The slices of an image; raises a UserError where it cannot be read."""
  if isinstance(item.source, np.ndarray):
    return [of_pixels(item.source, item.name, segmenter.config, options, item.lacking)]
  parts = read_place(item.source, item.name, segmenter.config, options)
  for part in parts:
    if isinstance(part, Problem):
      raise UserError(part.text)
  return parts
