"""What is not read is not called damaged; and broken metadata does not hinder sound pixels."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import dispatch, raster
from ahm_jax.data.readers.base import SUFFIXES, VOLUMES, Unreadable, UnsupportedImage
from tests.data.readers import tiffs

SMALL = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PIXELS = np.asarray(Image.fromarray(SMALL).resize((64, 48)))


def encoded(kind, image=None, **options):
  stream = io.BytesIO()
  (image or Image.fromarray(PIXELS)).save(stream, kind, **options)
  return stream.getvalue()


def pixels(path):
  return dispatch.read_slices(path, 3)[0][1].pixels


# Other kinds.

FOREIGN = {
  'GIF': encoded('GIF'),
  'JPEG 2000': encoded('JPEG2000'),
  'AVIF': b'\0\0\0\x1cftypavif' + bytes(40),
  'HEIC': b'\0\0\0\x18ftypheic' + bytes(40),
  'PDF': encoded('PDF'),
  'PSD': b'8BPS\0\1' + bytes(40),
  'SVG': b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg width="9"></svg>',
  'PostScript': encoded('EPS'),
  'PNM': encoded('PPM'),
  'an icon': encoded('ICO'),
  'DDS': encoded('DDS'),
  'SGI': encoded('SGI'),
  'JPEG XL': b'\xff\x0a' + bytes(40),
  'DICOM': bytes(128) + b'DICM' + bytes(40),
  'NIfTI': bytes(344) + b'n+1\0' + bytes(40),
  'gzip data': b'\x1f\x8b\x08\0' + bytes(40),
  'a zip archive': b'PK\x03\x04' + bytes(40),
  'a NumPy array': b'\x93NUMPY\1\0' + bytes(40),
  'a web page': b'\n<!DOCTYPE html>\n<html><body>404</body></html>',
  'JSON': b'{"error": "not found"}',
  'XML': b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
  'a Git LFS pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n',
  'a video': b'\0\0\0\x20ftypisom' + bytes(40),
}


@pytest.mark.parametrize('suffix', [suffix for suffix in SUFFIXES if suffix not in VOLUMES])
@pytest.mark.parametrize('kind', FOREIGN)
def test_another_kind_of_file_is_named(tmp_path, kind, suffix):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(FOREIGN[kind])
  for read in (pixels, dispatch.read_mask_slices):
    with pytest.raises(UnsupportedImage, match=rf'/a\{suffix} holds {kind}, which is not read; \w'):
      read(path)
  assert raster.describe(path) == ('', 1)


def jpeg_with_frame(marker, bits=8):
  content = encoded('JPEG')
  place = content.index(b'\xff\xc0')
  return (
    content[: place + 1]
    + bytes([marker])
    + content[place + 2 : place + 4]
    + bytes([bits])
    + (content[place + 5 :])
  )


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (jpeg_with_frame(0xC1, bits=12), 'JPEG of 12 bits'),
    (jpeg_with_frame(0xC3, bits=16), 'JPEG that is lossless, arithmetic or hierarchical'),
    (jpeg_with_frame(0xF7), 'JPEG that is lossless'),
    (b'BM' + struct.pack('<IIIIiiHHIIiiII', 99, 0, 54, 40, 4, 4, 1, 5, 0, 0, 0, 0, 0, 0), 'rare'),
  ],
)
def test_a_rare_kind_of_what_is_read_is_not_called_damaged(tmp_path, content, words):
  (tmp_path / 'a.jpg').write_bytes(content)
  with pytest.raises(UnsupportedImage, match=f'holds .*{words}.*, which is not read; save it as'):
    pixels(tmp_path / 'a.jpg')


# Metadata.

EXIF = b'Exif\0\0II*\0\x08\0\0\0'


def entry(tag, kind, count, value):
  return struct.pack('<HHII', tag, kind, count, value)


def turned(orientation):
  return entry(0x0112, 3, 1, orientation)


BROKEN_EXIF = {  # With the orientation that can still be read.
  'an entry out of reach': (6, EXIF + b'\2\0' + turned(6) + entry(0x010F, 2, 40, 5000)),
  'cut within an entry': (6, EXIF + b'\3\0' + turned(6) + b'\1\2'),
  'no end': (3, EXIF + b'\1\0' + turned(3)),
  'no directory': (1, EXIF[:-4] + b'\0\1\0\0'),
  'nothing': (1, EXIF[:6]),
  'not TIFF': (1, b'Exif\0\0' + bytes(30)),
  'subdirectory nowhere': (8, EXIF + b'\2\0' + turned(8) + entry(0x8769, 4, 1, 2**31) + bytes(4)),
  'subdirectory of text': (1, EXIF + b'\1\0' + entry(0x8769, 2, 4, 7) + bytes(4)),
  'orientation of text': (1, EXIF + b'\1\0' + entry(0x0112, 2, 2, 54) + bytes(4)),
  'orientations': (6, EXIF + b'\1\0' + entry(0x0112, 3, 2, 6 + (3 << 16)) + bytes(4)),
  'a loop': (1, EXIF + b'\0\0\x08\0\0\0'),
}
QUARTERS = {1: 0, 3: 2, 6: -1, 8: 1}


def segment(marker, content):
  return b'\xff' + bytes([marker]) + struct.pack('>H', len(content) + 2) + content


def chunk(kind, content, bad_sum=0):
  total = struct.pack('>I', zlib.crc32(kind + content) ^ bad_sum)
  return struct.pack('>I', len(content)) + kind + content + total


def with_segment(added):
  whole = encoded('JPEG', quality=95)
  return whole[:2] + added + whole[2:]


def with_chunk(added):
  whole = encoded('PNG')
  return whole[:33] + added + whole[33:]


def with_exif(suffix, exif):
  if suffix == '.jpg':
    return with_segment(segment(0xE1, exif))
  if suffix == '.png':
    return with_chunk(chunk(b'eXIf', exif[6:]))
  return encoded('WEBP', lossless=True, exif=exif)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp'])
@pytest.mark.parametrize('name', BROKEN_EXIF)
def test_broken_exif_data_does_not_hinder(tmp_path, name, suffix):
  orientation, exif = BROKEN_EXIF[name]
  path = tmp_path / f'a{suffix}'
  path.write_bytes(with_exif(suffix, EXIF))
  expected = np.rot90(pixels(path), QUARTERS[orientation])
  path.write_bytes(with_exif(suffix, exif))
  ((_, picture),) = dispatch.read_slices(path, 3)
  np.testing.assert_array_equal(picture.pixels, expected)
  assert (picture.orientation, picture.size) == (orientation, expected.shape[:2])
  assert raster.orientation(path) == orientation
  assert raster.describe(path) == ('colour, 8 bit', 1)


LARGE = zlib.compress(bytes(3_000_000))  # More than Pillow unpacks.


@pytest.mark.parametrize(
  'content',
  [
    with_segment(segment(0xE2, b'MPF\0MM\0*\0\0\0\x08\0\1\xb0\x01\0\4\0\0\0\1\0\0\0\2')),
    with_segment(segment(0xE2, b'MPF\0II*\0' + bytes(30))),
    with_segment(segment(0xE2, b'ICC_PROFILE\0')),
    with_segment(segment(0xE2, b'ICC_PROFILE\0\2\1' + bytes(9))),
    with_segment(segment(0xED, b'Photoshop 3.0\x008BIM\4\4')),
    with_segment(segment(0xEE, b'Adobe')),
    with_segment(segment(0xE0, b'JFIF\0')),
    with_segment(segment(0xE0, b'JFIF\0\0')),
    with_segment(segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta')),
    with_segment(segment(0xFE, bytes(range(256)))),
    with_chunk(chunk(b'tEXt', b'name\0value', bad_sum=1)),
    with_chunk(chunk(b'iTXt', b'name\0\1\0\0\0' + LARGE)),
    with_chunk(chunk(b'zTXt', b'name\0\0' + LARGE)),
    with_chunk(chunk(b'zTXt', b'name\0\7abc')),
    with_chunk(chunk(b'iCCP', b'name\0\0' + LARGE)),
    with_chunk(chunk(b'iCCP', b'name\0\7abc')),
    with_chunk(chunk(b'pHYs', b'\0')),
    with_chunk(chunk(b'gAMA', b'')),
    with_chunk(chunk(b'acTL', bytes(8))),
    with_chunk(chunk(b'fcTL', bytes(3))),
    with_chunk(chunk(b'eXIf', EXIF[6:], bad_sum=1)),
  ],
)
def test_other_broken_metadata_does_not_hinder(tmp_path, content):
  path, sound = tmp_path / 'a.img.png', tmp_path / 'b.png'
  path.write_bytes(content)
  sound.write_bytes(with_chunk(b'') if content.startswith(b'\x89PNG') else with_segment(b''))
  np.testing.assert_array_equal(pixels(path), pixels(sound))
  grey = dispatch.read_slices(path, 1, at_least=(8, 8))[0][1]
  assert grey.size == (48, 64)


@pytest.mark.parametrize(
  'tag',
  [
    (282, 'I', [72, 1, 72]),  # Resolutions of no known form.
    (296, 'H', [9, 9]),
    (34665, 'I', [2**31]),  # EXIF and GPS directories nowhere, and a text for one.
    (34853, 'I', [7, 7]),
    (40965, 'B', [1]),
    (34675, 'B', [0, 1, 2]),
    (700, 'B', list(b'<x:xmpmeta')),
    (34377, 'B', list(b'8BIM')),
    (330, 'I', [5, 2**31]),
    (305, 'H', [1, 2, 3]),
  ],
)
@pytest.mark.parametrize('compression', [tiffs.RAW, tiffs.DEFLATE])
def test_odd_tags_of_a_tiff_do_not_hinder(tmp_path, tag, compression):
  content = tiffs.encoded(PIXELS, photometric=2, compression=compression, tags=[tag])
  (tmp_path / 'a.tif').write_bytes(content)
  np.testing.assert_array_equal(pixels(tmp_path / 'a.tif'), PIXELS)


def test_colours_of_a_jpeg_stay_when_its_metadata_is_left_out(tmp_path):
  """The Adobe segment says that three channels are RGB, and that CMYK is inverted."""
  for image in (Image.fromarray(PIXELS), Image.fromarray(PIXELS).convert('CMYK')):
    whole = encoded('JPEG', image, keep_rgb=image.mode == 'RGB', quality=95)
    (tmp_path / 'a.jpg').write_bytes(whole)
    expected = pixels(tmp_path / 'a.jpg')
    (tmp_path / 'a.jpg').write_bytes(whole[:2] + segment(0xE0, b'JFIF\0') + whole[2:])
    np.testing.assert_array_equal(pixels(tmp_path / 'a.jpg'), expected)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.9])
@pytest.mark.parametrize('whole', [encoded('JPEG', quality=95), encoded('PNG')])
def test_broken_pixels_stay_damaged_whatever_the_metadata(tmp_path, whole, share):
  added = segment(0xE0, b'JFIF\0') if whole.startswith(b'\xff\xd8') else chunk(b'gAMA', b'')
  place = 2 if whole.startswith(b'\xff\xd8') else 33
  cut = whole[: int(len(whole) * share)]
  for content in (cut, cut[:place] + added + cut[place:]):
    (tmp_path / 'a').write_bytes(content)
    with pytest.raises(Unreadable):
      pixels(tmp_path / 'a')


def test_what_pillow_warns_of_is_not_printed_nor_raised(tmp_path):
  """pytest has filters of its own; so in another process, whose filters make errors of all."""
  path = tmp_path / 'a.jpg'
  path.write_bytes(with_exif('.jpg', BROKEN_EXIF['an entry out of reach'][1]))
  code = (
    'import pathlib, sys; from ahm_jax.data.readers import dispatch; '
    'print(dispatch.read_slices(pathlib.Path(sys.argv[1]), 3)[0][1].orientation)'
  )
  done = subprocess.run(
    [sys.executable, '-W', 'error::UserWarning', '-c', code, path],
    capture_output=True, text=True, check=True, timeout=60,
  )  # fmt: skip
  assert (done.stdout, done.stderr) == ('6\n', '')
