"""Photographs and scans, by Pillow: JPEG, PNG, TIFF, BMP and WebP.

They are known by their content, whatever the name says, and nothing else is opened (Pillow would
hand a PostScript file to Ghostscript). Of several frames or pages the first one counts. The EXIF
orientation is applied.

Colour of 16 bits a channel, and grey of 16 bits with alpha, are not mapped as `intensity` says:
each channel keeps its high byte, as Pillow reads it, and no window applies, so that what uses the
low bits only comes out nearly black; prepare_data --check says where.

Alpha is ignored, not blended: what lies under transparent pixels is image too, and a background
colour would be our invention.
"""

import contextlib
import ctypes
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import (  # The plugins must be there to be named in `FORMATS`.
  BmpImagePlugin,  # noqa: F401
  ExifTags,
  Image,
  ImageOps,
  JpegImagePlugin,  # noqa: F401
  PngImagePlugin,  # noqa: F401
  TiffImagePlugin,  # noqa: F401
  WebPImagePlugin,  # noqa: F401
)

from ahm_jax.data.readers.base import Held, Picture, UnsupportedImage, check_size, shown
from ahm_jax.data.readers.intensity import to_bytes, value_range, with_channels

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
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations of a camera that was turned by a quarter.

# Pillow warns of bombs, and of damage that it reads past. Filters are shared by threads, so they
# cannot be set for one read.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('error', category=UserWarning, module=r'PIL\.')

# libtiff prints what is wrong with a file, where one line of ours is to say it.
with contextlib.suppress(OSError, AttributeError):
  ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


def read(
  path: Path | Held, channels: int, window: Sequence[float] | None, at_least: tuple[int, int] | None
) -> Picture:
  """Reads an image; see `dispatch.read_slices`."""
  mode = 'RGB' if channels == 3 else 'L'
  with _open(path) as picture:
    width, height = picture.size
    if at_least:
      picture.draft(mode, at_least)
    picture.load()
    orientation = _orientation(picture)
    if orientation in _QUARTER_TURNS:
      width, height = height, width
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith(('I', 'F')):
      values = np.asarray(picture)
      pixels = with_channels(to_bytes(values, *value_range(values, window)), channels)
    else:
      picture.info.pop('transparency', None)
      pixels = np.asarray(picture.convert(mode)).reshape(picture.height, picture.width, channels)
  return Picture(pixels, None, (height, width), orientation)


def read_labels(path: Path | Held, by_colour: bool) -> np.ndarray:
  """What a mask stores: bool or a number, [H, W].

  With `by_colour`, what a binary palette image shows, where that is plain.
  """
  with _open(path) as picture:
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    array = np.asarray(picture)
    colours = len(picture.getbands()) - ('A' in picture.getbands())
    if by_colour and picture.mode == 'P':
      array = _by_colour(array, picture.getpalette('RGB') or [])
  if array.ndim == 3:
    if (array[..., :colours] != array[..., :1]).any():
      raise UnsupportedImage(
        f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, '
        'or of class indices'
      )
    array = array[..., 0]
  return array


def orientation(path: Path | Held) -> int:
  """The EXIF orientation (1 to 8) by which the readers turn a file; 1 where it is not turned, or
  its header cannot be read.
  """
  try:
    with _open(path) as picture:
      return _orientation(picture)
  except Exception:  # Reading it will say what is wrong.
    return 1


def describe(path: Path | Held) -> tuple[str, int]:
  """What a file holds, as far as its header says, as 'colour, 8 bit'; and its number of pages,
  which is 1 but for a TIFF.

  ('', 1) where the header cannot be read.
  """
  try:
    with _open(path) as picture:
      deep_grey = picture.mode.startswith('I;16')
      kind = 'grey, 16 bit' if deep_grey else _KINDS.get(picture.mode, picture.mode)
      # Pillow's mode is that of the high bytes.
      if picture.format in ('PNG', 'TIFF') and ';16' in str(getattr(picture, 'tile', [])[:1]):
        kind = kind.replace('8 bit', DEEP)
      return kind, int(getattr(picture, 'n_frames', 1)) if picture.format == 'TIFF' else 1
  except Exception:  # Reading it will say what is wrong.
    return '', 1


def _open(path: Path | Held) -> Image.Image:
  source = io.BytesIO(path.read_bytes()) if isinstance(path, Held) else path
  picture = Image.open(source, formats=FORMATS)
  try:
    check_size(path, *picture.size)
  except BaseException:
    picture.close()
    raise
  return picture


def _orientation(picture: Image.Image) -> int:
  found = picture.getexif().get(ExifTags.Base.Orientation, 1)
  return found if found in range(2, 9) else 1


def _by_colour(indices: np.ndarray, palette: list[int]) -> np.ndarray:
  """The lesion of a binary mask by its colours, bool [H, W].

  The indices themselves where the colours do not tell it.
  """
  used = np.unique(indices)
  colours = np.reshape(palette, (-1, 3))
  if used[-1] > 1 or used[-1] >= len(colours):
    return indices
  light = colours.sum(1)
  is_grey = (colours == colours[:, :1]).all()
  if len(used) == 2 and light[0] != light[1] and (is_grey or 0 in light[:2]):
    return indices == light[:2].argmax()
  if len(used) == 1 and (
    (light[used[0]] == 3 * 255 and is_grey) or (light[used[0]] == 0 and light.any())
  ):
    return np.full(indices.shape, light[used[0]] > 0)
  return indices
