"""DICOM (PS3.3, PS3.5), by pydicom.

A frame is a slice. Stored values are rescaled (or looked up in the modality LUT), then mapped onto
0..255 by the window that is asked for, else by the file's first one (PS3.3 C.11.2.1.2; a sigmoid is
taken for its linear part), else as `intensity` says; a VOI LUT is not applied. 8-bit grey that is
not rescaled stays as it is, unless the file has a window for it. MONOCHROME1 is inverted, YBR
becomes RGB, palettes are looked up. Spacing is PixelSpacing, that of the patient; the spacing at a
detector is not it. Enhanced multi-frame files give these per frame, or shared.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.data.readers.base import (
  DICOM,
  MAX_PIXELS,
  MAX_VALUES,
  Picture,
  Unreadable,
  UnsupportedImage,
  check_size,
  decoding,
  known_spacing,
  package,
  shown,
  suffix,
)
from ahm_jax.data.readers.intensity import SAMPLED, to_bytes, value_range, with_channels

DEFLATED = '1.2.840.10008.1.2.1.99'

# As in `raster`: what it warns of is damage that it reads past.
warnings.filterwarnings('error', category=UserWarning, module=r'pydicom\.')
logging.getLogger('pydicom').setLevel(logging.CRITICAL)


def is_dicom(path: Path) -> bool:
  return suffix(path.name) in DICOM


def require(path: Path) -> ModuleType:
  """The package pydicom, which reads `path`; UserError where it is not installed."""
  pydicom = package('pydicom', path)
  # Many files bend the rules of value types.
  pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
  return pydicom


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
      dataset = _read(path, stop_before_pixels=True, specific_tags=tags)
      texts = [str(dataset.get(tag) or '') for tag in tags]
  except (Unreadable, UnsupportedImage):
    return Origin('', '', '')
  return Origin(
    *(''.join(letter for letter in text if letter.isprintable()).strip() for text in texts)
  )


def read_slices(path: Path, channels: int, window: Sequence[float] | None) -> list[Picture]:
  """See `dispatch.read_slices`."""
  pydicom = require(path)
  dataset = _read(path)
  frames = _frames(dataset, path)
  kind = str(dataset.get('PhotometricInterpretation', ''))
  if frames.ndim == 4 or kind == 'PALETTE COLOR':
    colours = (
      pydicom.pixels.apply_color_lut(frame, dataset) if frames.ndim == 3 else frame
      for frame in frames
    )
    pixels = [_colour_bytes(colour[..., :3], dataset, channels) for colour in colours]
  else:
    grey = _grey_bytes(pydicom, dataset, frames, window, inverted=kind == 'MONOCHROME1')
    pixels = [with_channels(each, channels) for each in grey]
  size = frames.shape[1], frames.shape[2]
  return [Picture(each, _spacing(dataset, index), size) for index, each in enumerate(pixels)]


def read_labels(path: Path) -> np.ndarray:
  """What the masks of a volume's slices store: numbers [slices, H, W]."""
  frames = _frames(_read(path), path)
  if frames.ndim == 4:
    raise UnsupportedImage(
      f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, or of '
      'class indices'
    )
  return frames


def _read(path: Path, **options: Any) -> Any:
  pydicom = require(path)
  syntax = pydicom.filereader.read_file_meta_info(path).get('TransferSyntaxUID')
  if syntax == DEFLATED:  # pydicom inflates it without a limit.
    raise UnsupportedImage(
      f'{shown(path)} is deflated as a whole; save it with another transfer syntax, as uncompressed'
    )
  if path.stat().st_size > 8 * MAX_VALUES:
    raise UnsupportedImage(f'{shown(path)} has more than {8 * MAX_VALUES} bytes; split it')
  if options:
    return pydicom.dcmread(path, **options)
  # A file would be asked for as many bytes as an element claims to have.
  return pydicom.dcmread(io.BytesIO(path.read_bytes()))


def _frames(dataset: Any, path: Path) -> np.ndarray:
  """Stored values: [frames, H, W], or colours [frames, H, W, 3]."""
  pixels = {'PixelData', 'FloatPixelData', 'DoubleFloatPixelData'}
  if 'Rows' not in dataset or not pixels & set(dataset.dir()):
    raise UnsupportedImage(f'{shown(path)} is DICOM without an image; remove it')
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  samples, count = int(dataset.get('SamplesPerPixel', 1)), int(dataset.get('NumberOfFrames') or 1)
  check_size(path, rows, columns)
  check_size(path, rows, columns, samples, count, limit=max(MAX_VALUES, 3 * MAX_PIXELS))
  frames = _decoded(dataset, path)
  return frames.reshape((count, rows, columns, samples) if samples > 1 else (count, rows, columns))


