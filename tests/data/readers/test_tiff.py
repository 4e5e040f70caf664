"""TIFF: the right numbers at every depth, or a line that says why not."""

import itertools
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ahm_jax.data.readers import dispatch, raster
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage, decoding
from tests.data.readers import tiffs

BOTH_ORDERS = '<>'
LAYOUTS = [
  {},
  {'rows': 7},
  {'tile': 16},
  {'compression': tiffs.DEFLATE},
  {'compression': tiffs.DEFLATE, 'tile': 16},
  {'compression': tiffs.PACKBITS, 'rows': 7},
  {'compression': tiffs.DEFLATE, 'predictor': 2},
  {'compression': tiffs.DEFLATE, 'predictor': 3},
]
# (type, bits, white is 0): the byte orders that are read.
READ = {
  **{(np.uint8, bits, white): BOTH_ORDERS for bits in (1, 2, 4, 8) for white in (False, True)},
  (np.uint16, 12, False): '<',
  (np.uint16, 16, False): BOTH_ORDERS,
  (np.uint16, 16, True): '<',
  (np.uint32, 32, False): '<',
  **{(kind, 0, False): BOTH_ORDERS for kind in (np.int8, np.int16, np.int32, np.float32)},
}
KINDS = [
  *((np.uint8, bits) for bits in (1, 2, 4, 8)),
  *((np.uint16, bits) for bits in (12, 16)),
  (np.uint32, 32),
  *((kind, 0) for kind in (np.uint64, np.int8, np.int16, np.int32, np.int64)),
  *((kind, 0) for kind in (np.float16, np.float32, np.float64)),
]


def drawn(kind, bits, *shape):
  """Numbers over the whole range of a type."""
  rng = np.random.default_rng(0)
  if np.issubdtype(kind, np.floating):
    return (1000 * rng.standard_normal(shape)).astype(kind)
  info = np.iinfo(kind)
  highest = 2**bits - 1 if bits else int(info.max)
  values = rng.integers(info.min, highest, shape, kind, endpoint=True)
  values.flat[:2] = info.min, highest
  return values


def numbers(path):
  with decoding(path):
    return raster.read_labels(path, by_colour=False)


def layouts(kind, bits):
  for layout in LAYOUTS:
    is_float = np.issubdtype(kind, np.floating)
    if layout.get('predictor', 1) == 1 or (
      bits not in (1, 2, 4, 12) and layout['predictor'] == (3 if is_float else 2)
    ):
      yield layout


