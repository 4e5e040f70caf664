"""Where the voxels of a NIfTI volume lie: the one affine that orientation, spacing and the place of
a mask are taken from.

That is the sform where it has a code, else the qform, else the voxel sizes alone, as nibabel takes
it. What rounding and other programs leave is mended: quaternions a little longer than 1, negative
voxel sizes, codes and units that are none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ahm_jax.data.readers.base import UnsupportedImage, package, shown

# What to do where a mask and its image lie apart.
MASK_CURE = (
  'resample the mask onto the image, or give it the affine of the image where only its header is '
  'wrong'
)
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # By the code of the unit; others are taken for mm.
_SPATIAL = 7  # Bits of the field of units.
_CODES = range(1, 6)  # Of sform and qform; any other tells nothing.
_APART = 0.5  # Voxels that a mask may lie from its image.
_UNEQUAL = 0.01  # Share by which two voxel sizes are told to differ.


class Placement(NamedTuple):
  """Where the voxels of a volume lie."""

  affine: np.ndarray  # float64 [4, 4], from indices to mm in RAS+.
  axes: np.ndarray  # Where the stored axes point to, as nibabel.io_orientation gives it.
  spacing: np.ndarray  # float64 [3], mm along the stored axes; nan: unknown.
  # The affines that the header has, that which counts first; none where it has voxel sizes alone.
  told: tuple[np.ndarray, ...]
  unit: float | None  # Of the header's numbers, mm; None: it does not say, and they count as mm.
  remark: str  # What the header says twice, and differently; '': nothing.


@np.errstate(all='ignore')
def placement(path: Path, header: Any) -> Placement:
  """Raises UnsupportedImage where the header's affine is none."""
  sizes = np.abs(header['pixdim'][1:4].astype(np.float64))
  are_known = np.isfinite(sizes) & (sizes > 0)
  sizes = np.where(are_known, sizes, 1.0)
  told = {
    'sform': _sform(header),
    'qform': _qform(path, header, sizes),
  }
  source = next((name for name, affine in told.items() if _has_axes(path, affine)), 'pixdim')
  if source == 'pixdim' and any(affine is not None for affine in told.values()):
    raise UnsupportedImage(
      f'{shown(path)} has an affine (sform or qform) that does not say where its axes point; '
      'give it one that does'
    )
  affine = told.get(source)
  if affine is None:
    affine = _plain(path, header, sizes)
  known_unit = _MILLIMETRES.get(int(header['xyzt_units']) & _SPATIAL)
  unit = known_unit or 1.0
  in_mm = np.diag([unit, unit, unit, 1.0])
  spacing = np.linalg.norm(affine[:3, :3], axis=0)
  is_equal = np.isclose(spacing, sizes, rtol=_UNEQUAL, atol=0) | ~are_known
  return Placement(
    in_mm @ affine,
    package('nibabel', path).io_orientation(affine),
    (spacing if source == 'sform' else np.where(are_known, spacing, np.nan)) * unit,
    tuple(in_mm @ each for each in told.values() if each is not None and _has_axes(path, each)),
    known_unit,
    ''
    if is_equal.all()
    else f'{_text(spacing * unit)} by its sform, {_text(sizes * unit)} by its pixdim',
  )


@np.errstate(all='ignore')
def check_together(
  mask: Path,
  own: Placement,
  image: Path,
  other: Placement,
  shapes: Sequence[tuple[int, int, int]],
  cure: str = MASK_CURE,
) -> None:
  """Refuses (UnsupportedImage) a mask whose voxels, turned to RAS+, do not lie where those of its
  image do, by the affine that counts or another one of their headers; what then differs in shape is
  not looked at.

  Args:
    mask, own: the mask.
    image, other: its image.
    shapes: of both, as they are stored.
    cure: what to do where they lie apart.
  """
  if not (own.told and other.told):
    own_codes, codes = (_codes(path, placed) for path, placed in ((mask, own), (image, other)))
    if own_codes != codes:
      raise UnsupportedImage(
        f'{shown(mask)} is stored in orientation {own_codes} but {shown(image)} in {codes}; give '
        f'{"the mask" if cure == MASK_CURE else "it"} the affine of the image'
      )
    return
  (own_shape, owns), (shape, others) = (
    _turned(path, placed, stored)
    for path, placed, stored in zip((mask, image), (own, other), shapes, strict=True)
  )
  if own_shape != shape:
    return
  owns, others = (
    _in_one_unit(owns, own.unit, other.unit),
    _in_one_unit(others, other.unit, own.unit),
  )
  found = [_apart(each, their, shape) for each in owns for their in others]
  if not min(voxels for voxels, _ in found) <= _APART:
    voxels, distance = found[0]
    raise UnsupportedImage(
      f'{shown(mask)} does not lie where {shown(image)} does: by their affines they are up to '
      f'{voxels:.3g} voxels ({distance:.3g} mm) apart; {cure}'
    )