def _decoded(dataset: Any, path: Path) -> np.ndarray:
  """All stored values, as pydicom shapes them."""
  pydicom = require(path)
  syntax = dataset.file_meta.TransferSyntaxUID
  if not syntax.is_encapsulated and 'PixelData' in dataset:
    # Padding is common; what is too short is refused below.
    expected = pydicom.pixels.utils.get_expected_length(dataset)
    dataset.PixelData = dataset.PixelData[: expected + expected % 2]
  try:
    return pydicom.pixels.pixel_array(dataset, allow_excess_frames=False)
  except (NotImplementedError, RuntimeError) as error:
    unsupported = any(words in str(error) for words in ('missing dependencies', 'does not support'))
    if unsupported or isinstance(error, NotImplementedError):
      raise UnsupportedImage(
        f'{shown(path)} is compressed as {syntax.name}, which cannot be decoded here; decompress '
        'it, as by gdcmconv --raw'
      ) from error
    raise


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
  pydicom: ModuleType,
  dataset: Any,
  frames: np.ndarray,
  window: Sequence[float] | None,
  inverted: bool,
) -> list[np.ndarray]:
  """Rescaled and windowed frames, uint8 [H, W] each."""
  scales = [_rescale(dataset, index) for index in range(len(frames))]
  has_table = 'ModalityLUTSequence' in dataset
  is_plain = frames.dtype == np.uint8 and not has_table and set(scales) == {(1.0, 0.0)}

  def values(index: int) -> np.ndarray:
    if has_table:
      return pydicom.pixels.apply_modality_lut(frames[index], dataset)
    slope, intercept = scales[index]
    return frames[index].astype(np.float64) * slope + intercept

  own = [_window(dataset, index) for index in range(len(frames))]
  if is_plain:
    ranges = [each or (0.0, 255.0) for each in own]
  elif window or None in own:
    stride = max(1, frames.size // SAMPLED)
    sample = np.concatenate([values(index).reshape(-1)[::stride] for index in range(len(frames))])
    ranges = [value_range(sample, window)] * len(frames)
  else:
    ranges = [each for each in own if each is not None]
  grey = [to_bytes(values(index), low, high) for index, (low, high) in enumerate(ranges)]
  return [255 - each for each in grey] if inverted else grey


def _attribute(dataset: Any, index: int, macro: str, name: str) -> Any:
  """An attribute of frame `index`: its own, that which all frames share, or that of a file
  without functional groups.
  """
  for groups, place in (
    ('PerFrameFunctionalGroupsSequence', index),
    ('SharedFunctionalGroupsSequence', 0),
  ):
    items = dataset.get(groups) or []
    inner = items[place].get(macro) if place < len(items) else None
    if inner and inner[0].get(name) is not None:
      return inner[0].get(name)
  return dataset.get(name)


def _first(value: Any) -> float | None:
  """A number, or the first of several."""
  with contextlib.suppress(TypeError, IndexError):
    value = None if isinstance(value, str) else value[0]
  return None if value is None else float(value)


def _rescale(dataset: Any, index: int) -> tuple[float, float]:
  macro = 'PixelValueTransformationSequence'
  slope, intercept = (
    _first(_attribute(dataset, index, macro, f'Rescale{x}')) for x in ('Slope', 'Intercept')
  )
  return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _window(dataset: Any, index: int) -> tuple[float, float] | None:
  """The values that the file's window maps onto black and white; None: it has none."""
  macro = 'FrameVOILUTSequence'
  centre, width = (
    _first(_attribute(dataset, index, macro, f'Window{x}')) for x in ('Center', 'Width')
  )
  if centre is None or width is None or not (np.isfinite(centre) and 1 < width < np.inf):
    return None
  if (_attribute(dataset, index, macro, 'VOILUTFunction') or 'LINEAR') == 'LINEAR':
    centre, width = centre - 0.5, width - 1
  return centre - width / 2, centre + width / 2


def _spacing(dataset: Any, index: int) -> tuple[float, float] | None:
  spacing = _attribute(dataset, index, 'PixelMeasuresSequence', 'PixelSpacing')
  return known_spacing(*spacing) if spacing and len(spacing) == 2 else None