@pytest.mark.parametrize('order', BOTH_ORDERS)
@pytest.mark.parametrize('white_is_0', [False, True])
@pytest.mark.parametrize(('kind', 'bits'), KINDS)
def test_grey_of_every_depth_has_its_numbers_or_is_refused(tmp_path, kind, bits, white_is_0, order):
  path = tmp_path / 'a.tif'
  values = drawn(kind, bits, 20, 24)
  expected = values
  if bits:
    expected = (2**bits - 1 - values) if white_is_0 else values
    expected = expected * (255 // (2**bits - 1)) if 1 < bits < 8 else expected
  is_read = order in READ.get((kind, bits, white_is_0), '')
  for layout in layouts(kind, bits):
    path.write_bytes(tiffs.encoded(values, order, int(not white_is_0), bits, **layout))
    if is_read:
      np.testing.assert_array_equal(numbers(path), expected, str(layout))
      continue
    for read in (numbers, lambda path: dispatch.read_slices(path, 3)):
      with pytest.raises(
        UnsupportedImage,
        match=rf'/a\.tif holds TIFF of {bits or 8 * values.itemsize} bit '
        r'(unsigned|signed|float).*, which is not read; save it as TIFF of 8 or 16 bit integers',
      ):
        read(path)


@pytest.mark.parametrize(
  ('kind', 'bits', 'white_is_0'), [key for key in READ if key[1] not in (1, 2, 4, 8)]
)
def test_grey_of_many_bits_is_stretched_and_black_is_dark(tmp_path, kind, bits, white_is_0):
  path = tmp_path / 'a.tif'
  highest = 2**bits - 1 if bits else 100
  values = np.linspace(0 if bits else -100, highest, 480).reshape(20, 24).astype(kind)
  path.write_bytes(tiffs.encoded(values, '<', int(not white_is_0), bits))
  pixels = dispatch.read_slices(path, 1)[0][1].pixels[..., 0].astype(int)
  pixels = pixels[::-1, ::-1] if white_is_0 else pixels
  assert pixels.flat[0] == 0 and pixels.flat[-1] == 255 and (np.diff(pixels.ravel()) >= 0).all()


def test_a_window_counts_in_the_numbers_of_the_file(tmp_path):
  values = np.array([[2**31 - 100, 2**31, 2**31 + 100, 2**32 - 1]], np.uint32)
  (tmp_path / 'a.tif').write_bytes(tiffs.encoded(values))
  ((_, picture),) = dispatch.read_slices(tmp_path / 'a.tif', 1, window=(2**31, 200))
  assert picture.pixels[..., 0].tolist() == [[0, 128, 255, 255]]


@pytest.mark.parametrize('order', BOTH_ORDERS)
@pytest.mark.parametrize('kind', [np.int8, np.int16, np.int32, np.uint16, np.float32])
def test_masks_of_every_type(tmp_path, kind, order):
  values = np.eye(8).astype(kind) * 2
  for layout in ({}, {'compression': tiffs.DEFLATE}):
    (tmp_path / 'a.tif').write_bytes(tiffs.encoded(values, order, **layout))
    (mask,) = dispatch.read_mask_slices(tmp_path / 'a.tif', ('a', 'b'))
    np.testing.assert_array_equal(mask, values)


# More than one sample a pixel.

SAMPLES = {  # Photometric interpretation, number of samples, tags; what is shown of the samples.
  'RGB': (2, 3, [], lambda x: x),
  'RGB and alpha': (2, 4, [(338, 'H', [2])], lambda x: x[..., :3]),
  'RGB and another': (2, 4, [(338, 'H', [0])], lambda x: x[..., :3]),
  'RGB and two others': (2, 5, [(338, 'H', [0, 0])], lambda x: x[..., :3]),
  'RGB and one unsaid': (2, 4, [], lambda x: x[..., :3]),
  'grey and alpha': (1, 2, [(338, 'H', [2])], lambda x: x[..., [0, 0, 0]]),
  'grey and another': (1, 2, [(338, 'H', [0])], lambda x: x[..., [0, 0, 0]]),
  'grey and two others': (1, 3, [(338, 'H', [0, 0])], lambda x: x[..., [0, 0, 0]]),
  'grey and one unsaid': (1, 2, [], lambda x: x[..., [0, 0, 0]]),
  'white is 0 and alpha': (0, 2, [(338, 'H', [2])], lambda x: 255 - x[..., [0, 0, 0]]),
  'CMYK': (5, 4, [], None),
  'YCbCr': (6, 3, [(530, 'H', [1, 1])], None),
  'Lab': (8, 3, [], None),
}


@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize('name', SAMPLES)
def test_several_samples_are_shown_as_they_are_or_refused(tmp_path, name, kind):
  """None may come out as another picture, as planes of 16 bits did."""
  photometric, samples, tags, show = SAMPLES[name]
  path = tmp_path / 'a.tif'
  values = drawn(kind, 0, 20, 24, samples)
  read = 0
  for order, planar, layout in itertools.product(BOTH_ORDERS, (1, 2), LAYOUTS[:5]):
    path.write_bytes(tiffs.encoded(values, order, photometric, planar=planar, tags=tags, **layout))
    try:
      pixels = dispatch.read_slices(path, 3)[0][1].pixels
    except UnsupportedImage as error:
      assert 'which is not read; save it as' in str(error)
      continue
    read += 1
    if show and kind != np.uint8 and name.startswith('grey'):
      np.testing.assert_array_equal(numbers(path), values[..., 0])
      continue
    high = (values >> 8).astype(np.uint8) if kind == np.uint16 else values
    expected = show(high) if show else _by_pillow(name, high)
    assert np.abs(pixels.astype(int) - expected).max() <= (name == 'YCbCr'), (order, planar, layout)
  if kind == np.uint8:
    assert (read == 0) == (name in ('grey and one unsaid', 'white is 0 and alpha'))
  if kind == np.uint16 and name in ('RGB', 'RGB and alpha', 'RGB and another', 'CMYK'):
    assert read


def _by_pillow(name, values):
  image = Image.frombytes(name.replace('Lab', 'LAB'), (24, 20), values.tobytes())
  return np.asarray(image.convert('RGB'))


def test_colours_stored_by_halves_without_compression_are_refused(tmp_path):
  """Pillow would take four values of brightness and two of colour for two pixels."""
  content = tiffs.encoded(np.zeros((8, 8, 3), np.uint8), photometric=6, tags=[(530, 'H', [2, 2])])
  (tmp_path / 'a.tif').write_bytes(content)
  with pytest.raises(UnsupportedImage, match='photometric interpretation 6'):
    dispatch.read_slices(tmp_path / 'a.tif', 3)


@pytest.mark.parametrize('scale', [1, 257])
def test_colour_maps_of_8_bits_are_not_black(tmp_path, scale):
  colours = np.random.default_rng(0).integers(0, 256, (3, 256))
  values = drawn(np.uint8, 8, 20, 24)
  tags = [(320, 'H', (colours * scale).ravel().tolist())]
  (tmp_path / 'a.tif').write_bytes(tiffs.encoded(values, photometric=3, tags=tags))
  pixels = dispatch.read_slices(tmp_path / 'a.tif', 3)[0][1].pixels
  np.testing.assert_array_equal(pixels, colours.T[values])


# Headers.


@pytest.mark.parametrize(
  ('number', 'words'), [(34712, 'compression 34712'), (50002, 'compression 50002')]
)
def test_a_compression_that_is_not_known_is_named(tmp_path, number, words):
  content = tiffs.encoded(drawn(np.uint8, 8, 20, 24), tags=[(259, 'H', [number])])
  (tmp_path / 'a.tif').write_bytes(content)
  with pytest.raises(UnsupportedImage, match=words):
    dispatch.read_slices(tmp_path / 'a.tif', 3)


def test_big_endian_bigtiff_is_refused_by_name(tmp_path):
  (tmp_path / 'a.tif').write_bytes(b'MM' + struct.pack('>HHHQQ', 43, 8, 0, 16, 0) + bytes(50))
  with pytest.raises(UnsupportedImage, match='holds TIFF of big-endian 64 bit offsets'):
    dispatch.read_slices(tmp_path / 'a.tif', 3)


@pytest.mark.parametrize('number', [258, 273, 279, 339])
def test_a_decisive_tag_out_of_reach_is_damage(tmp_path, number):
  """Pillow would go on without it, as if it were not there: floats as integers."""
  content = bytearray(tiffs.encoded(np.ones((20, 24, 3), np.uint8), photometric=2, rows=7))
  place = content.index(struct.pack('<H', number), 10)
  content[place + 8 : place + 12] = b'\xf0\xff\xff\x7f'
  (tmp_path / 'a.tif').write_bytes(content)
  with pytest.raises(Unreadable):
    dispatch.read_slices(tmp_path / 'a.tif', 3)


def test_a_directory_that_is_cut_is_damage(tmp_path):
  values = drawn(np.float32, 0, 20, 24)
  content = tiffs.encoded(values)
  directory = content[8 : 8 + 2 + 12 * 12 + 4]
  moved = struct.pack('<2sHI', b'II', 42, len(content)) + content[8:] + directory
  for cut in range(5, len(directory)):
    (tmp_path / 'a.tif').write_bytes(moved[: len(moved) - cut])
    with pytest.raises(Unreadable):
      dispatch.read_slices(tmp_path / 'a.tif', 3)


def test_a_directory_of_more_tags_than_memory_holds_is_damage(tmp_path):
  head = struct.pack('<2sHHHQQ', b'II', 43, 8, 0, 16, 2**40)
  (tmp_path / 'a.tif').write_bytes(head + bytes(400))
  with pytest.raises(Unreadable):
    dispatch.read_slices(tmp_path / 'a.tif', 3)


@pytest.mark.parametrize('number', [338, 320, 530])
def test_a_tag_without_values_is_none(tmp_path, number):
  values = drawn(np.uint8, 8, 20, 24)
  (tmp_path / 'a.tif').write_bytes(tiffs.encoded(values, tags=[(number, 'H', [])]))
  np.testing.assert_array_equal(numbers(tmp_path / 'a.tif'), values)


TURNS = {
  **{1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud},
  **{5: np.transpose, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90},
}


@pytest.mark.parametrize('orientation', TURNS)
def test_plain_files_are_turned_by_their_orientation(tmp_path, orientation):
  """Pillow maps them into memory where it is given a path."""
  values = np.arange(8 * 13, dtype=np.uint8).reshape(8, 13)
  Image.fromarray(values).save(tmp_path / 'a.tif', tiffinfo={0x112: orientation})
  ((_, picture),) = dispatch.read_slices(tmp_path / 'a.tif', 1)
  np.testing.assert_array_equal(picture.pixels[..., 0], TURNS[orientation](values))
  assert picture.size == TURNS[orientation](values).shape


@pytest.mark.parametrize('samples', [2, 4])
def test_colours_that_are_multiplied_by_alpha_are_divided_again(tmp_path, samples):
  """As GIMP writes grey and colour with alpha."""
  grey = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
  alpha = np.full((8, 8), 128, np.uint8)
  (tmp_path / 'a.tif').write_bytes(
    tiffs.encoded(
      np.dstack([*[grey] * (samples - 1), alpha]),
      photometric=1 if samples == 2 else 2,
      tags=[(338, 'H', [1])],
    )
  )
  ((_, picture),) = dispatch.read_slices(tmp_path / 'a.tif', 1)
  np.testing.assert_allclose(picture.pixels[..., 0], grey * (255 / 128), atol=1)


# Pillow.


@pytest.mark.parametrize(('big', 'codec'), [(False, 'libtiff'), (True, 'raw')])
def test_pillow_has_the_private_parts_that_are_used(tmp_path, big, codec):
  """Else a file would be called damaged, or be read as Pillow reads it: wrongly."""
  gone = "Pillow's {} is gone, or means another thing; mend data/readers/{}, then pyproject.toml"
  how = {'big_tiff': True} if big else {'compression': 'tiff_lzw'}
  Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / 'a.tif', tiffinfo={0x112: 6}, **how)
  with Image.open(tmp_path / 'a.tif') as picture:
    tags, (tile,) = picture.tag_v2, picture.tile
    for place, owner, name, expected in (
      ('tiff.py', picture, '_frame_pos', [getattr(tags, '_offset', 'gone')]),
      ('tiff.py', picture, '_tile_size', (5, 4)),
      ('tiff_pages.py', tags, '_bigtiff', big),
      ('tiff_pages.py', tags, '_endian', '<'),
      ('tiff.py', tile, 'codec_name', codec),
      ('raster.py', picture, 'size', (4, 5)),  # As it will be turned.
    ):
      found = getattr(owner, name, 'gone')
      assert found == expected, gone.format(f'{type(owner).__name__}.{name}', place)
    assert tile._replace(args=()).args == () and tile.args[0] == 'L', gone.format(
      '_Tile', 'tiff.py'
    )
    picture.filename = ''  # As in `raster`.
    picture.load()
    assert picture.size == (4, 5), gone.format('turning of a TIFF as it is loaded', 'raster.py')


