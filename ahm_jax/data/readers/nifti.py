"""NIfTI (1 and 2, single files), by nibabel.

Values are scaled by scl_slope and scl_inter, and the axes turned to RAS+ by the affine, so that an
axis means the same in every file. A slice's rows and columns are the two other axes, in their
order. 8-bit grey that is not rescaled stays as it is, unless it is a modality.
"""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.data.readers import nifti_affine
from ahm_jax.data.readers.base import (
  LAYOUTS,
  MAX_VALUES,
  Picture,
  Unreadable,
  UnsupportedImage,
  check_size,
  count_of,
  decoding,
  known_spacing,
  package,
  shown,
)
from ahm_jax.data.readers.intensity import (
  SAMPLED,
  modality_range,
  to_bytes,
  value_range,
  with_channels,
)

# The most that deflate shrinks, so no gzip file holds more bytes than this for each of its own.
DEFLATE_RATIO = 1032
_GZIP = b'\x1f\x8b'
_SECOND = (b'\x1c\x02\x00\x00', b'\x00\x00\x02\x1c')  # 540 in either byte order: NIfTI-2.


def require(path: Path) -> ModuleType:
  """The package nibabel, which reads `path`; UserError where it is not installed."""
  return package('nibabel', path)


class Layout(NamedTuple):
  """How a volume is stored, for another one that is to lie where it does."""

  header: Any  # nibabel's, as the file has it.
  shape: tuple[int, ...]  # Of its three axes, as it is stored.
  axes: np.ndarray  # See `nifti_affine.Placement`.

  @property
  def turned_shape(self) -> tuple[int, int, int]:
    """In RAS+ orientation."""
    x, y, z = (self.shape[axis] for axis in np.argsort(self.axes[:, 0]))
    return x, y, z

  def stored(self, values: np.ndarray) -> np.ndarray:
    """Values [X, Y, Z] in RAS+ orientation, as they are to be stored."""
    back = values.transpose(self.axes[:, 0].astype(int))
    return back[tuple(slice(None, None, int(step)) for step in self.axes[:, 1])]


def layout(path: Path) -> Layout:
  """Reads how a volume is stored, of its header alone; raises as `dispatch.read_slices`."""
  with decoding(path), _open(path) as file:
    header = _header(path, file)
    return Layout(header, _shape(path, header)[:3], nifti_affine.placement(path, header).axes)


class _Volume(NamedTuple):
  values: (
    np.ndarray
  )  # [X, Y, Z, modalities] as stored, in RAS+ orientation; without the last: 3 axes.
  slope: float
  inter: float
  spacing: tuple[float, float, float]  # mm along the axes.
  remark: str  # See `nifti_affine.Placement`.

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
      with_channels(to_bytes(volume.scaled(plane), low, high), channels)
      for plane in np.moveaxis(volume.values, axis, 0)
    )
    return _pictures(volume, planes, axis)


