"""DICOM files read and decoded by pydicom: the data set, and its stored values.

What programs leave out or get wrong is mended where it is plain: no preamble or meta header (older
scanners), no transfer syntax or that of what the pixels were before, elements that are missing.
"""

import io
import logging
import os
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ahm_jax.data.readers import dicom_content
from ahm_jax.data.readers.base import (
  MAX_PIXELS,
  MAX_VALUES,
  Unreadable,
  UnsupportedImage,
  check_size,
  package,
  shown,
)
from ahm_jax.errors import printable

DEFLATED = '1.2.840.10008.1.2.1.99'
_MAX_META = 2**16  # Bytes of a meta header.
_SHOWN = 64  # Letters of what a file holds, in a message.
_PIXELS = ('PixelData', 'FloatPixelData', 'DoubleFloatPixelData')
_BITS = (1, 8, 16, 32, 64)
_KINDS = {  # Samples of a pixel by photometric interpretation.
  **dict.fromkeys(('MONOCHROME1', 'MONOCHROME2', 'PALETTE COLOR'), 1),
  **dict.fromkeys(('RGB', 'YBR_FULL', 'YBR_FULL_422', 'YBR_ICT', 'YBR_RCT'), 3),
}
# What pydicom warns of and reads past though pixels are missing. The rest is about metadata.
_DAMAGE = 'The end of the encapsulated pixel data|.*end of file'
_MODULE = r'pydicom\.'

logging.getLogger('pydicom').setLevel(logging.CRITICAL)


def require(path: Path) -> ModuleType:
  """The package pydicom, which reads `path`; UserError where it is not installed."""
  pydicom = package('pydicom', path)
  # Many files bend the rules of value types.
  pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
  _heed_damage()
  return pydicom


def _heed_damage() -> None:
  """Makes errors of the warnings that tell of missing pixels, and silences pydicom's others.

  Filters are shared by threads, so these two exclude each other, and stay where they are.
  """
  others = f'(?!{_DAMAGE})'
  if ('ignore', re.compile(others, re.I), UserWarning, re.compile(_MODULE), 0) in warnings.filters:
    return
  warnings.filterwarnings('error', _DAMAGE, UserWarning, _MODULE)
  warnings.filterwarnings('ignore', others, UserWarning, _MODULE)


def read(path: Path, **options: Any) -> Any:
  """The data set of a DICOM file.

  Args:
    options: of pydicom.dcmread, for a part of the file; none: all of it.
  """
  pydicom = require(path)
  with path.open('rb') as file:
    start = file.read(_MAX_META)
    _check_start(pydicom, start, path)
    if os.fstat(file.fileno()).st_size > 8 * MAX_VALUES:
      raise UnsupportedImage(f'{shown(path)} has more than {8 * MAX_VALUES} bytes; split it')
    if options:
      return pydicom.dcmread(path, force=True, **options)
    # A file would be asked for as many bytes as an element claims to have.
    file.seek(0)
    return pydicom.dcmread(io.BytesIO(file.read()), force=True)


def _check_start(pydicom: ModuleType, start: bytes, path: Path) -> None:
  if not dicom_content.is_start(start):
    raise Unreadable(shown(path))
  if _meta(pydicom, start).get('TransferSyntaxUID') == DEFLATED:  # Inflated without a limit.
    raise UnsupportedImage(
      f'{shown(path)} is deflated as a whole; save it with another transfer syntax, as uncompressed'
    )


def _meta(pydicom: ModuleType, start: bytes) -> Any:
  """The meta header at the start of a file; empty where there is none."""
  file = io.BytesIO(start[dicom_content.data_offset(start) :])
  meta = pydicom.filereader.read_dataset(
    file, False, True, stop_when=lambda tag, *_: tag.group != 2
  )
  if len(start) == _MAX_META and file.tell() >= len(file.getbuffer()):
    raise ValueError('a meta header without an end')
  return meta


def frames(dataset: Any, path: Path) -> np.ndarray:
  """Stored values: [frames, H, W], or colours [frames, H, W, 3]."""
  if 'Rows' not in dataset:
    raise UnsupportedImage(f'{shown(path)} is DICOM without an image; remove it')
  if not set(_PIXELS) & set(dataset.dir()):
    raise Unreadable(shown(path))  # It ends before them.
  _complete(dataset, path)
  rows, columns = int(dataset.Rows), int(dataset.Columns)
  samples, count = int(dataset.SamplesPerPixel), int(dataset.get('NumberOfFrames') or 1)
  check_size(path, rows, columns)
  check_size(path, rows, columns, samples, count, limit=max(MAX_VALUES, 3 * MAX_PIXELS))
  values = _decoded(dataset, path)
  return values.reshape((count, rows, columns, samples) if samples > 1 else (count, rows, columns))


