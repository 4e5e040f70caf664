"""One file, decoded safely, by the reader that its name asks for: `dicom`, `nifti`, or `raster`,
which goes by the content. What has none of our suffixes and holds DICOM is read as such.

Whatever a file holds, it gives pixels, or raises `Unreadable` or `UnsupportedImage`; headers are
checked before memory is taken for what they promise. `intensity` says what becomes of more than
8 bits.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from ahm_jax.data.readers import dicom, dicom_content, masks, nifti, raster
from ahm_jax.data.readers.base import (
  NIFTI,
  SUFFIXES,
  Case,
  Held,
  Picture,
  UnsupportedImage,
  decoding,
  is_volume,
  shown,
  suffix,
)


def is_image_file(path: Path) -> bool:
  """Whether a file is one to read: by its suffix, or as DICOM of any other name by its content."""
  return suffix(path.name) in SUFFIXES or dicom_content.is_content(path)


def is_volume_file(path: Path | Held | Case) -> bool:
  """Whether a file, or one of a case, may hold many slices: by its suffix, or as DICOM of any other
  name by its content.
  """
  if isinstance(path, Case):
    return any(map(is_volume_file, path.present))
  if suffix(path.name) in SUFFIXES or isinstance(path, Held):
    return is_volume(path)
  return dicom_content.is_content(path)


def read_slices(
  path: Path | Held,
  channels: int,
  *,
  window: Sequence[float] | None = None,
  at_least: tuple[int, int] | None = None,
  axis: int = 2,
) -> list[tuple[str, Picture]]:
  """Reads the slices of a volume, or an image as the only one.

  Args:
    path: a file of one of `SUFFIXES`, or DICOM of any other; a volume must lie on a disk.
    channels: 3 for RGB, 1 for grey.
    window: (centre, width) of what has more than 8 bits, in the file's own units after rescaling
      (HU in CT).
    at_least: (width, height) that suffice; a JPEG decoder may halve a larger image on its way, but
      not below this.
    axis: of a NIfTI volume in RAS+ orientation, across which the slices lie: 0 sagittal, 1 coronal,
      2 axial.

  Returns:
    for each slice, what its image's name is to end in ('_s0007'; '' for an only one), and the
    slice.

  Raises:
    Unreadable, UnsupportedImage: see there.
    UserError: reading it needs a package that is not installed.
  """
  with decoding(path):
    if not is_volume_file(path):
      pictures = [raster.read(path, channels, window, at_least)]
    elif _is_nifti(path):
      pictures = nifti.read_slices(_on_disk(path), channels, window, axis)
    else:
      pictures = dicom.read_slices(_on_disk(path), channels, window)
  if len(pictures) == 1:
    return [('', pictures[0])]
  return [(f'_s{index:04d}', picture) for index, picture in enumerate(pictures)]


def read_mask_slices(
  path: Path | Held,
  classes: Sequence[str] = (),
  *,
  axis: int = 2,
  image: Path | Held | None = None,
  named_by: str = 'config.data.mask_classes',
) -> list[np.ndarray]:
  """Reads the masks of a volume's slices, or a mask as the only one.

  Of a palette image the indices count, not the colours; but some programs number the two colours of
  a binary mask by how often they occur. So of indices 0 and 1 that of the brighter colour is the
  lesion where the other is black or the whole palette is grey, and a mask of one colour is
  background where that is black, lesion where it is white in a grey palette.

  Args:
    path, axis: as for `read_slices`.
    classes: names of the values 1, 2, ..., where 0 is background; empty: a binary mask. See
      `masks.class_indices`.
    image: of what it is the mask of; None: of nothing. The masks come in the order of its slices,
      and a volume that lies elsewhere, or whose axes mean other things, which sizes alone may not
      show, is refused (UnsupportedImage).
    named_by: what names the classes, for messages.

  Returns:
    uint8 [H, W] for each slice: class indices; 0 and 1 where `classes` is empty.

  Raises: as `read_slices`.
  """
  if image is not None:
    _check_pair(image, path)
  with decoding(path):
    if not is_volume_file(path):
      values = raster.read_labels(path, by_colour=not classes)[None]
    elif _is_nifti(path):
      values = nifti.read_labels(_on_disk(path), axis)
    else:
      other = image if image is not None and is_volume_file(image) else None
      values = dicom.read_labels(_on_disk(path), other and _on_disk(other))
    return list(masks.class_indices(values, path, classes, named_by))


def _check_pair(image: Path | Held, mask: Path | Held) -> None:
  """Refuses a mask that does not go with its image, but for the places of DICOM frames."""
  if not (is_volume_file(image) or is_volume_file(mask)):
    return
  if _is_nifti(image) != _is_nifti(mask):
    raise UnsupportedImage(
      f'{shown(mask)} and {shown(image)} are not both NIfTI, and would have their axes in '
      'different order; save both as NIfTI, or neither'
    )
  if _is_nifti(image):
    nifti.check_pair(_on_disk(image), _on_disk(mask))


def require(path: Path) -> ModuleType:
  """The package that reads a volume: pydicom or nibabel.

  Raises:
    UserError: it is not installed.
  """
  return nifti.require(path) if _is_nifti(path) else dicom.require(path)


def _is_nifti(path: Path | Held) -> bool:
  return suffix(path.name) in NIFTI


def _on_disk(path: Path | Held) -> Path:
  if isinstance(path, Held):
    raise UnsupportedImage(f'{shown(path)} is a volume within an archive; unpack the archive')
  return path
