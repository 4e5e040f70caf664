"""JPEG files that lack only the marker of their end are read; those that lack more are damaged."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from ahm_jax.data.readers import dispatch, raster
from ahm_jax.data.readers.base import Held, Unreadable

SMALL = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
IMAGES = {
  'smooth': Image.fromarray(SMALL).resize((65, 49)),
  'noise': Image.fromarray(np.random.default_rng(1).integers(0, 256, (49, 65, 3), np.uint8)),
  'white': Image.new('RGB', (65, 49), 'white'),
  'white below': Image.new('RGB', (65, 99), 'white'),
  'black': Image.new('RGB', (17, 33)),
  'one pixel': Image.new('RGB', (1, 1), (9, 80, 7)),
  'grey': Image.fromarray(SMALL[..., 0]).resize((40, 40)),
  'CMYK': Image.fromarray(SMALL).resize((33, 20)).convert('CMYK'),
}
IMAGES['white below'].paste(IMAGES['smooth'])
OPTIONS = {
  'plain': {},
  'best': {'quality': 100, 'subsampling': 0},
  'optimized': {'optimize': True},
  'restarts of rows': {'restart_marker_rows': 1},
  'restarts of blocks': {'restart_marker_blocks': 1},
  'progressive': {'progressive': True, 'quality': 95},
}
END = b'\xff\xd9'


def encoded(name='smooth', **options):
  stream = io.BytesIO()
  IMAGES[name].save(stream, 'JPEG', **options)
  whole = stream.getvalue()
  assert whole.endswith(END)
  return whole


def scans(whole):
  """Where the headers of the scans begin; nothing before them looks like one."""
  return [place for place in range(len(whole)) if whole.startswith(b'\xff\xda\0', place)]


def pixels(path, channels=3, **options):
  return dispatch.read_slices(path, channels, **options)[0][1].pixels


@pytest.mark.parametrize('option', OPTIONS)
@pytest.mark.parametrize('name', IMAGES)
def test_without_its_end_a_jpeg_has_its_pixels(tmp_path, name, option):
  path, whole = tmp_path / 'a.jpg', encoded(name, **OPTIONS[option])
  path.write_bytes(whole)
  expected = pixels(path)
  rests = [b'', b'\xff', b'\0', bytes(999), b'\xff\0\0', b'\xff' * 99]
  if option == 'optimized' and name.startswith('white'):  # Ends in zeros, as if it were padded.
    rests = rests[:2] if name == 'white below' else []
  for rest in rests:
    path.write_bytes(whole[:-2] + rest)
    np.testing.assert_array_equal(pixels(path), expected, str(rest[:2]))


@pytest.mark.parametrize('option', OPTIONS)
@pytest.mark.parametrize('name', ['smooth', 'noise', 'grey', 'CMYK'])
def test_a_jpeg_that_is_cut_stays_damaged(tmp_path, name, option):
  """Also one that lacks a byte of its data, or goes on with zeros, which Pillow takes for image."""
  path, whole = tmp_path / 'a.jpg', encoded(name, **OPTIONS[option])
  start = scans(whole)[0]
  lost = {12, 20, (len(whole) - start) // 3, (len(whole) - start) // 2, len(whole) - start - 20}
  for cut in sorted(lost):
    for rest in (b'', b'\xff', END[:1] * 9, bytes(40), bytes(4096)):
      path.write_bytes(whole[:-cut] + rest)
      with pytest.raises(Unreadable):
        pixels(path)


@pytest.mark.parametrize('name', ['smooth', 'noise'])
def test_every_byte_of_the_last_block_counts(tmp_path, name):
  path = tmp_path / 'a.jpg'
  whole = encoded(name, quality=100, subsampling=0)
  for cut in range(4, 40):
    path.write_bytes(whole[:-cut])
    with pytest.raises(Unreadable):
      pixels(path)


def test_a_jpeg_without_its_last_scans_is_damaged(tmp_path):
  """Each of the others is whole, and what is decoded of them is a blurred image."""
  path, whole = tmp_path / 'a.jpg', encoded('noise', progressive=True)
  for place in scans(whole)[1:]:
    header = whole.rindex(b'\xff\xc4', 0, place)  # Of the codes of this scan.
    for end in (place, header):
      path.write_bytes(whole[:end])
      with pytest.raises(Unreadable):
        pixels(path)


def test_what_follows_the_data_is_not_taken_for_image(tmp_path):
  """Another file's bytes, say, after a disk was repaired."""
  path, whole = tmp_path / 'a.jpg', encoded('noise')
  other = np.random.default_rng(2).integers(0, 256, 9000, np.uint8).tobytes()
  assert END not in other
  for rest in (other, other.replace(b'\xff', b'\1'), other[:200], b'\x55' * 4096, whole[100:-2]):
    for cut in (2, 300, 900):
      path.write_bytes(whole[:-cut] + rest)
      with pytest.raises(Unreadable):
        pixels(path)