@pytest.mark.parametrize(
  'name', ['COMPRESSION_INFO', 'OPEN_INFO', 'ImageFileDirectory_v2', 'SAMPLEFORMAT']
)
def test_pillow_has_the_tables_that_are_used(name):
  assert hasattr(TiffImagePlugin, name), (
    f'TiffImagePlugin.{name} is gone: mend data/readers/tiff.py'
  )


# Pages.

FULL = drawn(np.uint8, 8, 20, 24)
SMALL = drawn(np.uint8, 8, 5, 6)[::-1]
PREVIEWS = {  # Tags of a page that is a reduced image, or a part of another page.
  'reduced': [(254, 'I', [1])],
  'reduced, as a short number': [(254, 'H', [1])],
  'one of several reduced pages': [(254, 'I', [3])],
  'macro of a slide': [(254, 'I', [9])],
  'reduced, by the old tag': [(255, 'H', [2])],
  'transparency': [(254, 'I', [4])],
  'transparency of a reduced image': [(254, 'I', [5])],
}
IMAGES = {  # Those of a page that is an image by itself.
  'unsaid': [],
  'full': [(254, 'I', [0])],
  'one of several pages': [(254, 'I', [2])],
  'full, by the old tag': [(255, 'H', [1])],
  'full, with reduced ones below': [(254, 'I', [0]), (330, 'I', [8])],
}


