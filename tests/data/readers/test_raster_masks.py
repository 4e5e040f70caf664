"""Masks that are drawn in colours of one kind or in their alpha channel."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import UnsupportedImage
from tests.data.readers import tiffs

SHAPE = np.zeros((20, 30), bool)
SHAPE[3:9, 4:12] = True
NONE = np.zeros_like(SHAPE)
KINDS = ['PNG', 'TIFF', 'WEBP']


def read(path, classes=()):
  (mask,) = dispatch.read_mask_slices(path, classes)
  return mask


def layered(mode, colour, alpha):
  """An image of `mode` whose colours are all `colour`, [H, W]."""
  colours = [np.asarray(colour, np.uint8)] * (len(mode) - 1)
  image = Image.fromarray(np.dstack([*colours, np.asarray(alpha, np.uint8)]))
  assert image.mode == mode.replace('P', 'L')
  return image


def with_palette(indices, colours, transparency):
  image = Image.fromarray(indices.astype(np.uint8)).convert('P')
  image.putpalette([value for colour in colours for value in colour])
  image.info['transparency'] = transparency
  return image


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
@pytest.mark.parametrize('colour', [0, 1, 77, 255])
@pytest.mark.parametrize('shape', [SHAPE, ~SHAPE, NONE], ids=['shape', 'rest', 'none'])
def test_a_mask_of_one_colour_is_drawn_in_its_alpha(tmp_path, kind, mode, colour, shape):
  layered(mode, np.full(shape.shape, colour), shape * 255).save(
    tmp_path / 'a', kind, **({'lossless': True, 'exact': True} if kind == 'WEBP' else {})
  )
  np.testing.assert_array_equal(read(tmp_path / 'a'), shape)


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
@pytest.mark.parametrize(
  'alpha', [np.full(SHAPE.shape, 255), SHAPE * 255, SHAPE * 0, SHAPE * 100 + 50]
)
def test_colours_count_where_they_differ_and_alpha_does_not_contradict(tmp_path, mode, alpha):
  layered(mode, SHAPE * 255, alpha).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png'), SHAPE)
  layered(mode, SHAPE * 2, alpha).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png', ('a', 'b')), SHAPE * 2)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
@pytest.mark.parametrize('opaque', [SHAPE, ~SHAPE])
def test_a_dark_shape_on_a_transparent_light_ground_is_refused(tmp_path, mode, opaque):
  """Its values say the ground, its alpha the shape."""
  if mode == 'P':
    image = with_palette(opaque, [(255, 255, 255), (0, 0, 0)], 0)
  else:
    image = layered(mode, ~opaque * 255, opaque * 255)
  image.save(tmp_path / 'a.png')
  with pytest.raises(UnsupportedImage, match='lesion by its values where its alpha channel is'):
    read(tmp_path / 'a.png')
  values = np.asarray(image)[..., 0] // 127 if mode != 'P' else opaque
  layered('LA', values, opaque * 255).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png', ('a', 'b')), values)  # Indices count.


@pytest.mark.parametrize('colour', [0, 1, 255])
@pytest.mark.parametrize('alpha', [1, 128, 255])
def test_one_colour_that_is_equally_opaque_is_that_of_the_mask(tmp_path, colour, alpha):
  layered('LA', NONE + colour, NONE + alpha).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png'), NONE + (colour > 0))


def test_soft_edges_in_the_alpha_channel_are_refused_with_the_reason(tmp_path):
  alpha = SHAPE * 255
  alpha[5] //= 2
  layered('RGBA', NONE, alpha).save(tmp_path / 'a.png')
  with pytest.raises(
    UnsupportedImage,
    match=r'/a\.png is of one colour, with its shape in the alpha channel, whose values are 0, '
    r'127, 255; save it as grey of 0 and 255, without alpha',
  ):
    read(tmp_path / 'a.png')


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_alpha_tells_no_classes(tmp_path, mode):
  layered(mode, NONE + 1, SHAPE * 255).save(tmp_path / 'a.tif')
  with pytest.raises(UnsupportedImage, match=r'alpha channel, which tells no classes; save it as'):
    read(tmp_path / 'a.tif', ('lesion',))


@pytest.mark.parametrize(
  ('colours', 'transparency', 'expected'),
  [
    ([(9, 9, 9), (9, 9, 9)], b'\0\xff', SHAPE),
    ([(9, 9, 9), (9, 9, 9)], b'\xff\0', ~SHAPE),
    ([(9, 9, 9), (9, 9, 9)], b'\0', SHAPE),
    ([(0, 0, 0), (0, 0, 0)], 0, SHAPE),
    ([(0, 0, 0), (0, 0, 0)], 1, ~SHAPE),
    ([(255, 255, 255), (0, 0, 0)], b'\xff\0', ~SHAPE),  # Colours that differ count.
    ([(0, 0, 0), (255, 255, 255)], b'\0\xff', SHAPE),
    ([(0, 0, 0), (0, 0, 0)], b'\x80\x80', SHAPE),  # Neither tells: indices.
  ],
)
def test_palettes_of_one_colour_with_transparency(tmp_path, colours, transparency, expected):
  image = with_palette(SHAPE, colours, transparency)
  image.save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read(tmp_path / 'a.png'), expected)
  np.testing.assert_array_equal(read(tmp_path / 'a.png', ('lesion',)), SHAPE)  # By index.


@pytest.mark.parametrize('colour', [0, 255])
def test_a_palette_mask_that_is_wholly_transparent_is_background(tmp_path, colour):
  with_palette(NONE, [(colour,) * 3, (colour,) * 3], b'\0').save(tmp_path / 'a.png')
  assert not read(tmp_path / 'a.png').any()


@pytest.mark.parametrize(
  ('colours', 'expected'),
  [([0] * 3 * 256, SHAPE), ([255] * 3 * 256, SHAPE), ([255, 0] + [0] * 766, ~SHAPE)],
)
def test_palettes_with_an_alpha_channel(tmp_path, colours, expected):
  """TIFF of two samples; the third one has colours that differ, which count."""
  values = np.dstack([SHAPE, expected * 255]).astype(np.uint8)
  colours = [value * 257 for value in np.reshape(colours, (256, 3)).T.ravel().tolist()]
  if expected is not SHAPE:  # White is 0.
    colours = [65535, *([0] * 255)] * 3
  (tmp_path / 'a.tif').write_bytes(
    tiffs.encoded(values, photometric=3, tags=[(338, 'H', [2]), (320, 'H', colours)])
  )
  np.testing.assert_array_equal(read(tmp_path / 'a.tif'), expected)


@pytest.mark.parametrize('premultiplied', [1, 2])
@pytest.mark.parametrize('photometric', [1, 2])
@pytest.mark.parametrize('colour', [0, 255])
def test_alpha_of_a_tiff_may_be_multiplied_into_its_colours(
  tmp_path, premultiplied, photometric, colour
):
  colours = [SHAPE * colour if premultiplied == 1 else NONE + colour] * (photometric * 2 - 1)
  values = np.dstack([*colours, SHAPE * 255]).astype(np.uint8)
  (tmp_path / 'a.tif').write_bytes(
    tiffs.encoded(values, photometric=photometric, tags=[(338, 'H', [premultiplied])])
  )
  np.testing.assert_array_equal(read(tmp_path / 'a.tif'), SHAPE)


# 16 bits a channel, and inks.


def deep_png(values):
  """A PNG of 16 bits a channel, which Pillow does not write: uint16 [H, W, channels]."""
  height, width, channels = values.shape
  kind = {2: 4, 3: 2, 4: 6}[channels]
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
  out = io.BytesIO(b'\x89PNG\r\n\x1a\n')
  out.seek(0, io.SEEK_END)
  for name, data in (
    (b'IHDR', struct.pack('>IIBBBBB', width, height, 16, kind, 0, 0, 0)),
    (b'IDAT', zlib.compress(rows)),
    (b'IEND', b''),
  ):
    out.write(struct.pack('>I', len(data)) + name + data)
    out.write(struct.pack('>I', zlib.crc32(name + data)))
  return out.getvalue()


@pytest.mark.parametrize('channels', [2, 3, 4])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_deep_colour_masks_count_only_where_their_high_bytes_tell_all(tmp_path, channels, kind):
  """A mask of 0 and 1, or of classes, came out empty."""
  if (channels, kind) == (2, 'TIFF'):
    pytest.skip('Pillow does not read it')

  def save(colour):
    colours = [colour] * (channels - 1 + channels % 2)
    values = np.dstack(colours if channels == 3 else [*colours, NONE + 65535]).astype(np.uint16)
    tags = [(338, 'H', [2])] if channels == 4 else []
    data = deep_png(values) if kind == 'PNG' else tiffs.encoded(values, photometric=2, tags=tags)
    (tmp_path / 'a').write_bytes(data)
    return tmp_path / 'a'

  np.testing.assert_array_equal(read(save(SHAPE * 65535)), SHAPE)
  for colour, classes in ((SHAPE * 1, ()), (SHAPE * 2, ('a', 'b')), (SHAPE * 258, ('a', 'b'))):
    with pytest.raises(UnsupportedImage, match=r'has 16 bits a channel, .*; save it as grey'):
      read(save(colour), classes)


def test_inks_are_colours(tmp_path):
  """Their 0 is white."""
  for values in (NONE, NONE + 255):
    Image.fromarray(np.dstack([values] * 4).astype(np.uint8), 'CMYK').save(tmp_path / 'a.tif')
    with pytest.raises(UnsupportedImage, match='is a colour image'):
      read(tmp_path / 'a.tif')
