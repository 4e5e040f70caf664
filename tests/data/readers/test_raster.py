"""One file, decoded: formats, depths, palettes, orientation and masks.

And what is refused before it takes memory.
"""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import dispatch, raster
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage, shown

# 0 to 4193, as of 12 bits and a little.
RAMP = (np.arange(600).reshape(20, 30) * 7).astype(np.uint16)


def colours(height=20, width=30, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def stretched(values, low, high):
  return np.floor(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255 + 0.5)


def read(path, channels, **options):
  ((ending, picture),) = dispatch.read_slices(path, channels, **options)
  assert ending == ''
  return picture


def read_mask(path, classes=()):
  (mask,) = dispatch.read_mask_slices(path, classes)
  return mask


# Formats, depths and modes.


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.bmp', '.webp'])
def test_lossless_colour(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  Image.fromarray(colours()).save(path, lossless=True)
  picture = read(path, 3)
  np.testing.assert_array_equal(picture.pixels, colours())
  assert picture.spacing is None
  assert picture.size == (20, 30)
  assert read(path, 1).pixels.shape == (20, 30, 1)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_more_than_8_bits_are_stretched_from_percentile_to_percentile(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  Image.fromarray(RAMP).save(path)
  low, high = np.percentile(RAMP, (0.5, 99.5))
  pixels = read(path, 3).pixels
  assert pixels.shape == (20, 30, 3)
  np.testing.assert_array_equal(pixels, np.repeat(stretched(RAMP, low, high)[..., None], 3, axis=2))
  np.testing.assert_array_equal(read(path, 3).pixels, pixels)


def test_a_window_says_what_is_black_and_white(tmp_path):
  Image.fromarray(RAMP).save(tmp_path / 'a.png')
  pixels = read(tmp_path / 'a.png', 1, window=(2000, 1000)).pixels[..., 0]
  np.testing.assert_array_equal(pixels, stretched(RAMP, 1500, 2500))
  assert pixels[RAMP <= 1500].max() == 0 and pixels[RAMP >= 2500].min() == 255


def test_a_window_leaves_8_bits_alone(tmp_path):
  Image.fromarray(colours()).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png', 3, window=(10, 2)).pixels, colours())


def test_few_bright_pixels_on_black_are_seen(tmp_path):
  """Both percentiles are 0; the range is then that of the values."""
  values = np.zeros((40, 40), np.uint16)
  values[3, 4:6] = 500, 1000
  Image.fromarray(values).save(tmp_path / 'a.png')
  pixels = read(tmp_path / 'a.png', 1).pixels[..., 0]
  assert pixels[3, 4:6].tolist() == [128, 255]
  assert np.count_nonzero(pixels) == 2


def test_a_constant_of_16_bits_is_black(tmp_path):
  Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / 'a.png')
  assert not read(tmp_path / 'a.png', 1).pixels.any()


def test_floats_of_tiff(tmp_path):
  values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
  values[0, 0] = np.nan
  Image.fromarray(values).save(tmp_path / 'a.tif')
  pixels = read(tmp_path / 'a.tif', 1, window=(0, 1)).pixels[..., 0]
  assert pixels[0, 0] == 0 and pixels[-1, -1] == 255
  np.testing.assert_allclose(pixels[10], stretched(values[10], -0.5, 0.5), atol=1)


def test_alpha_is_ignored(tmp_path):
  values = np.dstack([colours(), np.zeros((20, 30), np.uint8)])  # Wholly transparent.
  Image.fromarray(values).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png', 3).pixels, colours())


def test_palettes_are_looked_up_whatever_their_transparency(tmp_path):
  palette = Image.fromarray(colours()).quantize(16)
  palette.save(tmp_path / 'a.png', transparency=bytes(range(16)))
  np.testing.assert_array_equal(
    read(tmp_path / 'a.png', 3).pixels, np.asarray(palette.convert('RGB'))
  )


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK'])
@pytest.mark.parametrize('channels', [1, 3])
def test_every_mode(tmp_path, mode, channels):
  whole = Image.fromarray(colours()).convert(mode)
  whole.save(tmp_path / 'a.tif')
  expected = np.asarray(whole.convert('RGB' if channels == 3 else 'L')).reshape(20, 30, channels)
  np.testing.assert_array_equal(read(tmp_path / 'a.tif', channels).pixels, expected)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('values', [colours(), RAMP], ids=['colour', 'deep'])
def test_orientation(tmp_path, orientation, values):
  """The eight ways of the EXIF standard, by turns and flips of the array."""
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(values).save(tmp_path / 'a.png', exif=exif)
  Image.fromarray(values).save(tmp_path / 'b.png')
  turned = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: np.rot90(x),
  }[orientation]
  picture = read(tmp_path / 'a.png', 3)
  np.testing.assert_array_equal(picture.pixels, turned(read(tmp_path / 'b.png', 3).pixels))
  assert picture.size == picture.pixels.shape[:2]
  assert picture.orientation == raster.orientation(tmp_path / 'a.png') == orientation
  assert raster.orientation(tmp_path / 'b.png') == 1


@pytest.mark.parametrize('orientation', [0, 9, 65535])
def test_an_orientation_that_the_standard_does_not_know_turns_nothing(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(colours()).save(tmp_path / 'a.png', exif=exif)
  picture = read(tmp_path / 'a.png', 3)
  np.testing.assert_array_equal(picture.pixels, colours())
  assert picture.orientation == 1


def test_a_jpeg_may_be_halved_but_not_below_what_suffices(tmp_path):
  Image.fromarray(colours(600, 800)).save(tmp_path / 'a.jpg')
  picture = read(tmp_path / 'a.jpg', 3, at_least=(100, 100))
  assert picture.pixels.shape == (150, 200, 3)
  assert picture.size == (600, 800)
  assert read(tmp_path / 'a.jpg', 3).pixels.shape == (600, 800, 3)


def test_an_image_is_a_volume_of_one_slice(tmp_path):
  Image.fromarray(colours()).save(tmp_path / 'a.png')
  ((suffix, picture),) = dispatch.read_slices(tmp_path / 'a.png', 3)
  assert suffix == ''
  np.testing.assert_array_equal(picture.pixels, colours())


# Masks.


def save_mask(path, values, mode=None):
  Image.fromarray(np.array(values, np.uint8), mode).save(path)
  return path


@pytest.mark.parametrize(
  ('highest', 'dtype'), [(1, np.uint8), (255, np.uint8), (1, np.uint16), (65535, np.uint16)]
)
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_binary_masks(tmp_path, highest, dtype, suffix):
  path = tmp_path / f'a{suffix}'
  Image.fromarray(np.array([[0, highest], [highest, 0]], dtype)).save(path)
  mask = read_mask(path)
  assert mask.dtype == np.uint8
  assert mask.tolist() == [[0, 1], [1, 0]]
  Image.fromarray(np.full((2, 2), highest, dtype)).save(path)
  assert read_mask(path).all()


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'BMP'])
@pytest.mark.parametrize('lesion', ['few', 'many', 'none', 'all'])
def test_binary_masks_of_two_grey_colours_are_those_that_one_sees(tmp_path, kind, lesion):
  """Pillow numbers the colours by how often they occur; white may be 0, or the only one."""
  expected = np.full((20, 30), lesion in ('many', 'all'))
  expected[3:9, 4:12] = lesion in ('few', 'all')
  grey = Image.fromarray(expected.astype(np.uint8) * 255)
  for palette in (
    grey.quantize(2),
    grey.convert('P', palette=Image.Palette.ADAPTIVE, colors=2),
    grey.point(lambda value: 3 + value * 250 // 255).quantize(2)
    if lesion in ('few', 'many')
    else grey.quantize(2),
  ):
    palette.save(tmp_path / 'a', kind)
    np.testing.assert_array_equal(read_mask(tmp_path / 'a'), expected)


@pytest.mark.parametrize(
  ('colours', 'expected'),
  [
    ([(0, 0, 0), (128, 0, 0)], [0, 1]),  # As of Pascal VOC.
    ([(128, 0, 0), (0, 0, 0)], [1, 0]),
    (
      [(255, 255, 255), (0, 0, 255)],
      [0, 1],
    ),  # Neither is black, nor are both grey: the indices count.
    ([(0, 255, 0), (255, 0, 0)], [0, 1]),
    ([(0, 0, 0), (0, 0, 0)], [0, 1]),
    ([(40, 40, 40), (200, 200, 200)], [0, 1]),
    ([(200, 200, 200), (40, 40, 40)], [1, 0]),
  ],
)
def test_binary_masks_of_other_palettes(tmp_path, colours, expected):
  picture = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
  picture.putpalette([value for colour in colours for value in colour])
  picture.save(tmp_path / 'a.png')
  assert read_mask(tmp_path / 'a.png').tolist() == [expected]
  assert read_mask(tmp_path / 'a.png', ('lesion',)).tolist() == [[0, 1]]


@pytest.mark.parametrize(
  ('colours', 'index', 'expected'),
  [
    (
      [(255, 255, 255), (0, 0, 255)],
      0,
      0,
    ),  # The background of a mask that others in its folder show in blue.
    ([(255, 255, 255), (0, 0, 0)], 1, 0),
    ([(0, 0, 0), (0, 0, 0)], 1, 1),
    ([(0, 0, 0), (9, 9, 9)], 1, 1),
  ],
)
def test_binary_palette_masks_of_one_colour(tmp_path, colours, index, expected):
  picture = Image.fromarray(np.full((2, 2), index, np.uint8)).convert('P')
  picture.putpalette([value for colour in colours for value in colour])
  picture.save(tmp_path / 'a.png')
  assert (read_mask(tmp_path / 'a.png') == expected).all()


def test_values_of_a_palette_mask_that_are_not_0_and_1_are_refused_by_index(tmp_path):
  Image.fromarray(np.array([[0, 2]], np.uint8)).convert('P').save(tmp_path / 'a.png')
  with pytest.raises(UnsupportedImage, match='is not binary: its values are 0, 2;'):
    read_mask(tmp_path / 'a.png')


def test_class_masks_count_by_index_whatever_the_palette(tmp_path):
  indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert('P')
  indices.putpalette([255, 255, 255, 9, 9, 9, 0, 0, 0] + [0] * 759)
  indices.save(tmp_path / 'p.png')
  for path in (tmp_path / 'p.png', save_mask(tmp_path / 'l.png', [[0, 1], [2, 1]])):
    assert read_mask(path, ('lesion', 'hair')).tolist() == [[0, 1], [2, 1]]


def test_a_value_without_a_class_is_refused(tmp_path):
  path = save_mask(tmp_path / 'a.png', [[0, 1], [2, 3]])
  with pytest.raises(
    UnsupportedImage,
    match=r'/a\.png holds the value 3, but config\.data\.mask_classes names 2 .*; name every '
    r'class, or',
  ):
    read_mask(path, ('lesion', 'hair'))
  with pytest.raises(
    UnsupportedImage,
    match=r'is not binary: its values are 0, 1, 2, 3; .* name classes, .* in '
    r'config\.data\.mask_classes',
  ):
    read_mask(path)


# Damage and attack.


def png_that_claims(width, height):
  """A PNG of a few bytes whose header promises a large image."""

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(bytes(100)))
    + chunk(b'IEND', b'')
  )


