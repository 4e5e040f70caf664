"""DICOM: values against pydicom, frames, spacing, masks, and headers that lie."""

import struct
import subprocess
import sys
import warnings
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


SLOPE, SHIFT = 2.0, -1000.0


@pytest.mark.parametrize(
  ('dtype', 'pad', 'fields'),
  [
    ('i2', -32768, dict(PixelPaddingValue=-32768)),
    ('i2', -2000, dict(PixelPaddingValue=-2000)),
    ('u2', 63536, dict(PixelPaddingValue=63536)),
    ('u2', 65535, dict(PixelPaddingValue=65535)),
    ('u2', 0, dict(PixelPaddingValue=0)),
    ('i2', -1500, dict(PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1001)),
    ('i2', -1500, dict(PixelPaddingValue=-1001, PixelPaddingRangeLimit=-2000)),
    ('i2', -2048, dict(PixelPaddingValue=-2048, BitsStored=12, HighBit=11)),
    ('i2', -2048, dict(PixelPaddingValue=2048, BitsStored=12, HighBit=11)),  # Its 12 bits.
  ],
)
@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('layout', ['explicit', 'implicit', 'of the other sign'])
def test_padding_is_black_and_counts_for_no_percentile(
  tmp_path, dtype, pad, fields, kind, layout, write_dicom
):
  values = np.random.default_rng(0).integers(200, 1000, (30, 30)).astype(dtype)
  values[:, 20:] = pad
  explicit, implicit = pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ImplicitVRLittleEndian
  path = write_dicom(
    tmp_path / 'a.dcm',
    values,
    syntax=implicit if layout == 'implicit' else explicit,
    PhotometricInterpretation=kind,
    RescaleSlope=SLOPE,
    RescaleIntercept=SHIFT,
    PixelRepresentation=int(dtype == 'i2'),
    **fields,
  )
  if layout == 'of the other sign':  # As the types of the values say, but not the pixels.
    tags = [struct.pack('<HH', 0x28, element) for element in (0x120, 0x121)]
    data = path.read_bytes()
    for tag in tags:
      ours, other = (b'SS', b'US') if dtype == 'i2' else (b'US', b'SS')
      data = data.replace(tag + ours, tag + other)
    path.write_bytes(data)
  inside = values[:, :20] * SLOPE + SHIFT
  low, high = np.percentile(inside, (0.5, 99.5))
  expected = stretched(inside, low, high)
  found = grey(path)[0]
  np.testing.assert_array_equal(
    found[:, :20], 255 - expected if kind == 'MONOCHROME1' else expected
  )
  assert not found[:, 20:].any()
  windowed = stretched(inside, 0, 1000)
  found = grey(path, window=(500, 1000))[0]
  np.testing.assert_array_equal(
    found[:, :20], 255 - windowed if kind == 'MONOCHROME1' else windowed
  )
  assert not found[:, 20:].any()