def read_modalities(path: Path, entries: Sequence[str], axis: int) -> list[Picture]:
  """The slices of a volume of several modalities, which lie along its fourth axis (or its fifth,
  where the fourth is a single time), or of one.

  Args:
    entries: of config.data.intensity, one for each of them.

  Raises:
    UnsupportedImage: it has more or fewer.
  """
  volume = _read(path, len(entries))
  with np.errstate(all='ignore'):
    stride = max(1, volume.values[..., 0].size // SAMPLED)
    ranges = [
      modality_range(volume.scaled(volume.values[..., k].ravel('K')[::stride]), entry)
      for k, entry in enumerate(entries)
    ]
    planes = (
      np.stack(
        [to_bytes(volume.scaled(plane[..., k]), *each) for k, each in enumerate(ranges)], axis=-1
      )
      for plane in np.moveaxis(volume.values, axis, 0)
    )
    return _pictures(volume, planes, axis)


def _pictures(volume: _Volume, planes: Iterable[np.ndarray], axis: int) -> list[Picture]:
  """Of the slices across an axis, uint8 [H, W, C]."""
  row, column = (length for index, length in enumerate(volume.spacing) if index != axis)
  across = known_spacing(row, column)
  return [
    Picture(
      plane,
      across,
      (plane.shape[0], plane.shape[1]),
      remark='' if index else volume.remark,
    )
    for index, plane in enumerate(planes)
  ]


def read_labels(path: Path, axis: int) -> np.ndarray:
  """What the masks of a volume's slices store: numbers [slices, H, W]."""
  volume = _read(path)
  values = volume.values if volume.is_plain else volume.scaled(volume.values)
  return np.moveaxis(values, axis, 0)


def check_pair(image: Path, mask: Path, cure: str = nifti_affine.MASK_CURE) -> None:
  """See `nifti_affine.check_together`."""
  (own_shape, own), (shape, other) = _placed(mask), _placed(image)
  nifti_affine.check_together(mask, own, image, other, (own_shape, shape), cure)


def _placed(path: Path) -> tuple[tuple[int, int, int], nifti_affine.Placement]:
  with decoding(path), _open(path) as file:
    header = _header(path, file)
    return _shape(path, header)[:3], nifti_affine.placement(path, header)


def _read(path: Path, modalities: int | None = None) -> _Volume:
  """A volume of so many modalities; None: of one, without an axis for them."""
  nibabel = require(path)
  with _open(path) as file:
    header = _header(path, file)
    shape: tuple[int, ...] = _shape(path, header)
    if shape[3] != (modalities or 1):
      raise UnsupportedImage(f'{shown(path)} {_told(header, shape[3], modalities)}')
    shape = shape[:3] if modalities is None else shape
    data = _data(path, file, header, shape)
  values = np.frombuffer(data, header.get_data_dtype()).reshape(shape, order='F')
  placed = nifti_affine.placement(path, header)
  x, y, z = placed.spacing[np.argsort(placed.axes[:, 0])].tolist()
  slope, inter = _scaling(header)
  return _Volume(
    nibabel.apply_orientation(values, placed.axes), slope, inter, (x, y, z), placed.remark
  )


def _scaling(header: Any) -> tuple[float, float]:
  """Slope and intercept; what is none changes nothing."""
  slope, inter = float(header['scl_slope']), float(header['scl_inter'])
  if slope == 0 or not np.isfinite(slope):
    return 1.0, 0.0
  return slope, inter if np.isfinite(inter) else 0.0


def _open(path: Path) -> Any:
  """Opens a file by whether it is compressed, whatever its name says."""
  with path.open('rb') as file:
    is_gzip = file.read(len(_GZIP)) == _GZIP
  return gzip.open(path) if is_gzip else path.open('rb')


def _header(path: Path, file: Any) -> Any:
  """The header of an open NIfTI file, checked to be of one that holds its voxels too."""
  nibabel = require(path)
  start = file.read(348)
  is_second = start[:4] in _SECOND
  if is_second:
    start += file.read(540 - 348)
  # What nibabel would check is checked, or mended, where it is used.
  header = (nibabel.Nifti2Header if is_second else nibabel.Nifti1Header)(start, check=False)
  magic = header['magic'].item()
  if magic.startswith((b'ni1', b'ni2')):
    raise UnsupportedImage(
      f'{shown(path)} is the header of a pair, whose voxels lie in an .img file; save both as one '
      '.nii file'
    )
  if not magic and int(header['sizeof_hdr']) == 348:
    raise UnsupportedImage(
      f'{shown(path)} is ANALYZE 7.5, which does not say where its axes point; save it as NIfTI'
    )
  if not magic.startswith(b'n+'):
    raise Unreadable(shown(path))
  return header


def _axes(header: Any) -> tuple[int, ...]:
  """The shape that a header gives, without axes of 1 at its end."""
  shape = tuple(map(int, header.get_data_shape()))
  while len(shape) > 3 and shape[-1] == 1:
    shape = shape[:-1]
  return shape


def _told(header: Any, found: int, modalities: int | None) -> str:
  """Why a volume of so many modalities is refused."""
  axes = _axes(header)
  text = 'x'.join(map(str, axes))
  if modalities is None:
    return f'has {len(axes)} axes of {text}; save each volume in a file of its own'
  return f'holds {count_of(found)} (it is {text}), where {modalities} should be; {LAYOUTS}'


def _shape(path: Path, header: Any) -> tuple[int, int, int, int]:
  """The volume's shape and type as its header gives them, checked to be of what can be read.

  The last number is that of its modalities.
  """
  shape = _axes(header)
  beyond = [length for length in shape[3:] if length != 1]
  if len(shape) < 2 or len(beyond) > 1:
    raise UnsupportedImage(
      f'{shown(path)} has {len(shape)} axes of {"x".join(map(str, shape))}; save each volume in a '
      'file of its own'
    )
  x, y, z = (*shape, 1)[:3]
  m = beyond[0] if beyond else 1
  dtype = header.get_data_dtype()
  check_size(path, x, y, z, m, limit=MAX_VALUES)
  for plane in ((y, z), (x, z), (x, y)):
    check_size(path, *plane)
  if dtype.kind not in 'iuf':
    raise UnsupportedImage(
      f'{shown(path)} holds voxels of type {header.get_value_label("datatype")}; save it as a '
      'volume of integers or floats'
    )
  return x, y, z, m


def _data(path: Path, file: Any, header: Any, shape: tuple[int, ...]) -> bytes:
  """The bytes of the volume, after checking that the file can hold what its header promises."""
  offset = int(header['vox_offset']) or header.single_vox_offset  # 0: right after the header.
  promised = int(np.prod(shape)) * header.get_data_dtype().itemsize
  is_gzip = isinstance(file, gzip.GzipFile)
  ratio = DEFLATE_RATIO if is_gzip else 1
  if offset < header.single_vox_offset or offset + promised > ratio * path.stat().st_size:
    raise Unreadable(shown(path))
  file.seek(offset)
  data = file.read(promised)
  # Reads on, so that gzip checks its sum.
  if len(data) != promised or (is_gzip and len(file.read(2**20)) == 2**20):
    raise Unreadable(shown(path))
  return data