def _complete(dataset: Any, path: Path) -> None:
  """Gives a data set what describes its pixels where that is missing, or plainly wrong."""
  samples = int(dataset.get('SamplesPerPixel') or 1)
  bits = int(dataset.BitsAllocated)
  kind = str(dataset.get('PhotometricInterpretation') or '').strip().upper()
  kind = kind or ('MONOCHROME2' if samples == 1 else 'RGB')
  if _KINDS.get(kind) != samples or bits not in _BITS:
    raise UnsupportedImage(
      f'{shown(path)} is {printable(kind[:_SHOWN])} of {samples} samples of {bits} bits, which is '
      'not read; save it as grey or RGB of 8 or 16 bits'
    )
  stored = int(dataset.get('BitsStored') or bits)
  dataset.SamplesPerPixel, dataset.PhotometricInterpretation = samples, kind
  dataset.BitsStored = stored if 1 <= stored <= bits else bits
  dataset.PixelRepresentation = int(dataset.get('PixelRepresentation') or 0)
  if samples == 3:
    dataset.PlanarConfiguration = int(dataset.get('PlanarConfiguration') or 0)
  dataset.file_meta.TransferSyntaxUID = _syntax(dataset, path)


def _syntax(dataset: Any, path: Path) -> Any:
  """The transfer syntax that the pixels have, which may not be the one that the file names."""
  uid = require(path).uid
  said = dataset.file_meta.get('TransferSyntaxUID')
  is_wrapped = 'PixelData' in dataset and dataset['PixelData'].is_undefined_length
  if not said and not is_wrapped:
    implicit, little = dataset.original_encoding
    explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else explicit
  is_compressed = bool(said) and said.is_transfer_syntax and said.is_encapsulated
  if said and said.is_transfer_syntax and is_compressed == is_wrapped:
    return said
  if is_compressed and len(dataset.PixelData) >= _expected(dataset, path):
    return uid.ExplicitVRLittleEndian  # As what has decompressed it left it.
  raise UnsupportedImage(
    f'{shown(path)} has the transfer syntax {printable(str(said or "(none)")[:_SHOWN])}, but its '
    'pixels are not stored so, or in no way that is known; save it uncompressed, as by gdcmconv '
    '--raw'
  )


def _expected(dataset: Any, path: Path) -> int:
  """How many bytes uncompressed pixels take."""
  return int(require(path).pixels.utils.get_expected_length(dataset))


def _decoded(dataset: Any, path: Path) -> np.ndarray:
  """All stored values, as pydicom shapes them."""
  pydicom = require(path)
  syntax = dataset.file_meta.TransferSyntaxUID
  shift = 0
  if not syntax.is_encapsulated and 'PixelData' in dataset:
    # Padding is common; what is too short is refused below.
    expected = _expected(dataset, path)
    _check_subsampling(dataset, path, expected)
    dataset.PixelData = dataset.PixelData[: expected + expected % 2]
    shift = _raised_bits(dataset)
  try:
    values = pydicom.pixels.pixel_array(dataset, allow_excess_frames=False)
  except (NotImplementedError, RuntimeError) as error:
    unsupported = any(words in str(error) for words in ('missing dependencies', 'does not support'))
    if unsupported or isinstance(error, NotImplementedError):
      raise UnsupportedImage(
        f'{shown(path)} is compressed as {syntax.name}, which cannot be decoded here; decompress '
        'it, as by gdcmconv --raw'
      ) from error
    raise
  return values >> shift if shift else values


def _check_subsampling(dataset: Any, path: Path, expected: int) -> None:
  is_halved = dataset.PhotometricInterpretation == 'YBR_FULL_422'
  if is_halved and len(dataset.PixelData) >= expected * 3 // 2:
    raise UnsupportedImage(
      f'{shown(path)} is said to be YBR_FULL_422, but has colour in full; set its photometric '
      'interpretation to what it is, RGB or YBR_FULL'
    )


def _raised_bits(dataset: Any) -> int:
  """How many bits lie below the stored ones, as HighBit says and the values bear out; lets pydicom
  keep all bits above them.
  """
  stored, high = int(dataset.BitsStored), int(dataset.get('HighBit') or 0)
  raised = high + 1 - stored
  if raised <= 0 or high >= dataset.BitsAllocated or dataset.BitsAllocated not in (8, 16, 32):
    return 0
  little = '<' if dataset.file_meta.TransferSyntaxUID.is_little_endian else '>'
  values = np.frombuffer(dataset.PixelData, f'{little}u{dataset.BitsAllocated // 8}')
  if not values.size or values.max() < 2**stored:
    return 0
  dataset.BitsStored = high + 1
  return raised
