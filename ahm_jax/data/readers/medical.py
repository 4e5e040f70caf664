"""DICOM (PS3.3, PS3.5) by pydicom and NIfTI (1 and 2, single files) by nibabel, as the slices that
`files` promises.

DICOM: a frame is a slice. Stored values are rescaled (or looked up in the modality LUT), then
mapped onto 0..255 by the window that is asked for, else by the file's first one (PS3.3 C.11.2.1.2;
a sigmoid is taken for its linear part), else as `files` says; a VOI LUT is not applied. MONOCHROME1
is inverted, YBR becomes RGB, palettes are looked up. Spacing is PixelSpacing, that of the patient;
the spacing at a detector is not it. Enhanced multi-frame files give these per frame, or shared.

NIfTI: values are scaled by scl_slope and scl_inter, and the axes turned to RAS+ by the affine, so
that an axis means the same in every file. A slice's rows and columns are the two other axes, in
their order.

8-bit grey that is not rescaled stays as it is, unless a DICOM file has a window for it.
"""

import contextlib
import gzip
import importlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.data.readers.files import (
  MAX_PIXELS,
  MAX_VALUES,
  SAMPLED,
  Picture,
  Unreadable,
  UnsupportedImage,
  check_size,
  decoding,
  shown,
  suffix,
  to_bytes,
  value_range,
  with_channels,
)
from ahm_jax.errors import UserError

DEFLATED = '1.2.840.10008.1.2.1.99'
# The most that deflate shrinks, so a .nii.gz cannot hold more bytes than this for each of its own.
DEFLATE_RATIO = 1032
MILLIMETRES = {'meter': 1000.0, 'mm': 1.0, 'micron': 0.001, 'unknown': 1.0}

# As in `files`: what these warn of is damage that they read past.
warnings.filterwarnings('error', category=UserWarning, module=r'(pydicom|nibabel)\.')
for _name in ('pydicom', 'nibabel.global'):
  logging.getLogger(_name).setLevel(logging.CRITICAL)


def require(path: Path):
  """The package that reads a file: pydicom or nibabel.

  Raises:
    UserError: it is not installed.
  """
  name = 'nibabel' if is_nifti(path) else 'pydicom'
  try:
    package = importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"{shown(path)} needs the package {name}; pip install 'ahm_jax[medical]' (in a checkout: "
      ".venv/bin/pip install -e '.[medical]')"
    ) from error
  if name == 'pydicom':
    package.config.settings.reading_validation_mode = (
      package.config.IGNORE
    )  # Many files bend the rules of value types.
  return package


def is_nifti(path: Path) -> bool:
  return suffix(path.name) in ('.nii', '.nii.gz')


def read_slices(
  path: Path, channels: int, window: Sequence[float] | None, axis: int
) -> list[tuple[str, Picture]]:
  """See `files.read_slices`; `axis` is that of a NIfTI volume."""
  pictures = (
    _nifti_slices(path, channels, window, axis)
    if is_nifti(path)
    else _dicom_slices(path, channels, window)
  )
  if len(pictures) == 1:
    return [('', pictures[0])]
  return [(f'_s{index:04d}', picture) for index, picture in enumerate(pictures)]


def read_labels(path: Path, axis: int) -> np.ndarray:
  """What the masks of a volume's slices store: numbers [slices, H, W]."""
  if is_nifti(path):
    volume = _read_nifti(path)
    values = volume.values if volume.is_plain else volume.scaled(volume.values)
    return np.moveaxis(values, axis, 0)
  dataset = _read_dicom(path)
  frames = _frames(dataset, path)
  if frames.ndim == 4:
    raise UnsupportedImage(
      f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, or of class indices'
    )
  return frames


def check_pair(image: Path, mask: Path) -> None:
  """Refuses an image and its mask whose axes mean different things, which their sizes alone may
  not show.
  """
  if is_nifti(image) != is_nifti(mask):
    raise UnsupportedImage(
      f'{shown(mask)} and {shown(image)} are not both NIfTI, and would have their axes in different order; save both as NIfTI, '
      'or neither'
    )
  if is_nifti(image):
    with decoding(mask):
      own, other = _orientation(mask), _orientation(image)
    if own != other:
      raise UnsupportedImage(
        f'{shown(mask)} is stored in orientation {own} but {shown(image)} in {other}; give the mask the affine of the image'
      )


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
      dataset = _read_dicom(path, stop_before_pixels=True, specific_tags=tags)
      texts = [str(dataset.get(tag) or '') for tag in tags]
  except (Unreadable, UnsupportedImage):
    return Origin('', '', '')
  return Origin(
    *(''.join(letter for letter in text if letter.isprintable()).strip() for text in texts)
  )


# DICOM.