@pytest.mark.parametrize(
  ('dtype', 'bits', 'pad'),
  [('u2', 12, 63536), ('u2', 12, 65535), ('u1', 8, 511), ('u1', 8, 65535)],
)
def test_padding_that_no_pixel_can_have_blackens_none(tmp_path, dtype, bits, pad, write_dicom):
  values = np.arange(2**bits, step=max(1, 2**bits // 256), dtype=dtype).reshape(-1, 16)
  values.flat[-1] = 2**bits - 1
  fields = dict(BitsStored=bits, HighBit=bits - 1)
  plain = grey(write_dicom(tmp_path / 'a.dcm', values, **fields))[0]
  padded = grey(write_dicom(tmp_path / 'b.dcm', values, PixelPaddingValue=pad, **fields))[0]
  np.testing.assert_array_equal(padded, plain)
  assert padded.max() == 255


def test_an_image_of_padding_alone(tmp_path, write_dicom):
  values = np.full((8, 8), -32768, np.int16)
  assert not grey(write_dicom(tmp_path / 'a.dcm', values, PixelPaddingValue=-32768))[0].any()


TWELVE = np.array([[1, 2, 3, 4], [4095, 2048, 5, 6]], np.uint16)


@pytest.mark.parametrize(
  ('values', 'fields', 'stored'),
  [
    (TWELVE, dict(BitsStored=12, HighBit=11), TWELVE),
    (TWELVE | 0xF000, dict(BitsStored=12, HighBit=11), TWELVE),  # Overlays in the unused bits.
    (TWELVE << 4, dict(BitsStored=12, HighBit=15), TWELVE),
    (TWELVE, dict(BitsStored=12, HighBit=15), TWELVE),  # Not so, as the values say.
    (TWELVE, dict(BitsStored=16, HighBit=11), TWELVE),
    (TWELVE.astype('i2'), dict(BitsStored=12, HighBit=11), [[1, 2, 3, 4], [-1, -2048, 5, 6]]),
    (-TWELVE.astype('i2') // 2, dict(BitsStored=12, HighBit=11), -TWELVE.astype('i2') // 2),
    (TWELVE, dict(BitsStored=20), TWELVE),
    (TWELVE, dict(BitsStored=None), TWELVE),
    (TWELVE, dict(PixelRepresentation=None), TWELVE),
    (TWELVE, dict(SamplesPerPixel=None, PhotometricInterpretation=None), TWELVE),
    (TWELVE, dict(PhotometricInterpretation='monochrome2'), TWELVE),
    (TWELVE, dict(NumberOfFrames=0), TWELVE),
    (TWELVE, dict(NumberOfFrames=None), TWELVE),
    (TWELVE, dict(RescaleSlope=0, RescaleIntercept=0), TWELVE),
    (TWELVE, dict(RescaleSlope=None, RescaleIntercept=''), TWELVE),
    (TWELVE, dict(WindowCenter='', WindowWidth=''), TWELVE),
    (TWELVE, dict(WindowCenter=5, WindowWidth=0), TWELVE),
    (TWELVE, dict(PixelAspectRatio=[1, 2]), TWELVE),
    (TWELVE.astype('u4') + 2**31, dict(), TWELVE + 2.0**31),
    ((TWELVE.astype('i8') - 2**31).astype('i4'), dict(), TWELVE - 2.0**31),
    (TWELVE.astype('u1'), dict(WindowCenter=None), TWELVE.astype('u1')),
  ],
)
def test_values_whatever_describes_them(tmp_path, values, fields, stored, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', values, **fields)
  stored = np.asarray(stored, float)
  low, high = (0, 255) if values.dtype == np.uint8 else np.percentile(stored, (0.5, 99.5))
  np.testing.assert_array_equal(grey(path)[0], stretched(stored, low, high))
  assert read(path, 1).spacing is None


def text_for(path, keyword, text):
  """Puts text where numbers should be."""
  whole = pydicom.dcmread(path)
  tag = pydicom.datadict.tag_for_keyword(keyword)
  whole[tag] = pydicom.dataelem.DataElement(tag, 'LO', text)
  whole.save_as(path)
  data = bytearray(path.read_bytes())
  place = data.index(struct.pack('<HH', tag >> 16, tag & 0xFFFF) + b'LO')
  data[place + 4 : place + 6] = b'DS'
  path.write_bytes(data)


@pytest.mark.parametrize(
  ('keyword', 'text'),
  [
    ('PixelSpacing', '0,5\\0,5'),
    ('PixelSpacing', '0.5'),
    ('PixelSpacing', '1\\2\\3'),
    ('WindowCenter', 'soft'),
    ('WindowWidth', '40\\'),
    ('RescaleSlope', 'none'),
    ('ImagePositionPatient', 'a\\b\\c'),
  ],
)
def test_text_in_the_place_of_numbers_counts_as_none(tmp_path, keyword, text, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', TWELVE)
  expected = grey(path)[0]
  text_for(path, keyword, text)
  np.testing.assert_array_equal(grey(path)[0], expected)
  assert read(path, 1).spacing is None
  dispatch.read_mask_slices(write_dicom(tmp_path / 'm.dcm', TWELVE > 9), image=path)


def body(path, implicit=False, little=True):
  """The elements after the meta header, encoded as is asked."""
  whole = pydicom.dcmread(path)
  stream = pydicom.filebase.DicomBytesIO()
  stream.is_little_endian, stream.is_implicit_VR = little, implicit
  if not little:
    whole.PixelData = np.frombuffer(whole.PixelData, '<u2').astype('>u2').tobytes()
  pydicom.filewriter.write_dataset(stream, pydicom.Dataset({each.tag: each for each in whole}))
  return stream.getvalue()


def head(path):
  """All before them."""
  data = path.read_bytes()
  return data[: 144 + struct.unpack('<I', data[140:144])[0]]


NO_SYNTAX = bytes(128) + b'DICM' + struct.pack('<HH2sHI', 2, 0, b'UL', 4, 14)
NO_SYNTAX += struct.pack('<HH2sH6s', 2, 0x13, b'SH', 6, b'OLD_PA')


@pytest.mark.parametrize(
  'rewrite',
  [
    lambda path: head(path) + body(path, implicit=True),
    lambda path: body(path, implicit=True),
    lambda path: body(path),
    lambda path: body(path, little=False),
    lambda path: NO_SYNTAX + body(path, implicit=True),
    lambda path: NO_SYNTAX + body(path),
    lambda path: bytes(128) + b'DICM' + body(path, implicit=True),
    lambda path: head(path)[132:] + body(path),
    lambda path: head(path) + body(path) + bytes(6),
  ],
  ids=[
    *('implicit although explicit is said', 'no meta header, implicit', 'no meta header'),
    *('no meta header, big endian', 'no syntax, implicit', 'no syntax', 'an empty meta header'),
    *('no preamble', 'zeros at its end'),
  ],
)
def test_how_a_file_is_laid_out(tmp_path, rewrite, write_dicom):
  values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 300
  path = write_dicom(tmp_path / 'a.dcm', values, PatientID='P1', PixelSpacing=[2, 3])
  expected = grey(path, window=(9000, 9000))[0]
  path.write_bytes(rewrite(path))
  np.testing.assert_array_equal(grey(path, window=(9000, 9000))[0], expected)
  assert read(path, 1).spacing == (2, 3)
  assert dicom.origin(path).patient == 'P1'


@pytest.mark.parametrize(
  'fields',
  [
    dict(SpecificCharacterSet='ISO_IR 999', PatientName='X'),
    dict(SpecificCharacterSet=['ISO_IR 100', 'ISO 2022 IR 999'], PatientName='X'),
    dict(StudyDate='not a date', PatientAge='old'),
    dict(NumberOfFrames='0'),
  ],
)
def test_metadata_that_pydicom_warns_of(tmp_path, fields, write_dicom):
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = write_dicom(tmp_path / 'a.dcm', values)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    whole = pydicom.dcmread(path)
    for name, value in fields.items():
      setattr(whole, name, value)
    whole.save_as(path)
  np.testing.assert_array_equal(grey(path)[0], values)
  dicom.origin(path)


def test_warnings_of_metadata_are_not_printed_and_those_of_damage_are_errors(tmp_path, write_dicom):
  """In a program of its own, as the filters of tests are others."""
  path = write_dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8))
  path.write_bytes(head(path) + body(path, implicit=True))
  script = (
    'import sys, warnings; from pathlib import Path; from ahm_jax.data.readers import dispatch\n'
    'dispatch.read_slices(Path(sys.argv[1]), 1)\n'
    'code = "warnings.warn(\'The end of the encapsulated pixel data has been reached\')"\n'
    'try: exec(code, {"warnings": warnings, "__name__": "pydicom.encaps"})\n'
    'except UserWarning: print("error")'
  )
  result = subprocess.run(
    [sys.executable, '-c', script, str(path)], capture_output=True, text=True, check=True
  )
  assert (result.stdout, result.stderr) == ('error\n', '')


@pytest.mark.parametrize('name', ['SC_rgb_jpeg_dcmtk.dcm', 'SC_rgb_rle.dcm', 'MR_small_RLE.dcm'])
@pytest.mark.parametrize('share', [0.5, 0.9])
def test_compressed_pixels_that_end_early_are_damage(tmp_path, name, share):
  data = (EXAMPLES / name).read_bytes()
  start = data.index(b'\xe0\x7f\x10\x00')
  (tmp_path / 'a.dcm').write_bytes(data[: start + int((len(data) - start) * share)])
  with pytest.raises(Unreadable):
    dispatch.read_slices(tmp_path / 'a.dcm', 3)


@pytest.mark.parametrize('kept', [0.2, 0.6, 0.95])
def test_a_file_that_ends_early_is_damaged(tmp_path, kept, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', np.ones((20, 20), np.uint16), PixelSpacing=[1, 1])
  data = path.read_bytes()
  start = data.index(struct.pack('<HH2s', 0x28, 0x103, b'US'))  # Close to the pixels.
  path.write_bytes(data[: start + 8 + int((len(data) - start - 8) * kept)])
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 1)


RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    (dict(), RGB),
    (dict(PlanarConfiguration=None), RGB),
    (dict(PlanarConfiguration=1, PixelData=np.moveaxis(RGB, -1, 0).tobytes()), RGB),
    (
      dict(PhotometricInterpretation='YBR_FULL_422', PixelData=bytes([9, 99, 128, 128] * 4)),
      np.broadcast_to(np.array([9, 99] * 4).reshape(2, 4, 1), (2, 4, 3)),
    ),
  ],
)
def test_layouts_of_colour(tmp_path, fields, expected, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', RGB, **fields)
  np.testing.assert_array_equal(read(path, 3).pixels, expected)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(SamplesPerPixel=4, PhotometricInterpretation='CMYK'), 'is CMYK of 4 samples of 8 bits'),
    (dict(PhotometricInterpretation='YBR_PARTIAL_422'), 'is YBR_PARTIAL_422 of 3 samples'),
    (dict(PhotometricInterpretation='R\nGB\x1b'), r'is R\\nGB\\x1b of 3 samples'),
    (dict(BitsAllocated=24, BitsStored=24), 'of 24 bits, which is not read; save it as grey or'),
    (dict(PhotometricInterpretation='YBR_FULL_422'), 'to be YBR_FULL_422, but has colour in full'),
  ],
)
def test_kinds_that_are_not_read_are_called_that(tmp_path, fields, message, write_dicom):
  path = write_dicom(tmp_path / 'a.dcm', RGB, **fields)
  with pytest.raises(UnsupportedImage, match=message):
    read(path, 3)


