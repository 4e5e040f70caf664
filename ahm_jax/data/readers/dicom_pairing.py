"""Which frame of a DICOM image each frame of its mask belongs to.

Files may hold frames in any order. Those that say where they lie in the patient are matched by
that, the others by their numbers. What lies elsewhere, or is ordered in a way that nothing tells,
is refused.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.data.readers import dicom_frames
from ahm_jax.data.readers.base import UnsupportedImage, shown
from ahm_jax.data.readers.dicom_frames import Plane

_APART = 0.5  # Pixels or slices that a corner may lie from where it should.
_SAME = 1e-3  # mm along the normal, within which frames lie in one place.
# Segmentation and label map segmentation.
_SEGMENTATIONS = ('1.2.840.10008.5.1.4.1.1.66.4', '1.2.840.10008.5.1.4.1.1.66.7')


def arranged(
  frames: np.ndarray, dataset: Any, path: Path, image: Any, image_path: Path
) -> np.ndarray:
  """The labels of a mask in the order of its image's frames: numbers [frames, H, W].

  Args:
    frames: of the mask, as they are stored, [frames, H, W].
    dataset, path: the mask.
    image, image_path: its image.

  Raises:
    UnsupportedImage: the frames do not lie where those of the image do. Frames of another size or
      number, which nothing matches, come back as they are.
  """
  is_segmentation = str(dataset.get('SOPClassUID', '')) in _SEGMENTATIONS
  own, planes = dicom_frames.planes(dataset), dicom_frames.planes(image)
  shape = frames.shape[1], frames.shape[2]
  is_other = shape != (image.get('Rows'), image.get('Columns'))
  if is_other or not (is_segmentation or len(own) == len(planes)):
    return frames
  order = _order(own, planes, shape, f'{shown(path)} and {shown(image_path)}')
  if is_segmentation:
    return _from_segments(frames, dataset, path, order, len(planes))
  if len(set(order)) != len(order):
    raise UnsupportedImage(
      f'{shown(path)} has two frames for one of {shown(image_path)}; give each frame its own mask'
    )
  found = np.empty_like(frames)
  found[order] = frames
  return found


def _order(
  own: Sequence[Plane], planes: Sequence[Plane], shape: tuple[int, int], both: str
) -> list[int]:
  """For each of a mask's frames, the number of the image's frame that it lies on."""
  placed = [each for each in (own, planes) if all(plane.position is not None for plane in each)]
  sizes = _sizes(own, planes)
  is_same = len(own) == len(planes) and _apart(own, planes, shape, sizes)[0] <= _APART
  found = list(range(len(own)))
  if len(placed) == 2 and not is_same:
    found = _nearest(own, planes, both)
  elif len(own) != len(planes):
    raise UnsupportedImage(
      f'of {both}, one does not say where its frames lie, and they are not as many; store a frame '
      'for each of the image'
    )
  elif len(placed) == 1 and not _is_sorted(placed[0]):
    raise UnsupportedImage(
      f'of {both}, one says where its frames lie, in no order along the patient, and the other '
      'does not; store both in the order of the slices'
    )
  voxels, distance = _apart(own, [planes[index] for index in found], shape, sizes)
  if not voxels <= _APART:
    raise UnsupportedImage(
      f'{both} do not lie in the same place: they are up to {voxels:.3g} pixels or slices '
      f'({distance:.3g} mm) apart; resample the mask onto the image, or give it the geometry of '
      'the image where only its header is wrong'
    )
  return found


def _nearest(own: Sequence[Plane], planes: Sequence[Plane], both: str) -> list[int]:
  """For each of `own` the number of the plane that is nearest along the normal of the planes."""
  depths = _depths(planes)
  order = np.argsort(depths, kind='stable')
  steps = np.diff(depths[order])
  if (steps < _SAME).any():
    raise UnsupportedImage(
      f'{both} have their frames in different orders, and several lie in one place; store both in '
      'the same order'
    )
  middles = depths[order][:-1] + steps / 2
  return order[np.searchsorted(middles, _depths(own, planes))].tolist()


def _depths(own: Sequence[Plane], planes: Sequence[Plane] = ()) -> np.ndarray:
  """mm along the normal of `planes`, or of themselves, of planes that all have positions."""
  normal = _basis(planes or own)[2]
  return np.array([plane.position @ normal for plane in own if plane.position is not None])


def _is_sorted(planes: Sequence[Plane]) -> bool:
  steps = np.diff(_depths(planes))
  return bool((steps >= 0).all() or (steps <= 0).all())


def _basis(planes: Sequence[Plane]) -> np.ndarray:
  """Directions along a row, down a column, and across the planes, of length 1: [3, 3]."""
  along, down = np.eye(3)[:2] if planes[0].axes is None else planes[0].axes
  return np.stack([along, down, np.cross(along, down)])


def _sizes(own: Sequence[Plane], planes: Sequence[Plane]) -> np.ndarray:
  """mm from a pixel to the next along a row and down a column, and from a plane to the next."""
  row, column = planes[0].spacing or own[0].spacing or (1.0, 1.0)
  steps = np.diff(np.sort(_depths(planes)))
  steps = steps[steps > _SAME]
  return np.array([column, row, np.median(steps) if steps.size else min(row, column)])


def _apart(
  own: Sequence[Plane], planes: Sequence[Plane], shape: tuple[int, int], sizes: np.ndarray
) -> tuple[float, float]:
  """How far the corners of frames lie from those of planes at most: in `sizes`, and in mm."""
  apart = np.stack([_difference(*pair, shape) for pair in zip(own, planes, strict=True)])
  voxels = np.abs(apart @ _basis(planes).T) / sizes
  return float(voxels.max()), float(np.linalg.norm(apart, axis=-1).max())


def _difference(own: Plane, other: Plane, shape: tuple[int, int]) -> np.ndarray:
  """mm from the four corners of a plane to those of another one, [4, 3]; what only one of them
  says is taken as if both did.
  """
  is_turned = own.axes is not None and other.axes is not None
  is_placed = own.position is not None and other.position is not None
  corners = []
  for plane, spare in ((own, other), (other, own)):
    row, column = plane.spacing or spare.spacing or (1.0, 1.0)
    axes = _basis([plane if is_turned else other])[:2]
    start = plane.position if is_placed else np.zeros(3)
    ends = np.array([*np.ndindex(2, 2)]) * np.subtract(shape, 1)  # (row, column) of each.
    corners.append(start + ends * [row, column] @ axes[::-1])
  return corners[1] - corners[0]


# Segmentations.


def _from_segments(
  frames: np.ndarray, dataset: Any, path: Path, order: Sequence[int], count: int
) -> np.ndarray:
  """Labels [count, H, W] of a DICOM segmentation, which has a frame for each segment where there
  is any of it (PS3.3 C.8.20): the numbers of the segments, 0 where there is none.
  """
  found = np.zeros((count, *frames.shape[1:]), np.uint16)
  macro = 'SegmentIdentificationSequence'
  for index, (frame, place) in enumerate(zip(frames, order, strict=True)):
    number = dicom_frames.grouped(dataset, index, macro, 'ReferencedSegmentNumber')
    if number is None:  # A label map: its values are the numbers.
      number = frame
    elif not np.isin(frame, (0, frames.max())).all():
      raise UnsupportedImage(
        f'{shown(path)} is a segmentation of fractions; save it as one of type BINARY'
      )
    inside = frame > 0
    if (inside & (found[place] > 0) & (found[place] != number)).any():
      raise UnsupportedImage(
        f'{shown(path)} has segments that overlap; keep one of them at each pixel'
      )
    found[place] = np.where(inside, number, found[place])
  return found