def _read_dicom(path: Path, **options):
  pydicom = require(path)
  if (
    pydicom.filereader.read_file_meta_info(path).get('TransferSyntaxUID') == DEFLATED
  ):  # pydicom inflates it without a limit.
    raise UnsupportedImage(
      f'{shown(path)} is deflated as a whole; save it with another transfer syntax, as uncompressed'
    )
  if path.stat().st_size > 8 * MAX_VALUES:
    raise UnsupportedImage(f'{shown(path)} has more than {8 * MAX_VALUES} bytes; split it')
  if options:
    return pydicom.dcmread(path, **options)
  return pydicom.dcmread(
    io.BytesIO(path.read_bytes())
  )  # A file would be asked for as many bytes as an element claims to have.


def _frames(dataset, path: Path) -> np.ndarray:
  """Stored values: [frames, H, W], or colours [frames, H, W, 3]."""
  pydicom = require(path)
  if 'Rows' not in dataset or not (
    {'PixelData', 'FloatPixelData', 'DoubleFloatPixelData'} & set(dataset.dir())
  ):
    raise UnsupportedImage(f'{shown(path)} is DICOM without an image; remove it')
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  samples, count = int(dataset.get('SamplesPerPixel', 1)), int(dataset.get('NumberOfFrames') or 1)
  check_size(path, rows, columns)
  check_size(path, rows, columns, samples, count, limit=max(MAX_VALUES, 3 * MAX_PIXELS))
  syntax = dataset.file_meta.TransferSyntaxUID
  if not syntax.is_encapsulated and 'PixelData' in dataset:
    expected = pydicom.pixels.utils.get_expected_length(dataset)
    dataset.PixelData = dataset.PixelData[
      : expected + expected % 2
    ]  # Padding is common; what is too short is refused below.
  try:
    frames = pydicom.pixels.pixel_array(dataset, allow_excess_frames=False)
  except (NotImplementedError, RuntimeError) as error:
    unsupported = any(words in str(error) for words in ('missing dependencies', 'does not support'))
    if unsupported or isinstance(error, NotImplementedError):
      raise UnsupportedImage(
        f'{shown(path)} is compressed as {syntax.name}, which cannot be decoded here; decompress it, as by gdcmconv --raw'
      ) from error
    raise
  return frames.reshape((count, rows, columns, samples) if samples > 1 else (count, rows, columns))


def _dicom_slices(path: Path, channels: int, window: Sequence[float] | None) -> list[Picture]:
  pydicom = require(path)
  dataset = _read_dicom(path)
  frames = _frames(dataset, path)
  sizes = frames.shape[1:3]
  spacings = [_dicom_spacing(dataset, index) for index in range(len(frames))]
  kind = str(dataset.get('PhotometricInterpretation', ''))
  if frames.ndim == 4 or kind == 'PALETTE COLOR':
    colours = (
      pydicom.pixels.apply_color_lut(frame, dataset) if frames.ndim == 3 else frame
      for frame in frames
    )
    pixels = [_colour_bytes(colour[..., :3], dataset, channels) for colour in colours]
  else:
    pixels = [
      with_channels(grey, channels)
      for grey in _dicom_grey(dataset, frames, window, inverted=kind == 'MONOCHROME1')
    ]
  return [Picture(each, spacing, sizes) for each, spacing in zip(pixels, spacings, strict=True)]


def _colour_bytes(colour: np.ndarray, dataset, channels: int) -> np.ndarray:
  """RGB of any depth, [H, W, 3], as uint8 [H, W, channels]."""
  if colour.dtype != np.uint8:
    is_palette = int(dataset.get('SamplesPerPixel', 1)) == 1
    bits = 8 * colour.dtype.itemsize if is_palette else int(dataset.BitsStored)
    colour = (colour >> max(0, bits - 8)).astype(np.uint8)
  return (
    colour
    if channels == 3
    else np.asarray(Image.fromarray(np.ascontiguousarray(colour)).convert('L'))[..., None]
  )


