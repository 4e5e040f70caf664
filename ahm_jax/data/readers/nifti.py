"""NIfTI (1 and 2, single files), by nibabel.

Values are scaled by scl_slope and scl_inter, and the axes turned to RAS+ by the affine, so that an
axis means the same in every file. A slice's rows and columns are the two other axes, in their
order. 8-bit grey that is not rescaled stays as it is.
"""

import gzip
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.data.readers.base import (
  MAX_VALUES,
  Picture,
  Unreadable,
  UnsupportedImage,
  check_size,
  known_spacing,
  package,
  shown,
  suffix,
)
from ahm_jax.data.readers.intensity import SAMPLED, to_bytes, value_range, with_channels

# The most that deflate shrinks, so a .nii.gz cannot hold more bytes than this for each of its own.
DEFLATE_RATIO = 1032
MILLIMETRES = {'meter': 1000.0, 'mm': 1.0, 'micron': 0.001, 'unknown': 1.0}

# As in `raster`: what it warns of is damage that it reads past.
warnings.filterwarnings('error', category=UserWarning, module=r'nibabel\.')
logging.getLogger('nibabel.global').setLevel(logging.CRITICAL)


def require(path: Path) -> ModuleType:
  """The package nibabel, which reads `path`; UserError where it is not installed."""
  return package('nibabel', path)


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


def read_slices(
  path: Path, channels: int, window: Sequence[float] | None, axis: int
) -> list[Picture]:
  """See `dispatch.read_slices`."""
  volume = _read(path)
  with np.errstate(all='ignore'):
    if volume.values.dtype == np.uint8 and volume.is_plain:
      low, high = 0.0, 255.0
    else:
      stride = max(1, volume.values.size // SAMPLED)
      low, high = value_range(volume.scaled(volume.values.ravel('K')[::stride]), window)
    planes = (
      to_bytes(volume.scaled(plane), low, high) for plane in np.moveaxis(volume.values, axis, 0)
    )
    row, column = (length for index, length in enumerate(volume.spacing) if index != axis)
    across = known_spacing(row, column)
    return [
      Picture(with_channels(plane, channels), across, (plane.shape[0], plane.shape[1]))
      for plane in planes
    ]


def read_labels(path: Path, axis: int) -> np.ndarray:
  """What the masks of a volume's slices store: numbers [slices, H, W]."""
  volume = _read(path)
  values = volume.values if volume.is_plain else volume.scaled(volume.values)
  return np.moveaxis(values, axis, 0)


def orientation(path: Path) -> str:
  """Where the stored axes point to, as 'LPS'."""
  nibabel = require(path)
  with _open(path) as file:
    codes = nibabel.aff2axcodes(_header(path, file).get_best_affine())
  return ''.join(letter or '-' for letter in codes)


def _read(path: Path) -> _Volume:
  nibabel = require(path)
  with _open(path) as file:
    header = _header(path, file)
    shape = _shape(path, header)
    data = _data(path, file, header, shape)
  values = np.frombuffer(data, header.get_data_dtype()).reshape(shape, order='F')
  axes = nibabel.io_orientation(header.get_best_affine())
  if np.isnan(axes).any():
    raise Unreadable(shown(path))
  unit = MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
  zooms = np.array((*header.get_zooms(), 1.0, 1.0)[:3], np.float64) * unit
  x, y, z = zooms[np.argsort(axes[:, 0])].tolist()
  slope, inter = header.get_slope_inter()
  return _Volume(
    nibabel.apply_orientation(values, axes),
    1.0 if slope is None else float(slope),
    0.0 if inter is None else float(inter),
    (x, y, z),
  )


def _open(path: Path) -> Any:
  return gzip.open(path) if _is_gzip(path) else path.open('rb')


def _is_gzip(path: Path) -> bool:
  return suffix(path.name) == '.nii.gz'


def _header(path: Path, file: Any) -> Any:
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


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
  """The volume's shape and type as its header gives them, checked to be of what can be read."""
  shape = tuple(map(int, header.get_data_shape()))
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  if len(shape) not in (2, 3):
    raise UnsupportedImage(
      f'{shown(path)} has {len(shape)} axes of {"x".join(map(str, shape))}; save each volume in a '
      'file of its own'
    )
  x, y, z = (*shape, 1)[:3]
  dtype = header.get_data_dtype()
  check_size(path, x, y, z, limit=MAX_VALUES)
  for plane in ((y, z), (x, z), (x, y)):
    check_size(path, *plane)
  if dtype.kind not in 'iuf':
    raise UnsupportedImage(
      f'{shown(path)} holds colours or complex numbers; save it as a volume of integers or floats'
    )
  return x, y, z


def _data(path: Path, file: Any, header: Any, shape: tuple[int, int, int]) -> bytes:
  """The bytes of the volume, after checking that the file can hold what its header promises."""
  offset = int(header['vox_offset']) or header.single_vox_offset  # 0: right after the header.
  promised = int(np.prod(shape)) * header.get_data_dtype().itemsize
  ratio = DEFLATE_RATIO if _is_gzip(path) else 1
  if offset < header.single_vox_offset or offset + promised > ratio * path.stat().st_size:
    raise Unreadable(shown(path))
  file.seek(offset)
  data = file.read(promised)
  # Reads on, so that gzip checks its sum.
  if len(data) != promised or (_is_gzip(path) and len(file.read(2**20)) == 2**20):
    raise Unreadable(shown(path))
  return data