def test_a_whole_jpeg_may_be_padded(tmp_path):
  path, whole = tmp_path / 'a.jpg', encoded()
  path.write_bytes(whole)
  expected = pixels(path)
  for rest in (bytes(2), bytes(5000), b'\xff' * 9, b'\0trailer of a camera'):
    path.write_bytes(whole + rest)
    np.testing.assert_array_equal(pixels(path), expected)


def test_without_its_end_a_jpeg_is_turned_shrunk_and_described_as_with_it(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  stream = io.BytesIO()
  IMAGES['smooth'].resize((640, 480)).save(stream, 'JPEG', exif=exif)
  whole = stream.getvalue()
  found = []
  for content in (whole, whole[:-2]):
    (tmp_path / 'a.jpg').write_bytes(content)
    for path in (tmp_path / 'a.jpg', Held(tmp_path / 'b.jpg', lambda content=content: content)):
      ((_, picture),) = dispatch.read_slices(path, 1, at_least=(60, 60))
      found.append((picture.pixels.tolist(), picture.size, picture.orientation))
      assert raster.describe(path) == ('colour, 8 bit', 1)
  assert found == found[:1] * 4
  assert found[0][1:] == ((640, 480), 6) and len(found[0][0]) == 80


def test_a_mask_without_its_end(tmp_path):
  mask = np.zeros((32, 32), np.uint8)
  mask[8:16, 8:24] = 255
  stream = io.BytesIO()
  Image.fromarray(mask).save(stream, 'JPEG', quality=100)
  (tmp_path / 'a.jpg').write_bytes(stream.getvalue()[:-2])
  np.testing.assert_array_equal(dispatch.read_mask_slices(tmp_path / 'a.jpg')[0], mask > 0)


def test_with_broken_metadata_too(tmp_path):
  whole = encoded()
  (tmp_path / 'a.jpg').write_bytes(whole)
  expected = pixels(tmp_path / 'a.jpg')
  (tmp_path / 'a.jpg').write_bytes(whole[:2] + b'\xff\xe0\0\7JFIF\0' + whole[2:-2])
  np.testing.assert_array_equal(pixels(tmp_path / 'a.jpg'), expected)


def test_nothing_is_set_that_other_threads_see(tmp_path, monkeypatch):
  monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', False)
  (tmp_path / 'a.jpg').write_bytes(encoded()[:-2])
  seen = []
  before = ImageFile.ImageFile.load_end

  def load_end(self):
    seen.append(ImageFile.LOAD_TRUNCATED_IMAGES)
    before(self)

  monkeypatch.setattr(ImageFile.ImageFile, 'load_end', load_end)
  pixels(tmp_path / 'a.jpg')
  assert seen and not any(seen)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'WEBP', 'TIFF'])
def test_other_kinds_lose_no_pixel_unsaid(tmp_path, kind):
  """The last bytes of PNG and BMP are no image; without those of others they are damaged."""
  path, stream = tmp_path / 'a', io.BytesIO()
  IMAGES['noise'].save(stream, kind, lossless=True)
  whole = stream.getvalue()
  path.write_bytes(whole)
  expected = pixels(path)
  read = 0
  for cut in (1, 2, 4, 8, 12, 40, 400):
    path.write_bytes(whole[:-cut])
    try:
      np.testing.assert_array_equal(pixels(path), expected)
      read += 1
    except Unreadable:
      pass
  assert read == {'PNG': 5, 'BMP': 1}.get(kind, 0)
