"""Photographs and scans, by Pillow: JPEG, PNG, TIFF, BMP and WebP.

They are known by their content, whatever the name says, and nothing else is opened (Pillow would
hand a PostScript file to Ghostscript). Of several frames or pages the first one counts that is no
preview of another. The EXIF orientation is applied. Metadata that is broken does not hinder: the
pixels count.

Colour of 16 bits a channel, and grey of 16 bits with alpha, are not mapped as `intensity` says:
each channel keeps its high byte, as Pillow reads it, and no window applies, so that what uses the
low bits only comes out nearly black; prepare_data --check says where.

Alpha of images is ignored, not blended: what lies under transparent pixels is image too, and a
background colour would be our invention. Binary masks of one colour are drawn in it.
"""

import contextlib
import ctypes
import functools
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import (  # The plugins must be there to be named in `FORMATS`.
  BmpImagePlugin,
  Image,
  JpegImagePlugin,
  PngImagePlugin,  # noqa: F401
  TiffImagePlugin,
  WebPImagePlugin,  # noqa: F401
)

from ahm_jax.data.readers import bmp, exif, foreign, jpeg_end, raster_masks, tiff
from ahm_jax.data.readers.base import (
  LAYOUTS,
  Held,
  Picture,
  Unreadable,
  UnsupportedImage,
  check_size,
  decoding,
  shown,
)
from ahm_jax.data.readers.intensity import to_bytes, value_range, with_channels
from ahm_jax.errors import UserError, is_of_system

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')
DEEP = '16 bit a channel'  # What ends the description of a file that is read by its high bytes.
_KINDS = {  # By Pillow's mode.
  '1': '1 bit',
  'L': 'grey, 8 bit',
  'LA': 'grey and alpha, 8 bit',
  'P': 'palette, 8 bit',
  'RGB': 'colour, 8 bit',
  'RGBA': 'colour and alpha, 8 bit',
  'CMYK': 'CMYK, 8 bit',
  'F': 'grey, 32 bit float',
  'I': 'grey, 32 bit',
}
# What reading a file in another way does not change.
_SETTLED = (
  *(Unreadable, UnsupportedImage, UserError, MemoryError),
  *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
# Modes that Pillow converts to grey and colour by way of others; of those in small letters colours
# are multiplied by alpha.
_PLAIN = {'LAB': 'RGB', 'La': 'LA', 'RGBa': 'RGBA'}
# Pillow warns of bombs, and of broken metadata, which does not matter. Filters are shared by
# threads, so they cannot be set for one read.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')

# libtiff prints what is wrong with a file, where one line of ours is to say it.
with contextlib.suppress(OSError, AttributeError):
  ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class _Loaded(NamedTuple):
  """A file that is decoded."""

  image: Image.Image  # Turned as its EXIF orientation asks.
  orientation: int
  size: tuple[int, int]  # (height, width) of the file.
  is_deep: bool  # 16 bits a channel, of which Pillow keeps the high bytes.


def read(
  path: Path | Held, channels: int, window: Sequence[float] | None, at_least: tuple[int, int] | None
) -> Picture:
  """Reads an image; see `dispatch.read_slices`."""
  mode = 'RGB' if channels == 3 else 'L'
  image, orientation, size, _ = _load(path, mode, at_least)
  if _holds_numbers(image):
    values = _numbers(image)
    pixels = with_channels(to_bytes(values, *value_range(values, window)), channels)
  else:
    pixels = _converted(image, mode).reshape(image.height, image.width, channels)
  return Picture(pixels, None, size, orientation)


def read_grey(path: Path | Held, page: int = 0) -> tuple[np.ndarray, int]:
  """The grey levels of an image, or of a page of a TIFF, as numbers [H, W]; and its EXIF
  orientation, by which it was turned.

  Raises:
    UnsupportedImage: it is in colour, or there are no such pages.
  """
  image, orientation, *_ = _load(path, page=page)
  if _holds_numbers(image):
    return _numbers(image), orientation
  if image.mode in ('1', 'L', 'LA', 'La'):
    return _converted(image, 'L'), orientation
  colours = _converted(image, 'RGB')
  if (colours != colours[..., :1]).any():
    raise UnsupportedImage(f'{shown(path)} is in colour, and a modality is grey; {LAYOUTS}')
  return colours[..., 0], orientation


def _holds_numbers(image: Image.Image) -> bool:
  """Whether a loaded image is of more than 8 bits, or signed."""
  return image.mode.startswith(('I', 'F')) or tiff.has_signed_bytes(image)


def _converted(image: Image.Image, mode: str) -> np.ndarray:
  """A loaded image of 8 bits in the mode 'L' or 'RGB', its alpha left out."""
  image.info.pop('transparency', None)
  image = image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image
  return np.asarray(image.convert(mode))


def read_labels(path: Path | Held, by_colour: bool) -> np.ndarray:
  """What a mask stores: bool or a number, [H, W].

  With `by_colour`, what a binary mask shows by the colours of a palette, or by alpha, where that is
  plain; see `raster_masks`.
  """
  found = _load(path)
  return raster_masks.labels(found.image, _numbers(found.image), found.is_deep, by_colour, path)


def orientation(path: Path | Held) -> int:
  """The EXIF orientation (1 to 8) by which the readers turn a file; 1 where it is not turned, or
  its header cannot be read.
  """
  try:
    with decoding(path), _open(path) as picture:
      return exif.orientation(picture)
  except (Unreadable, UnsupportedImage, UserError):  # Reading it will say what is wrong.
    return 1


def describe(path: Path | Held) -> tuple[str, int]:
  """What a file holds, as far as its header says, as 'colour, 8 bit'; and its number of pages or
  frames that are no previews, of a JPEG 1.

  ('', 1) where the header cannot be read.
  """
  try:
    with decoding(path), _open(path) as picture:
      deep_grey = picture.mode.startswith('I;16')
      kind = 'grey, 16 bit' if deep_grey else _KINDS.get(picture.mode, picture.mode)
      kind = kind.replace('8 bit', DEEP) if _is_deep(picture) else kind
      return kind, _frames(picture)
  except (Unreadable, UnsupportedImage, UserError):  # Reading it will say what is wrong.
    return '', 1


def _load(
  path: Path | Held, mode: str = '', at_least: tuple[int, int] | None = None, page: int = 0
) -> _Loaded:
  """Decodes a file, or a page of it: without its metadata, where Pillow stumbles over them, and
  with the end that a JPEG may lack.
  """
  try:
    return _decode(path, None, mode, at_least, page)
  except _SETTLED:
    raise
  except Exception as error:
    if isinstance(error, OSError) and is_of_system(error):
      raise
    with io.BytesIO(path.read_bytes()) if isinstance(path, Held) else path.open('rb') as file:
      bare = foreign.without_metadata(file)
      if bare is not None:
        # Where neither is decoded, the first error tells more.
        if found := _decode_or_none(path, bare, mode, at_least, page):
          return found
        whole = jpeg_end.completed(bare, functools.partial(_pixels, path))
        if whole and (found := _decode_or_none(path, whole, mode, at_least)):
          return found
      if refusal := foreign.refusal(path, file, error):
        raise refusal from error
    raise


def _decode_or_none(
  path: Path | Held,
  data: bytes,
  mode: str = '',
  at_least: tuple[int, int] | None = None,
  page: int = 0,
) -> _Loaded | None:
  try:
    return _decode(path, data, mode, at_least, page)
  except _SETTLED:
    raise
  except Exception:
    return None


def _pixels(path: Path | Held, data: bytes) -> np.ndarray | None:
  found = _decode_or_none(path, data)
  return found and np.asarray(found.image)


def _decode(
  path: Path | Held, data: bytes | None, mode: str, at_least: tuple[int, int] | None, page: int
) -> _Loaded:
  with _open(path, data, page) as picture:
    is_deep = _is_deep(picture)
    width, height = picture.size
    if at_least:
      picture.draft(mode, at_least)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):  # It is turned in loading.
      found = exif.without_subdirectories(picture)
      picture.load()
      return _Loaded(picture, found, (picture.height, picture.width), is_deep)
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
      assert picture.fp is not None
      if jpeg_end.is_lacking(picture.fp):
        raise EOFError
    picture.load()
    found = exif.orientation(picture)
    if found in exif.QUARTER_TURNS:
      width, height = height, width
    image = picture.transpose(exif.TURNS[found]) if found in exif.TURNS else picture
    return _Loaded(image, found, (height, width), is_deep)


