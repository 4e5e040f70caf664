"""Frames of a DICOM mask and those of its image: matched by where they lie, or refused."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import UnsupportedImage

COUNT = 4
LABELS = np.zeros((COUNT, 6, 7), np.uint8)
for _number in range(COUNT):
  LABELS[_number, _number, : _number + 1] = 1
AXIAL, TILTED = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.8, 0.6]
SEGMENTATION = '1.2.840.10008.5.1.4.1.1.66.4'


def item(**fields):
  found = Dataset()
  for name, value in fields.items():
    setattr(found, name, value)
  return found


def groups(depths, axes=AXIAL, spacing=(0.5, 0.5), by=(0, 0, 0), segments=None):
  """Functional groups of frames that lie at `depths` (mm) along their normal."""
  normal = np.cross(axes[:3], axes[3:])
  frames = []
  for index, depth in enumerate(depths):
    position = np.round(np.array([10, 20, 30]) + depth * normal + by, 6)
    frame = item(PlanePositionSequence=[item(ImagePositionPatient=position.tolist())])
    if segments is not None:
      number = item(ReferencedSegmentNumber=segments[index])
      frame.SegmentIdentificationSequence = [number]
    frames.append(frame)
  shared = item(
    PlaneOrientationSequence=[item(ImageOrientationPatient=list(axes))],
    PixelMeasuresSequence=[item(PixelSpacing=list(spacing))],
  )
  return dict(PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared])


@pytest.fixture
def pair(tmp_path, write_dicom):
  def read(image, mask, labels=LABELS, classes=(), pixels=None):
    """Masks as they are read for an image, of attributes for both files."""
    pixels = np.zeros((COUNT, 6, 7), np.uint16) if pixels is None else pixels
    frames = {} if pixels.ndim == 2 else dict(NumberOfFrames=len(pixels))
    image = write_dicom(tmp_path / 'image.dcm', pixels, **frames, **image)
    frames = {} if labels.ndim == 2 else dict(NumberOfFrames=len(labels))
    mask = write_dicom(tmp_path / 'mask.dcm', labels, **frames, **mask)
    return np.stack(dispatch.read_mask_slices(mask, classes, image=image))

  return read


@pytest.mark.parametrize('axes', [AXIAL, TILTED, [0, 1, 0, 0, 0, -1]])
@pytest.mark.parametrize('order', [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
@pytest.mark.parametrize('own', [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_frames_in_any_order(pair, axes, order, own):
  depths = np.array([0, 3, 6, 10])
  found = pair(groups(depths[order], axes), groups(depths[own], axes), LABELS[own])
  np.testing.assert_array_equal(found, LABELS[order])


def test_rounded_positions_still_match(pair):
  found = pair(groups([0, 3, 6, 9]), groups([9.2, 6, 3, -0.2], by=[0.1, 0, 0]), LABELS[::-1])
  np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize('mask', [dict(), groups([5, 5, 5, 5]), dict(PixelSpacing=[0.5, 0.5])])
@pytest.mark.parametrize('image', [dict(), groups([5, 5, 5, 5])])
def test_without_places_or_all_in_one_the_numbers_count(pair, image, mask):
  """Of several frames, one position that is given for all is that of the first."""
  np.testing.assert_array_equal(pair(image, mask), LABELS)
  np.testing.assert_array_equal(pair(dict(ImagePositionPatient=[1, 2, 3]), mask), LABELS)


def test_where_one_file_has_places(pair):
  """In the order of the slices, the other may be trusted to have it too; else not."""
  for depths in ([0, 3, 6, 9], [9, 6, 3, 0]):
    np.testing.assert_array_equal(pair(groups(depths), {}), LABELS)
    np.testing.assert_array_equal(pair({}, groups(depths)), LABELS)
  for image, mask in ((groups([0, 6, 3, 9]), {}), ({}, groups([0, 6, 3, 9]))):
    with pytest.raises(UnsupportedImage, match='in no order along the patient, and the other'):
      pair(image, mask)


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    (groups([0, 3, 6, 9], by=[1, 0, 0]), r'up to 2 pixels or slices \(1 mm\) apart; resample'),
    (groups([0, 3, 6, 9], by=[0, 0, 90]), r'up to 30 pixels or slices \(90 mm\) apart'),
    (groups([0, 3, 6, 12]), r'up to 1 pixels or slices \(3 mm\)'),
    (groups([9, 6, 3, -1.6]), r'up to 0\.533 pixels or slices \(1\.6 mm\)'),
    (groups([0, 3, 6, 9], spacing=(0.5, 0.6)), r'up to 1\.2 pixels or slices \(0\.6 mm\)'),
    (groups([0, 3, 6, 9], spacing=(1, 0.5)), r'up to 5 pixels or slices \(2\.5 mm\)'),
    (groups([0, 3, 6, 9], axes=[0, 1, 0, 1, 0, 0]), 'do not lie in the same place'),
    (groups([0, 3, 4.4, 9]), r'mask\.dcm has two frames for one of'),
    (groups([0, 0, 0, 0]), r'mask\.dcm has two frames for one of'),
    (dict(PixelSpacing=[0.5, 0.6]), r'up to 1\.2 pixels or slices \(0\.6 mm\)'),
  ],
)
def test_masks_that_lie_elsewhere(pair, mask, message):
  with pytest.raises(UnsupportedImage, match=message) as caught:
    pair(groups([0, 3, 6, 9]), mask)
  assert '/mask.dcm' in str(caught.value) and '/image.dcm' in str(caught.value)


def test_several_frames_of_one_place_in_another_order(pair):
  """As of a heart over time."""
  np.testing.assert_array_equal(pair(groups([0, 3, 0, 3]), groups([0, 3, 0, 3])), LABELS)
  with pytest.raises(UnsupportedImage, match='in different orders, and several lie in one place'):
    pair(groups([0, 3, 0, 3]), groups([0, 0, 3, 3]))


SINGLE = dict(ImageOrientationPatient=AXIAL, PixelSpacing=[0.5, 0.5])


@pytest.mark.parametrize(
  ('mask', 'message'),
  [
    ({}, None),
    (dict(SINGLE, ImagePositionPatient=[1, 2, 3]), None),
    (dict(SINGLE, ImagePositionPatient=[1.2, 2, 3]), None),
    (dict(PixelSpacing=[0.5, 0.5]), None),
    (dict(ImageOrientationPatient=[0] * 6, ImagePositionPatient=[1, 2, 3]), None),
    (dict(SINGLE, ImagePositionPatient=[1, 2, 8]), r'\(5 mm\) apart'),
    (dict(PixelSpacing=[1, 1]), r'up to 6 pixels'),
    (dict(SINGLE, ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), 'not lie in the same place'),
  ],
)
def test_single_frames(pair, mask, message):
  image = dict(SINGLE, ImagePositionPatient=[1, 2, 3])
  pixels = np.zeros((6, 7), np.uint16)
  if message is None:
    np.testing.assert_array_equal(pair(image, mask, LABELS[1], pixels=pixels), LABELS[1:2])
    return
  with pytest.raises(UnsupportedImage, match=message):
    pair(image, mask, LABELS[1], pixels=pixels)


# Segmentations.


def test_a_segmentation_leaves_out_what_is_empty(pair):
  found = pair(
    groups([0, 3, 6, 9]),
    dict(groups([6, 0], segments=[1, 1]), SOPClassUID=SEGMENTATION),
    LABELS[[2, 0]],
  )
  expected = LABELS.copy()
  expected[[1, 3]] = 0
  np.testing.assert_array_equal(found, expected)


def test_segments_become_classes(pair):
  second = np.roll(LABELS, 2, axis=1)
  found = pair(
    groups([9, 6, 3, 0]),
    dict(groups([0, 3, 0, 9], segments=[1, 1, 2, 2]), SOPClassUID=SEGMENTATION),
    np.concatenate([LABELS[:2], second[[0, 3]]]) * 255,
    classes=('liver', 'tumour'),
  )
  expected = np.zeros_like(LABELS)
  expected[3] = LABELS[0] + 2 * second[0]
  expected[2] = LABELS[1]
  expected[0] = 2 * second[3]
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('mask', 'labels', 'message'),
  [
    (groups([0, 0], segments=[1, 2]), LABELS[[1, 1]], 'has segments that overlap'),
    (groups([0, 3], segments=[1, 1]), LABELS[:2] * 90 + 1, 'is a segmentation of fractions'),
    (groups([0, 30], segments=[1, 1]), LABELS[:2], r'up to 7 pixels or slices \(21 mm\) apart'),
    (dict(), LABELS[:2], 'one does not say where its frames lie, and they are not as many'),
  ],
)
def test_segmentations_that_cannot_be_used(pair, mask, labels, message):
  with pytest.raises(UnsupportedImage, match=message):
    pair(groups([0, 3, 6, 9]), dict(mask, SOPClassUID=SEGMENTATION), labels, ('a', 'b'))


def test_what_differs_in_size_or_number_comes_as_it_is_stored(pair):
  """Their caller says that."""
  assert pair(groups([0, 3, 6, 9]), groups([0, 3]), LABELS[:2]).shape == (2, 6, 7)
  assert pair(groups([0, 3, 6, 9]), groups([0, 3, 6, 9]), LABELS[:, :5]).shape == (4, 5, 7)