def _dicom_grey(
  dataset, frames: np.ndarray, window: Sequence[float] | None, inverted: bool
) -> list[np.ndarray]:
  """Rescaled and windowed frames, uint8 [H, W] each."""
  scales = [_rescale(dataset, index) for index in range(len(frames))]
  is_plain = (
    frames.dtype == np.uint8
    and 'ModalityLUTSequence' not in dataset
    and set(scales) == {(1.0, 0.0)}
  )

  def values(index: int) -> np.ndarray:
    if 'ModalityLUTSequence' in dataset:
      return importlib.import_module('pydicom.pixels').apply_modality_lut(frames[index], dataset)
    slope, intercept = scales[index]
    return frames[index].astype(np.float64) * slope + intercept

  ranges = [_dicom_window(dataset, index) for index in range(len(frames))]
  if is_plain:
    ranges = [each or (0.0, 255.0) for each in ranges]
  elif window or None in ranges:
    stride = max(1, frames.size // SAMPLED)
    sample = np.concatenate([values(index).reshape(-1)[::stride] for index in range(len(frames))])
    ranges = [value_range(sample, window)] * len(frames)
  grey = [to_bytes(values(index), *ranges[index]) for index in range(len(frames))]
  return [255 - each for each in grey] if inverted else grey


def _attribute(dataset, index: int, macro: str, name: str):
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


def _first(value) -> float | None:
  """A number, or the first of several."""
  with contextlib.suppress(TypeError, IndexError):
    value = None if isinstance(value, str) else value[0]
  return None if value is None else float(value)


def _rescale(dataset, index: int) -> tuple[float, float]:
  numbers = (
    _first(_attribute(dataset, index, 'PixelValueTransformationSequence', f'Rescale{x}'))
    for x in ('Slope', 'Intercept')
  )
  slope, intercept = numbers
  return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _dicom_window(dataset, index: int) -> tuple[float, float] | None:
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


def _dicom_spacing(dataset, index: int) -> tuple[float, float] | None:
  spacing = _attribute(dataset, index, 'PixelMeasuresSequence', 'PixelSpacing')
  return _known_spacing(spacing) if spacing and len(spacing) == 2 else None


def _known_spacing(numbers) -> tuple[float, float] | None:
  row, column = (float(number) for number in numbers)
  return (row, column) if 0 < row < np.inf and 0 < column < np.inf else None


# NIfTI.


class _Volume(NamedTuple):
  values: np.ndarray  # [X, Y, Z] as stored, in RAS+ orientation.
  slope: float
  inter: float
  spacing: tuple[float, float, float]  # mm along the axes.

  @property
  def is_plain(self) -> bool:
    return self.slope == 1 and self.inter == 0

  def scaled(self, values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) * self.slope + self.inter


def _nifti_slices(
  path: Path, channels: int, window: Sequence[float] | None, axis: int
) -> list[Picture]:
  volume = _read_nifti(path)
  with np.errstate(all='ignore'):
    if volume.values.dtype == np.uint8 and volume.is_plain:
      low, high = 0.0, 255.0
    else:
      stride = max(1, volume.values.size // SAMPLED)
      low, high = value_range(volume.scaled(volume.values.ravel('K')[::stride]), window)
    planes = (
      to_bytes(volume.scaled(plane), low, high) for plane in np.moveaxis(volume.values, axis, 0)
    )
    across = _known_spacing(np.delete(volume.spacing, axis))
    return [Picture(with_channels(plane, channels), across, plane.shape) for plane in planes]


def _header(path: Path, file):
  """The header of an open NIfTI file, checked to be of one, and as long as the file can be."""
  nibabel = require(path)
  start = file.read(348)
  is_second = start[:4] in (b'\x1c\x02\x00\x00', b'\x00\x00\x02\x1c')  # 540, in either byte order.
  if is_second:
    start += file.read(540 - 348)
  header = (nibabel.Nifti2Header if is_second else nibabel.Nifti1Header)(start)
  if not header['magic'].item().startswith(b'n+'):
    raise Unreadable(shown(path))
  return header


def _open_nifti(path: Path):
  return gzip.open(path) if suffix(path.name) == '.nii.gz' else path.open('rb')


def _orientation(path: Path) -> str:
  """Where the stored axes point to, as 'LPS'."""
  nibabel = require(path)
  with _open_nifti(path) as file:
    return ''.join(
      letter or '-' for letter in nibabel.aff2axcodes(_header(path, file).get_best_affine())
    )


def _read_nifti(path: Path) -> _Volume:
  nibabel = require(path)
  with _open_nifti(path) as file:
    header = _header(path, file)
    shape = tuple(map(int, header.get_data_shape()))
    while len(shape) > 3 and shape[-1] == 1:
      shape = shape[:-1]
    if len(shape) not in (2, 3):
      raise UnsupportedImage(
        f'{shown(path)} has {len(shape)} axes of {"x".join(map(str, shape))}; save each volume in a file of its own'
      )
    shape = (*shape, 1)[:3]
    dtype = header.get_data_dtype()
    check_size(path, *shape, limit=MAX_VALUES)
    for axis in range(3):
      check_size(path, *np.delete(shape, axis))
    if dtype.kind not in 'iuf':
      raise UnsupportedImage(
        f'{shown(path)} holds colours or complex numbers; save it as a volume of integers or floats'
      )
    offset = (
      int(header['vox_offset']) or header.single_vox_offset
    )  # 0 stands for right after the header.
    promised = int(np.prod(shape)) * dtype.itemsize
    ratio = DEFLATE_RATIO if suffix(path.name) == '.nii.gz' else 1
    if offset < header.single_vox_offset or offset + promised > ratio * path.stat().st_size:
      raise Unreadable(shown(path))
    file.seek(offset)
    data = file.read(promised)
    if len(data) != promised or (
      ratio > 1 and len(file.read(2**20)) == 2**20
    ):  # Reads on, so that gzip checks its sum.
      raise Unreadable(shown(path))
  values = np.frombuffer(data, dtype).reshape(shape, order='F')
  slope, inter = header.get_slope_inter()
  orientation = nibabel.io_orientation(header.get_best_affine())
  if np.isnan(orientation).any():
    raise Unreadable(shown(path))
  unit = MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
  zooms = np.array((*header.get_zooms(), 1.0, 1.0)[:3], np.float64) * unit
  spacing = tuple(zooms[np.argsort(orientation[:, 0])])
  values = nibabel.apply_orientation(values, orientation)
  return _Volume(
    values, 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter), spacing
  )
