"""DICOM: values against pydicom, frames, spacing, masks, and headers that lie."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale, apply_windowing
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ahm_jax.data.readers import dicom, dispatch
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage
from tests.data.readers.memory import refused_in_little_memory

EXAMPLES = Path(pydicom.__file__).parent / 'data' / 'test_files'


def stretched(values, low, high):
  return np.floor(np.clip((np.asarray(values, float) - low) / (high - low), 0, 1) * 255 + 0.5)


def read(path, channels, **options):
  ((_, picture),) = dispatch.read_slices(path, channels, **options)
  return picture


def grey(path, **options):
  return [picture.pixels[..., 0] for _, picture in dispatch.read_slices(path, 1, **options)]


def test_stored_values_are_rescaled_and_windowed(tmp_path, write_dicom):
  values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 10
  path = write_dicom(
    tmp_path / 'a.dcm',
    values,
    RescaleSlope=2,
    RescaleIntercept=-1000,
    WindowCenter=[40, 500],
    WindowWidth=[400, 9],
  )
  hounsfield = values * 2.0 - 1000
  np.testing.assert_array_equal(
    grey(path)[0], stretched(hounsfield, 40 - 0.5 - 199.5, 40 - 0.5 + 199.5)
  )
  np.testing.assert_array_equal(grey(path, window=(0, 1000))[0], stretched(hounsfield, -500, 500))
  whole = pydicom.dcmread(path)
  official = apply_windowing(apply_rescale(whole.pixel_array, whole), whole)
  np.testing.assert_allclose(
    grey(path)[0], stretched(official, official.min(), official.max()), atol=1
  )


def test_the_window_of_a_real_file_is_pydicoms():
  whole = pydicom.dcmread(EXAMPLES / 'MR_small.dcm')
  # Onto the range of its 16 signed bits.
  official = apply_windowing(apply_rescale(whole.pixel_array, whole), whole)
  np.testing.assert_allclose(
    grey(EXAMPLES / 'MR_small.dcm')[0], stretched(official, -(2**15), 2**15 - 1), atol=1
  )


def test_without_a_window_it_goes_from_percentile_to_percentile(tmp_path, write_dicom):
  values = np.random.default_rng(1).integers(0, 4096, (30, 30)).astype(np.uint16)
  low, high = np.percentile(values * 0.5 - 3, (0.5, 99.5))
  path = write_dicom(tmp_path / 'a.dcm', values, RescaleSlope=0.5, RescaleIntercept=-3)
  np.testing.assert_array_equal(grey(path)[0], stretched(values * 0.5 - 3, low, high))


def test_8_bits_stay_and_monochrome1_is_inverted(tmp_path, write_dicom):
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = write_dicom(tmp_path / 'a.dcm', values)
  np.testing.assert_array_equal(grey(path, window=(3, 2))[0], values)
  path = write_dicom(tmp_path / 'b.dcm', values, PhotometricInterpretation='MONOCHROME1')
  np.testing.assert_array_equal(grey(path)[0], 255 - values)
  assert read(path, 3).pixels.shape == (8, 8, 3)


def test_colours(tmp_path, write_dicom):
  values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  np.testing.assert_array_equal(read(write_dicom(tmp_path / 'a.dcm', values), 3).pixels, values)
  as_grey = np.asarray(Image.fromarray(values).convert('L'))
  np.testing.assert_array_equal(read(tmp_path / 'a.dcm', 1).pixels[..., 0], as_grey)


@pytest.mark.parametrize(
  'name',
  [
    'SC_rgb_dcmtk_+eb+cy+n1.dcm',  # YBR_FULL
    'SC_ybr_full_422_uncompressed.dcm',
    'SC_rgb_rle.dcm',
    'SC_rgb_rle_16bit.dcm',
    'SC_rgb_jpeg_dcmtk.dcm',
    'SC_rgb_gdcm_KY.dcm',  # JPEG 2000
  ],
)
def test_one_colour_chart_in_several_encodings(name):
  """pydicom's own examples of one picture.

  Its uncompressed form, in RGB, is the truth. Lossy ones differ by a few levels.
  """
  truth = read(EXAMPLES / 'SC_rgb_rle_32bit.dcm', 3).pixels.astype(int)
  found = read(EXAMPLES / name, 3).pixels.astype(int)
  assert np.median(np.abs(found - truth)) <= 2


def test_palettes_are_looked_up():
  picture = read(EXAMPLES / 'examples_palette.dcm', 3).pixels
  whole = pydicom.dcmread(EXAMPLES / 'examples_palette.dcm')
  official = pydicom.pixels.apply_color_lut(whole.pixel_array, whole)
  np.testing.assert_array_equal(picture, official >> 8 if official.dtype == np.uint16 else official)
  assert (picture[..., 0] != picture[..., 1]).any()


def test_frames_are_slices_on_one_scale(tmp_path, write_dicom):
  values = np.random.default_rng(0).integers(0, 4096, (3, 6, 7)).astype(np.uint16)
  path = write_dicom(tmp_path / 'a.dcm', values, NumberOfFrames=3, PixelSpacing=[0.5, 0.25])
  found = dispatch.read_slices(path, 3)
  assert [suffix for suffix, _ in found] == ['_s0000', '_s0001', '_s0002']
  low, high = np.percentile(values, (0.5, 99.5))
  for (_, picture), frame in zip(found, values, strict=True):
    assert picture.spacing == (0.5, 0.25)
    assert picture.size == (6, 7)
    np.testing.assert_array_equal(picture.pixels[..., 1], stretched(frame, low, high))


def test_functional_groups_of_enhanced_files(tmp_path, write_dicom):
  """What a frame says of itself goes before what all share."""

  def group(**macros):
    item = Dataset()
    for macro, fields in macros.items():
      inner = Dataset()
      for name, value in fields.items():
        setattr(inner, name, value)
      setattr(item, macro, [inner])
    return item

  values = np.stack([np.arange(16, dtype=np.uint16).reshape(4, 4)] * 2)
  path = write_dicom(
    tmp_path / 'a.dcm',
    values,
    NumberOfFrames=2,
    SharedFunctionalGroupsSequence=[
      group(
        PixelMeasuresSequence={'PixelSpacing': [2, 3]},
        FrameVOILUTSequence={
          'WindowCenter': 20,
          'WindowWidth': 40,
          'VOILUTFunction': 'LINEAR_EXACT',
        },
      )
    ],
    PerFrameFunctionalGroupsSequence=[
      group(PixelValueTransformationSequence={'RescaleSlope': slope, 'RescaleIntercept': 0})
      for slope in (1, 2)
    ],
  )
  found = dispatch.read_slices(path, 1)
  assert [picture.spacing for _, picture in found] == [(2, 3), (2, 3)]
  for slope, (_, picture) in zip((1, 2), found, strict=True):
    np.testing.assert_array_equal(picture.pixels[..., 0], stretched(values[0] * slope, 0, 40))


@pytest.mark.parametrize('spacing', [None, [0, 1], [-1, 1]])
def test_spacing_that_is_none(tmp_path, spacing, write_dicom):
  attributes = {} if spacing is None else {'PixelSpacing': spacing}
  assert (
    read(write_dicom(tmp_path / 'a.dcm', np.zeros((4, 4), np.uint8), **attributes), 1).spacing
    is None
  )


def test_dicom_masks(tmp_path, write_dicom):
  values = np.array([[[0, 1], [2, 0]], [[0, 0], [1, 1]]], np.uint8)
  # Masks are not rescaled.
  path = write_dicom(tmp_path / 'a.dcm', values, NumberOfFrames=2, RescaleSlope=7)
  np.testing.assert_array_equal(dispatch.read_mask_slices(path, ('a', 'b')), values)
  with pytest.raises(UnsupportedImage, match='holds the value 2'):
    dispatch.read_mask_slices(path, ('a',))


@pytest.mark.parametrize(
  'changes',
  [dict(Rows=60000, Columns=60000), dict(NumberOfFrames=2**31 - 1, Rows=4000, Columns=4000)],
)
def test_dicom_that_claims_to_be_huge(tmp_path, changes, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), **changes)
  with pytest.raises(UnsupportedImage, match='claims to hold more than'):
    dispatch.read_slices(path, 3)


@pytest.mark.parametrize(
  'changes', [dict(Rows=9), dict(Rows=0), dict(NumberOfFrames=50), dict(BitsAllocated=16)]
)
def test_dicom_with_less_than_it_claims(tmp_path, changes, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), **changes)
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 3)


def test_dicom_that_is_no_image_or_cannot_be_decoded(tmp_path, write_dicom):
  with pytest.raises(UnsupportedImage, match=r'rtplan\.dcm is DICOM without an image; remove it'):
    read(EXAMPLES / 'rtplan.dcm', 3)
  with pytest.raises(
    UnsupportedImage,
    match=r'is compressed as JPEG-LS Lossless.*; decompress it, as by gdcmconv --raw',
  ):
    read(EXAMPLES / 'MR_small_jpeg_ls_lossless.dcm', 3)
  with pytest.raises(
    UnsupportedImage, match='is deflated as a whole; save it with another transfer syntax'
  ):
    read(
      write_dicom(
        tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), syntax=DeflatedExplicitVRLittleEndian
      ),
      3,
    )


def test_padding_of_dicom_is_no_damage(tmp_path, write_dicom):
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = write_dicom(tmp_path / 'a.dcm', values, PixelData=values.tobytes() + bytes(1000))
  np.testing.assert_array_equal(grey(path)[0], values)


def test_origin_of_a_broken_file(tmp_path):
  (tmp_path / 'a.dcm').write_bytes(b'nothing')
  assert dicom.origin(tmp_path / 'a.dcm') == ('', '', '')


def test_what_headers_promise_takes_no_memory(tmp_path, write_dicom):
  """Half a gigabyte each, and files of a kilobyte."""
  values = np.zeros((8, 8), np.uint8)
  claims = dict(Rows=8000, Columns=8000, NumberOfFrames=4, BitsAllocated=16)
  paths = [write_dicom(tmp_path / 'c.dcm', values, **claims)]
  refused_in_little_memory(paths)