def page(values, tags=(), **options):
  return {'values': values, 'tags': tags, **options}


def written(path, *pages, order='<'):
  path.write_bytes(tiffs.stacked(*pages, order=order))
  return path


@pytest.mark.parametrize('order', BOTH_ORDERS)
@pytest.mark.parametrize('own', IMAGES)
@pytest.mark.parametrize('name', PREVIEWS)
def test_a_preview_is_not_taken_for_the_image(tmp_path, name, own, order):
  for compression in (tiffs.RAW, tiffs.DEFLATE):
    preview = page(SMALL, PREVIEWS[name], compression=compression)
    whole = page(FULL, IMAGES[own], compression=compression)
    other = page(255 - FULL, IMAGES[own])
    for pages, count in (
      ((preview, whole), 1),
      ((preview, preview, whole), 1),
      ((whole, preview), 1),
      ((preview, whole, other, preview), 2),
      ((whole, other), 2),
    ):
      path = written(tmp_path / 'a.tif', *pages, order=order)
      ((_, picture),) = dispatch.read_slices(path, 1)
      np.testing.assert_array_equal(picture.pixels[..., 0], FULL)
      assert picture.size == FULL.shape
      np.testing.assert_array_equal(numbers(path), FULL)
      assert raster.describe(path) == ('grey, 8 bit', count)