def _in_one_unit(
  affines: Sequence[np.ndarray], own: float | None, other: float | None
) -> list[np.ndarray]:
  """Affines whose unit, where it is not known, is the other file's."""
  scale = other if own is None and other is not None else 1.0
  return [np.diag([scale, scale, scale, 1.0]) @ affine for affine in affines]


def _turned(
  path: Path, placed: Placement, shape: tuple[int, int, int]
) -> tuple[tuple[int, ...], list[np.ndarray]]:
  """Shape and affines of a volume whose axes are turned to RAS+."""
  orientations = package('nibabel.orientations', path)
  count = len(placed.axes)
  turned = [1] * len(shape)
  for stored, axis in enumerate(placed.axes[:, 0].astype(int)):
    turned[axis] = shape[stored]
  back = orientations.inv_ornt_aff(placed.axes, shape[:count])
  return tuple(turned), [affine @ back for affine in placed.told]


def _apart(own: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> tuple[float, float]:
  """How far the corners of two volumes of one shape lie apart at most: in voxels, and in mm."""
  corners = np.array([(*index, 1) for index in np.ndindex(2, 2, 2)]) * (*np.subtract(shape, 1), 1)
  apart = (corners @ (own - other).T)[:, :3]
  voxels = np.abs(apart @ np.linalg.inv(other[:3, :3]).T)
  return float(voxels.max()), float(np.linalg.norm(apart, axis=1).max())


def _sform(header: Any) -> np.ndarray | None:
  if int(header['sform_code']) not in _CODES:
    return None
  rows = [header[f'srow_{axis}'].astype(np.float64) for axis in 'xyz']
  return np.stack([*rows, np.array([0.0, 0.0, 0.0, 1.0])])


def _qform(path: Path, header: Any, sizes: np.ndarray) -> np.ndarray | None:
  """See method 2 of nifti1.h."""
  if int(header['qform_code']) not in _CODES:
    return None
  b, c, d = (float(header[f'quatern_{part}']) for part in 'bcd')
  a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
  flip = -1.0 if header['pixdim'][0] < 0 else 1.0
  affine = np.eye(4)
  turn = package('nibabel.quaternions', path).quat2mat([a, b, c, d])
  affine[:3, :3] = turn @ np.diag(sizes * [1.0, 1.0, flip])
  affine[:3, 3] = [header[f'qoffset_{axis}'] for axis in 'xyz']
  return affine


def _plain(path: Path, header: Any, sizes: np.ndarray) -> np.ndarray:
  count = int(header['dim'][0])
  shape = header['dim'][1 : count + 1][:3]
  return package('nibabel.volumeutils', path).shape_zoom_affine(shape, sizes[: len(shape)])


def _has_axes(path: Path, affine: np.ndarray | None) -> bool:
  if affine is None or not np.isfinite(affine).all():
    return False
  return not np.isnan(package('nibabel', path).io_orientation(affine)).any()


def _codes(path: Path, placed: Placement) -> str:
  """Where the stored axes point to, as 'LPS'."""
  return ''.join(package('nibabel', path).orientations.ornt2axcodes(placed.axes))


def _text(sizes: np.ndarray) -> str:
  return 'x'.join(f'{size:.4g}' for size in sizes)
