"""DICOM (PS3.3, PS3.5), by pydicom.

A frame is a slice. Stored values are rescaled (or looked up in the modality LUT), then mapped onto
0..255 by the window that is asked for, else by the file's first one (PS3.3 C.11.2.1.2; a sigmoid is
taken for its linear part), else as `intensity` says; a VOI LUT is not applied. 8-bit grey that is
not rescaled stays as it is, unless the file has a window for it. MONOCHROME1 is inverted, YBR
becomes RGB, palettes are looked up. PixelPaddingValue marks what is no image: it does not count for
percentiles, and is black. Spacing is PixelSpacing, that of the patient; the spacing at a detector
is not it. Enhanced multi-frame files give these per frame, or shared.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.data.readers import dicom_content, dicom_file, dicom_frames, dicom_pairing
from ahm_jax.data.readers.base import (
  DICOM,
  SUFFIXES,
  Picture,
  Unreadable,
  UnsupportedImage,
  decoding,
  shown,
  suffix,
)
from ahm_jax.data.readers.dicom_file import require
from ahm_jax.data.readers.intensity import SAMPLED, to_bytes, value_range, with_channels


def is_dicom(path: Path) -> bool:
  """Whether a file is to be read as DICOM: by its suffix, or by its content where it has none of
  ours.
  """
  ending = suffix(path.name)
  return ending in DICOM or (ending not in SUFFIXES and dicom_content.is_content(path))


class Origin(NamedTuple):
  """Where a DICOM file comes from; each '' where it does not say."""

  patient: str  # PatientID.
  study: str  # StudyInstanceUID.
  series: str  # SeriesInstanceUID.

  @property
  def group(self) -> str:
    """The widest of them that is known."""
    return self.patient or self.study or self.series


def origin(path: Path) -> Origin:
  """Reads the header of a DICOM file; nothing is known of one that cannot be read."""
  tags = ['PatientID', 'StudyInstanceUID', 'SeriesInstanceUID']
  try:
    with decoding(path):
      dataset = dicom_file.read(path, stop_before_pixels=True, specific_tags=tags)
      texts = [str(dataset.get(tag) or '') for tag in tags]
  except (Unreadable, UnsupportedImage):
    return Origin('', '', '')
  return Origin(
    *(''.join(letter for letter in text if letter.isprintable()).strip() for text in texts)
  )


def read_slices(path: Path, channels: int, window: Sequence[float] | None) -> list[Picture]:
  """See `dispatch.read_slices`."""
  pydicom = require(path)
  dataset = dicom_file.read(path)
  frames = dicom_file.frames(dataset, path)
  kind = dataset.PhotometricInterpretation
  if frames.ndim == 4 or kind == 'PALETTE COLOR':
    colours = (
      pydicom.pixels.apply_color_lut(frame, dataset) if frames.ndim == 3 else frame
      for frame in frames
    )
    pixels = [_colour_bytes(colour[..., :3], dataset, channels) for colour in colours]
  else:
    grey = _grey_bytes(path, dataset, frames, window, inverted=kind == 'MONOCHROME1')
    pixels = [with_channels(each, channels) for each in grey]
  size = frames.shape[1], frames.shape[2]
  return [
    Picture(each, dicom_frames.spacing(dataset, index), size) for index, each in enumerate(pixels)
  ]


def read_labels(path: Path, image: Path | None = None) -> np.ndarray:
  """What the masks of a volume's slices store: numbers [slices, H, W].

  Args:
    path: of the mask.
    image: of what it is the mask of, in the order of whose frames the slices come; None: they come
      as they are stored.
  """
  dataset = dicom_file.read(path)
  frames = dicom_file.frames(dataset, path)
  if frames.ndim == 4:
    raise UnsupportedImage(
      f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, or of '
      'class indices'
    )
  if image is None:
    return frames
  with decoding(image):
    header = dicom_file.read(image, stop_before_pixels=True)
  return dicom_pairing.arranged(frames, dataset, path, header, image)


def _colour_bytes(colour: np.ndarray, dataset: Any, channels: int) -> np.ndarray:
  """RGB of any depth, [H, W, 3], as uint8 [H, W, channels]."""
  if colour.dtype != np.uint8:
    is_palette = int(dataset.get('SamplesPerPixel', 1)) == 1
    bits = 8 * colour.dtype.itemsize if is_palette else int(dataset.BitsStored)
    colour = (colour >> max(0, bits - 8)).astype(np.uint8)
  if channels == 3:
    return colour
  return np.asarray(Image.fromarray(np.ascontiguousarray(colour)).convert('L'))[..., None]


def _grey_bytes(
  path: Path,
  dataset: Any,
  frames: np.ndarray,
  window: Sequence[float] | None,
  inverted: bool,
) -> list[np.ndarray]:
  """Rescaled and windowed frames, uint8 [H, W] each; padding is black, and counts for no scale."""
  scales = [dicom_frames.rescale(dataset, index) for index in range(len(frames))]
  has_table = 'ModalityLUTSequence' in dataset
  is_plain = frames.dtype == np.uint8 and not has_table and set(scales) == {(1.0, 0.0)}
  padding = dicom_frames.padding(dataset, frames.dtype)

  def values(index: int) -> np.ndarray:
    if has_table:
      found = require(path).pixels.apply_modality_lut(frames[index], dataset).astype(np.float64)
    else:
      slope, intercept = scales[index]
      found = frames[index].astype(np.float64) * slope + intercept
    if padding:
      found[(frames[index] >= padding[0]) & (frames[index] <= padding[1])] = np.nan
    return found

  def grey(index: int) -> np.ndarray:
    found = values(index)
    shades = to_bytes(found, *ranges[index])
    return np.where(np.isnan(found), 0, 255 - shades).astype(np.uint8) if inverted else shades

  own = [dicom_frames.window(dataset, index) for index in range(len(frames))]
  if is_plain:
    ranges = [each or (0.0, 255.0) for each in own]
  elif window or None in own:
    stride = max(1, frames.size // SAMPLED)
    sample = np.concatenate([values(index).reshape(-1)[::stride] for index in range(len(frames))])
    ranges = [value_range(sample, window)] * len(frames)
  else:
    ranges = [each for each in own if each is not None]
  return [grey(index) for index in range(len(frames))]