def test_a_transfer_syntax_of_before_decompression(tmp_path, write_dicom):
  """As programs leave it that decompress the pixels alone; and the other way."""
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = write_dicom(tmp_path / 'a.dcm', values)
  assert b'1.2.840.10008.1.2.1\0' in path.read_bytes()
  data = path.read_bytes().replace(
    b'UI\x14\x001.2.840.10008.1.2.1\0', b'UI\x16\x001.2.840.10008.1.2.4.50'
  )
  length = struct.unpack('<I', data[140:144])[0] + 2
  path.write_bytes(data[:140] + struct.pack('<I', length) + data[144:])
  np.testing.assert_array_equal(grey(path)[0], values)
  data = write_dicom(path, values).read_bytes()
  path.write_bytes(data.replace(b'1.2.840.10008.1.2.1\0', b'1.2.840.10008.1.2.9\0'))
  with pytest.raises(UnsupportedImage, match=r'transfer syntax 1\.2\.840\.10008\.1\.2\.9, but'):
    read(path, 1)
  wrapped = (EXAMPLES / 'SC_rgb_jpeg_dcmtk.dcm').read_bytes()
  with pytest.raises(UnsupportedImage, match='but its pixels are not stored so'):
    (tmp_path / 'b.dcm').write_bytes(
      wrapped.replace(b'1.2.840.10008.1.2.4.50', b'1.2.840.10008.1.2.1\0\0\0')
    )
    read(tmp_path / 'b.dcm', 3)


def test_origin_of_a_broken_file(tmp_path):
  (tmp_path / 'a.dcm').write_bytes(b'nothing')
  assert dicom.origin(tmp_path / 'a.dcm') == ('', '', '')


def test_what_headers_promise_takes_no_memory(tmp_path, write_dicom):
  """Half a gigabyte each, and files of a kilobyte."""
  values = np.zeros((8, 8), np.uint8)
  claims = dict(Rows=8000, Columns=8000, NumberOfFrames=4, BitsAllocated=16)
  paths = [write_dicom(tmp_path / 'c.dcm', values, **claims)]
  refused_in_little_memory(paths)