@pytest.mark.parametrize('orientation', [1, 6])
@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.int8, np.float32])
def test_the_image_is_read_by_its_own_page_alone(tmp_path, kind, orientation):
  """Palette, depth, colours and orientation are those of the page that counts."""
  values = drawn(kind, 0, 20, 24)
  preview = page(
    SMALL,
    [*PREVIEWS['reduced'], (320, 'H', list(range(768))), (274, 'H', [3])],
    photometric=3,
    compression=tiffs.DEFLATE,
  )
  whole = page(values, [(274, 'H', [orientation])])
  (tmp_path / 'b.tif').write_bytes(tiffs.encoded(**whole))
  path = written(tmp_path / 'a.tif', preview, whole)
  np.testing.assert_array_equal(numbers(path), np.rot90(values, -1 if orientation == 6 else 0))
  ((_, found),) = dispatch.read_slices(path, 3)
  ((_, expected),) = dispatch.read_slices(tmp_path / 'b.tif', 3)
  np.testing.assert_array_equal(found.pixels, expected.pixels)
  assert (found.size, found.orientation) == (expected.size, orientation)
  assert raster.orientation(path) == orientation


def test_a_mask_is_read_from_the_page_that_is_no_preview(tmp_path):
  mask = np.eye(20, 24, dtype=np.uint8)
  path = written(tmp_path / 'a.tif', page(1 - mask, PREVIEWS['reduced']), page(mask))
  np.testing.assert_array_equal(dispatch.read_mask_slices(path)[0], mask)


@pytest.mark.parametrize('name', PREVIEWS)
def test_a_page_that_is_the_only_one_counts_whatever_it_says(tmp_path, name):
  (tmp_path / 'a.tif').write_bytes(tiffs.encoded(FULL, tags=PREVIEWS[name]))
  np.testing.assert_array_equal(numbers(tmp_path / 'a.tif'), FULL)
  assert raster.describe(tmp_path / 'a.tif') == ('grey, 8 bit', 1)