def _open(path: Path | Held, data: bytes | None = None, page: int = 0) -> Image.Image:
  """A file whose header is read, and whose size is in bounds.

  Args:
    data: what it holds, where that is not what lies at `path`.
  """
  if isinstance(path, Held) and data is None:
    data = path.read_bytes()
  source = io.BytesIO(data) if data is not None else str(path)
  picture = Image.open(source, formats=FORMATS)
  try:
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
      # Else Pillow maps the file into memory, by a size that its orientation has swapped.
      picture.filename = ''
      tiff.turn_to_image(picture, path, page)
      check_size(path, *picture.size)
      tiff.mend(picture, path)
    else:
      if page:
        raise UnsupportedImage(f'{shown(path)} has frames, which are no modalities; {LAYOUTS}')
      check_size(path, *picture.size)
      if isinstance(picture, BmpImagePlugin.BmpImageFile):
        bmp.mend(picture)
  except BaseException:
    picture.close()
    raise
  return picture


def _numbers(image: Image.Image) -> np.ndarray:
  array = np.asarray(image)
  return tiff.numbers(image, array) if isinstance(image, TiffImagePlugin.TiffImageFile) else array


def _frames(picture: Image.Image) -> int:
  if isinstance(picture, TiffImagePlugin.TiffImageFile):
    return tiff.images(picture)
  return 1 if picture.format == 'MPO' else int(getattr(picture, 'n_frames', 1))


def _is_deep(picture: Image.Image) -> bool:
  """Whether Pillow's mode is that of the high bytes."""
  return (
    picture.format in ('PNG', 'TIFF')
    and not picture.mode.startswith('I')
    and ';16' in str(getattr(picture, 'tile', [])[:1])
  )
