"""What a file holds that Pillow does not open: another kind of file, a kind of image that is not
read, or damage; and images without the metadata that Pillow stumbles over.
"""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import IO

from PIL import Image

from ahm_jax.data.readers import tiff
from ahm_jax.data.readers.base import Held, UnsupportedImage, shown
from ahm_jax.errors import printable

_AS_PNG = 'save it as PNG'
_UNPACK = 'unpack it'
_FETCH = 'fetch the image again'
_CONVERT = 'give it the suffix of its kind'
# (where, how it begins, what it is, what to do).
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
  (0, b'GIF8', 'GIF', _AS_PNG),
  (0, b'\0\0\0\x0cjP  ', 'JPEG 2000', _AS_PNG),
  (0, b'\xff\x4f\xff\x51', 'JPEG 2000', _AS_PNG),
  (0, b'\xff\x0a', 'JPEG XL', _AS_PNG),
  (0, b'\0\0\0\x0cJXL ', 'JPEG XL', _AS_PNG),
  (0, b'II\xbc', 'JPEG XR', _AS_PNG),
  (4, b'ftypavi', 'AVIF', _AS_PNG),
  (4, b'ftyphe', 'HEIC', _AS_PNG),
  (4, b'ftypmif1', 'HEIC', _AS_PNG),
  (4, b'ftypmsf1', 'HEIC', _AS_PNG),
  (4, b'ftyp', 'a video', 'save its frames as PNG'),
  (0, b'8BPS', 'PSD', _AS_PNG),
  (0, b'gimp xcf', 'XCF', _AS_PNG),
  (0, b'%PDF', 'PDF', _AS_PNG),
  (0, b'%!PS', 'PostScript', _AS_PNG),
  (0, b'\xc5\xd0\xd3\xc6', 'PostScript', _AS_PNG),
  (0, b'\0\0\1\0', 'an icon', _AS_PNG),
  (0, b'\x76\x2f\x31\x01', 'OpenEXR', _AS_PNG),
  (0, b'#?RADIANCE', 'Radiance HDR', _AS_PNG),
  (0, b'DDS ', 'DDS', _AS_PNG),
  (0, b'qoif', 'QOI', _AS_PNG),
  (0, b'icns', 'an icon', _AS_PNG),
  (0, b'SIMPLE  =', 'FITS', _AS_PNG),
  (0, b'\x59\xa6\x6a\x95', 'Sun raster', _AS_PNG),
  (0, b'\x01\xda', 'SGI', _AS_PNG),
  (128, b'DICM', 'DICOM', _CONVERT),
  (344, b'n+1\0', 'NIfTI', _CONVERT),
  (344, b'ni1\0', 'NIfTI', _CONVERT),
  (0, b'NRRD', 'NRRD', 'save it as NIfTI'),
  (0, b'ObjectType', 'MetaImage', 'save it as NIfTI'),
  (0, b'\x89HDF', 'HDF5', _AS_PNG),
  (0, b'\x93NUMPY', 'a NumPy array', _AS_PNG),
  (0, b'MATLAB 5', 'MATLAB data', _AS_PNG),
  (0, b'\x1f\x8b', 'gzip data', _UNPACK),
  (0, b'PK\x03\x04', 'a zip archive', _UNPACK),
  (0, b'7z\xbc\xaf', 'a 7-Zip archive', _UNPACK),
  (0, b'Rar!', 'a RAR archive', _UNPACK),
  (257, b'ustar', 'a tar archive', _UNPACK),
  (0, b'version https://git-lfs', 'a Git LFS pointer', "fetch the image by 'git lfs pull'"),
)
# By their first letters in lower case, after spaces and comments.
_TEXTS = (
  (re.compile(rb'(<\?xml[^>]*>|<!--.*?-->|<!doctype svg[^>]*>|\s)*<svg\b', re.S), 'SVG', _AS_PNG),
  (re.compile(rb'(<!--.*?-->|\s)*<(!doctype html|html|head)\b', re.S), 'a web page', _FETCH),
  (re.compile(rb'\s*(<\?xml|<error\b)'), 'XML', _FETCH),
  (re.compile(rb'\s*[{\[]\s*["\]}]'), 'JSON', _FETCH),
  (re.compile(rb'p[1-7fF][\s#]'), 'PNM', _AS_PNG),
)
# How Pillow says that it knows a kind but does not read it.
_NOT_READ = re.compile(
  r'unsupported|not (yet )?supported|cannot handle|unknown raw mode|conversion .* not', re.I
)
# Start of frame: baseline, extended and progressive, by Huffman codes. Pillow's libjpeg may not
# decode the others.
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {*range(0xC3, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_PNG = b'\x89PNG\r\n\x1a\n'
_PNG_KEPT = (b'IHDR', b'PLTE', b'IDAT', b'IEND', b'tRNS', b'eXIf')


def refusal(path: Path | Held, file: IO[bytes], error: Exception) -> UnsupportedImage | None:
  """Why a file that Pillow does not read is not one of the kinds that are read; None: it seems to
  be one, and is damaged.

  Args:
    file: the file, open.
    error: what reading it raised.
  """
  file.seek(0)
  head = file.read(1024)
  for place, start, kind, cure in _MAGIC:
    if head.startswith(start, place):
      return _unread(path, kind, cure)
  for pattern, kind, cure in _TEXTS:
    if pattern.match(head.lower().removeprefix(b'\xef\xbb\xbf')):
      return _unread(path, kind, cure)
  said = str(error)
  is_unknown = isinstance(error, Image.UnidentifiedImageError) or _NOT_READ.search(said)
  if head[:4] in _TIFF and is_unknown:
    return tiff.refusal(path, file)
  kind = f'an image of a rare kind ({printable(said)})' if _NOT_READ.search(said) else ''
  if head.startswith(b'\xff\xd8'):
    file.seek(0)
    kind = _jpeg_kind(file.read()) or kind
  return _unread(path, kind, _AS_PNG) if kind else None


def _unread(path: Path | Held, kind: str, cure: str) -> UnsupportedImage:
  return UnsupportedImage(f'{shown(path)} holds {kind}, which is not read; {cure}')


def _jpeg_kind(data: bytes) -> str:
  for marker, start, _ in _jpeg_segments(data):
    if marker in _OTHER_FRAMES:
      return 'JPEG that is lossless, arithmetic or hierarchical'
    if marker in _JPEG_FRAMES and data[start + 4 : start + 5] not in (b'\x08', b''):
      return f'JPEG of {data[start + 4]} bits'
  return ''


def without_metadata(file: IO[bytes]) -> bytes | None:
  """A PNG or JPEG without what its pixels do not need; None where it is neither, or cut.

  Kept of a JPEG are the segments of JFIF, Adobe (which say what the channels are) and EXIF.
  """
  file.seek(0)
  data = file.read(len(_PNG))
  if not data.startswith((_PNG, b'\xff\xd8')):
    return None
  data += file.read()
  if data.startswith(_PNG):
    return _bare_png(data)
  kept, end = [data[:2]], 2
  for marker, start, stop in _jpeg_segments(data):
    end = stop
    is_exif = marker == 0xE1 and data[start + 4 : start + 8] == b'Exif'
    says_colours = marker in (0xE0, 0xEE) and stop - start >= 16
    if says_colours or is_exif or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
      kept.append(data[start:stop])
  return b''.join((*kept, data[end:]))


def _jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
  """(marker, start, end) of each segment of a JPEG before its first scan."""
  found, place = [], 2
  while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
    if data[place + 1] == 0xFF:  # Padding.
      place += 1
      continue
    end = place + 2 + struct.unpack_from('>H', data, place + 2)[0]
    found.append((data[place + 1], place, end))
    place = end
  return found


def _bare_png(data: bytes) -> bytes | None:
  out, place, name = io.BytesIO(), len(_PNG), b''
  out.write(_PNG)
  while name != b'IEND':
    if place + 12 > len(data):
      return None
    (length,) = struct.unpack_from('>I', data, place)
    name, end = data[place + 4 : place + 8], place + 12 + length
    is_exif = name == b'eXIf'
    is_whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4, 'big') == data[end - 4 : end]
    if name in _PNG_KEPT and (is_whole or not is_exif):
      out.write(data[place:end])
    place = end
  return out.getvalue()