@pytest.mark.parametrize(
  ('pages', 'words'),
  [
    ([page(SMALL, PREVIEWS['reduced'])] * 3, 'each of the pages 1 to 3 is a reduced image'),
    (
      [page(SMALL, [*PREVIEWS['reduced'], (330, 'I', [8])])],  # As raw files of cameras.
      r'the only page is a reduced image .* and the image lies below it \(SubIFD\)',
    ),
  ],
)
def test_previews_without_an_image_are_refused(tmp_path, pages, words):
  path = written(tmp_path / 'a.tif', *pages)
  for read in (numbers, lambda path: dispatch.read_slices(path, 3)):
    with pytest.raises(UnsupportedImage, match=rf'/a\.tif holds TIFF of which {words}.*; save the'):
      read(path)


def test_an_image_behind_its_preview_is_refused_by_its_own_kind(tmp_path):
  preview = page(SMALL, PREVIEWS['reduced'])
  path = written(tmp_path / 'a.tif', preview, page(drawn(np.float64, 0, 20, 24)))
  with pytest.raises(UnsupportedImage, match='holds TIFF of 64 bit float'):
    numbers(path)
  path = written(tmp_path / 'a.tif', preview, page(FULL, [(259, 'H', [34712])]))
  with pytest.raises(UnsupportedImage, match='compression 34712'):
    numbers(path)


@pytest.mark.parametrize('lost', [1, 100, 480, 481, 500, 640])
def test_an_image_behind_its_preview_that_is_cut_is_damage(tmp_path, lost):
  path = written(tmp_path / 'a.tif', page(SMALL, PREVIEWS['reduced']), page(FULL))
  path.write_bytes(path.read_bytes()[:-lost])
  with pytest.raises(Unreadable):
    numbers(path)


def test_a_bomb_behind_a_preview_is_refused(tmp_path):
  bomb = [(256, 'I', [60000]), (257, 'I', [60000])]
  path = written(tmp_path / 'a.tif', page(SMALL, PREVIEWS['reduced']), page(FULL, bomb))
  with pytest.raises(UnsupportedImage, match='claims to hold more than'):
    numbers(path)


def test_pages_in_a_circle_end(tmp_path):
  content = bytearray(tiffs.encoded(FULL, tags=PREVIEWS['reduced']))
  (count,) = struct.unpack_from('<H', content, 8)
  struct.pack_into('<I', content, 8 + 2 + 12 * count, 8)
  (tmp_path / 'a.tif').write_bytes(content)
  np.testing.assert_array_equal(numbers(tmp_path / 'a.tif'), FULL)


def test_pages_of_a_bigtiff(tmp_path):
  preview, whole = Image.fromarray(SMALL), Image.fromarray(FULL)
  preview.save(
    tmp_path / 'a.tif', big_tiff=True, save_all=True, append_images=[whole], tiffinfo={254: 7}
  )
  content = bytearray((tmp_path / 'a.tif').read_bytes())
  said = struct.pack('<HHQ', 254, 4, 1)
  places = [i for i in range(len(content)) if content.startswith(said, i)]
  assert len(places) == 2
  for place, value in zip(places, (1, 0), strict=True):
    struct.pack_into('<I', content, place + len(said), value)
  (tmp_path / 'a.tif').write_bytes(content)
  np.testing.assert_array_equal(numbers(tmp_path / 'a.tif'), FULL)
  assert raster.describe(tmp_path / 'a.tif') == ('grey, 8 bit', 1)


def test_the_second_picture_of_a_jpeg_is_its_preview(tmp_path):
  whole, preview = (np.full((h, h, 3), v, np.uint8) for h, v in ((16, 200), (8, 10)))
  Image.fromarray(whole).save(
    tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=[Image.fromarray(preview)]
  )
  ((_, picture),) = dispatch.read_slices(tmp_path / 'a.jpg', 3)
  np.testing.assert_array_equal(picture.pixels, whole)
  assert raster.describe(tmp_path / 'a.jpg') == ('colour, 8 bit', 1)