@pytest.mark.parametrize('side', [9500, 14000, 60000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(tmp_path, side):
  (tmp_path / 'a.png').write_bytes(png_that_claims(side, side))
  for reader in (lambda path: read(path, 3), read_mask):
    with pytest.raises(
      UnsupportedImage, match=r'/a\.png claims to hold more than 89478485 pixels, .*; scale it down'
    ):
      reader(tmp_path / 'a.png')


@pytest.mark.parametrize(
  'content', [b'', b'\0' * 50, b'GIF89a' + bytes(20), b'%!PS-Adobe-3.0 EPSF-3.0\n']
)
def test_other_contents_are_unreadable(tmp_path, content):
  (tmp_path / 'a.png').write_bytes(content)
  with pytest.raises(Unreadable, match=f'^{re.escape(tmp_path.name)}/a.png$'):
    read(tmp_path / 'a.png', 3)


def test_formats_that_were_not_asked_for_are_not_opened(tmp_path):
  """Pillow reads GIF and PPM too, and would start Ghostscript for EPS."""
  for kind in ('GIF', 'PPM', 'EPS'):
    stream = io.BytesIO()
    Image.fromarray(colours()).save(stream, kind)
    (tmp_path / 'a.png').write_bytes(stream.getvalue())
    with pytest.raises(Unreadable):
      read(tmp_path / 'a.png', 3)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.bmp', '.webp'])
def test_truncated_files_are_unreadable(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  Image.fromarray(colours(100, 100)).save(path)
  whole = path.read_bytes()
  for share in (0.1, 0.5, 0.9):
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Unreadable):
      read(path, 3)


def test_names_are_shown_in_one_line(tmp_path):
  assert shown(tmp_path / 'images' / 'a\nb\x1b[31m.png') == 'images/a\\nb\\x1b[31m.png'
