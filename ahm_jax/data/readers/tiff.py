"""TIFFs whose numbers Pillow gets wrong without a word: put right, or refused.

Pillow tells depth, sign, byte order and photometric interpretation by a table of kinds
(`TiffImagePlugin.OPEN_INFO`) that is not right for each of them.
"""

import struct
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImagePalette
from PIL import TiffImagePlugin as plugin

from ahm_jax.data.readers import tiff_pages
from ahm_jax.data.readers.base import Held, Unreadable, UnsupportedImage, shown

_WHITE_IS_ZERO, _RGB, _YCBCR, _LAB = 0, 2, 6, 8  # Photometric interpretations.
_SIGNED, _FLOAT = 2, 3  # Sample formats.
_SAMPLE_FORMATS = {1: 'unsigned', 2: 'signed', 3: 'float', 4: 'undefined', 5: 'complex'}
_YCBCR_SUBSAMPLING = 530
_PLANES = 2  # Planar configuration: each channel by itself.
# libtiff hands over numbers in the order of this machine, and Pillow would turn them again.
_NATIVE = {'I;16BS': 'I;16NS', 'I;32BS': 'I;32NS', 'F;32BF': 'F;32NF'}
# What decides how the bytes are read; a file that lists one of them out of reach is damaged.
_DECISIVE = frozenset(
  (
    *(plugin.IMAGEWIDTH, plugin.IMAGELENGTH, plugin.BITSPERSAMPLE, plugin.COMPRESSION),
    *(plugin.PHOTOMETRIC_INTERPRETATION, plugin.FILLORDER, plugin.STRIPOFFSETS),
    *(plugin.SAMPLESPERPIXEL, plugin.ROWSPERSTRIP, plugin.STRIPBYTECOUNTS),
    *(plugin.PLANAR_CONFIGURATION, plugin.PREDICTOR, plugin.COLORMAP, plugin.TILEWIDTH),
    *(plugin.TILELENGTH, plugin.TILEOFFSETS, plugin.TILEBYTECOUNTS, plugin.EXTRASAMPLES),
    *(plugin.SAMPLEFORMAT, _YCBCR_SUBSAMPLING),
  )
)
# What Pillow raises where it does not know the kind of a page.
_NOT_OPENED = (SyntaxError, LookupError, TypeError, ValueError, EOFError, struct.error)
_CURE = 'save it as TIFF of 8 or 16 bit integers or 32 bit floats, with 0 as black'


def turn_to_image(picture: plugin.TiffImageFile, path: Path | Held, number: int = 0) -> None:
  """Turns a TIFF that was opened to the first page that is no preview or part of another one, or
  to that of a `number` below `images`.

  A page that is the only one counts, whatever it says.

  Raises:
    UnsupportedImage: there are only previews, or the page is of a kind that is not read.
    Unreadable: the directory of the page is damaged.
  """
  if not number and tiff_pages.kind(picture.tag_v2) == tiff_pages.IMAGE:
    return
  assert picture.fp is not None
  kinds = list(tiff_pages.kinds(picture.fp, picture.tag_v2, picture._frame_pos[0]))
  best = min(kinds)
  if tiff_pages.LOST in kinds and best != tiff_pages.IMAGE:
    raise Unreadable(shown(path))
  hidden = tiff_pages.has_subdirectories(picture.tag_v2)
  if best == tiff_pages.PREVIEW and (hidden or len(kinds) > 1):
    raise UnsupportedImage(_only_previews(path, len(kinds), hidden))
  try:
    if page := [index for index, kind in enumerate(kinds) if kind == best][number]:
      picture.palette = None  # Else that of the first page would be that of this one.
      picture.seek(page)
  except _NOT_OPENED as error:
    raise _refusal(path, picture.fp, picture.tag_v2) or Unreadable(shown(path)) from error


def _only_previews(path: Path | Held, pages: int, hidden: bool) -> str:
  which = 'the only page' if pages == 1 else f'each of the pages 1 to {pages}'
  where = ' and the image lies below it (SubIFD), which is not read' if hidden else ''
  return (
    f'{shown(path)} holds TIFF of which {which} is a reduced image by its tag NewSubfileType'
    f'{where}; save the image itself as PNG, or as TIFF of one page'
  )


def images(picture: plugin.TiffImageFile) -> int:
  """How many pages of a TIFF that is open are as the one that is read, and no previews of it."""
  assert picture.fp is not None
  kinds = list(tiff_pages.kinds(picture.fp, picture.tag_v2, picture._frame_pos[0]))
  return kinds.count(min(kinds))


def mend(picture: plugin.TiffImageFile, path: Path | Held) -> None:
  """Corrects how a TIFF that is open will be decoded.

  Raises:
    UnsupportedImage: it would be decoded wrongly.
    Unreadable: its header is cut.
  """
  tags = picture.tag_v2
  assert picture.fp is not None
  if _listed(picture.fp, tags) & _DECISIVE - tags.keys():
    raise Unreadable(shown(path))
  picture.tile = [_in_native_order(tile) for tile in picture.tile]
  colours = tags.get(plugin.COLORMAP, ())
  if picture.mode in ('P', 'PA') and max(colours) < 256:  # Of 8 bits, where 16 are the standard.
    picture.palette = ImagePalette.raw('RGB;L', bytes(colours))
  if _is_decoded_wrongly(picture):
    raise _unsupported(path, _kind(tags))


def has_signed_bytes(image: Image.Image) -> bool:
  """Whether an image is a loaded TIFF of 8 bit signed integers, which Pillow takes for unsigned."""
  return (
    isinstance(image, plugin.TiffImageFile)
    and image.mode == 'L'
    and _first(image.tag_v2, plugin.SAMPLEFORMAT) == _SIGNED
  )


def numbers(picture: plugin.TiffImageFile, array: np.ndarray) -> np.ndarray:
  """The numbers of a loaded grey TIFF, where black is 0, from what Pillow made of it."""
  tags = picture.tag_v2
  bits, sign = _first(tags, plugin.BITSPERSAMPLE), _first(tags, plugin.SAMPLEFORMAT)
  if has_signed_bytes(picture):
    return array.view(np.int8)
  if picture.mode == 'I' and bits == 32 and sign != _SIGNED:
    return array.view(np.uint32)
  is_inverted = tags.get(plugin.PHOTOMETRIC_INTERPRETATION, 0) == _WHITE_IS_ZERO
  return ~array if is_inverted and picture.mode == 'I;16' else array


def refusal(path: Path | Held, file: IO[bytes]) -> UnsupportedImage | None:
  """Why a TIFF is refused that Pillow does not open; None where its header is damaged."""
  file.seek(0)
  head = file.read(8)
  if head.startswith(b'MM\0+'):
    return _unsupported(path, 'big-endian 64 bit offsets')
  tags = plugin.ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)
  file.seek(tags.next)
  tags.load(file)
  return _refusal(path, file, tags)


def _refusal(
  path: Path | Held, file: IO[bytes], tags: plugin.ImageFileDirectory_v2
) -> UnsupportedImage | None:
  needed = {plugin.IMAGEWIDTH, plugin.IMAGELENGTH, plugin.PHOTOMETRIC_INTERPRETATION}
  placed = {plugin.STRIPOFFSETS, plugin.TILEOFFSETS} & tags.keys()
  if _listed(file, tags) & _DECISIVE - tags.keys() or needed - tags.keys() or not placed:
    return None
  return _unsupported(path, _kind(tags))


def _unsupported(path: Path | Held, kind: str) -> UnsupportedImage:
  return UnsupportedImage(f'{shown(path)} holds TIFF of {kind}, which is not read; {_CURE}')


def _listed(file: IO[bytes], tags: plugin.ImageFileDirectory_v2) -> set[int]:
  """The tags with values in the directory of a TIFF, also those that Pillow left out; all decisive
  ones where it is cut.
  """
  found = tiff_pages.directory(file, tags, tags._offset or 0)
  if found.is_cut:
    return set(_DECISIVE)
  return {tag for tag, (_, count, _) in found.entries.items() if count}


def _in_native_order(tile: ImageFile._Tile) -> ImageFile._Tile:
  if tile.codec_name != 'libtiff' or not isinstance(tile.args, tuple):
    return tile
  return tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))


def _is_decoded_wrongly(picture: plugin.TiffImageFile) -> bool:
  tags = picture.tag_v2
  photometric = tags.get(plugin.PHOTOMETRIC_INTERPRETATION, 0)
  is_raw = tags.get(plugin.COMPRESSION, 1) == 1
  if photometric == _WHITE_IS_ZERO:
    return picture.mode not in ('1', 'L', 'I;16')
  if tags.get(plugin.PLANAR_CONFIGURATION, 1) == _PLANES:
    is_unsaid = tags.get(plugin.SAMPLESPERPIXEL) == 4 and not tags.get(plugin.EXTRASAMPLES)
    is_deep = is_raw and _first(tags, plugin.BITSPERSAMPLE) > 8
    bands = len(picture.getbands())
    return bands > 1 and (is_deep or photometric == _LAB or (is_unsaid and photometric == _RGB))
  if photometric == _YCBCR and is_raw and picture.mode == 'YCbCr':
    stored = sum(tags.get(plugin.STRIPBYTECOUNTS, tags.get(plugin.TILEBYTECOUNTS, ())))
    width, height = picture._tile_size
    # The default is half the colours across and down, in an order that Pillow does not know.
    return tags.get(_YCBCR_SUBSAMPLING, (1, 1)) != (1, 1) or 0 < stored < 3 * width * height
  return False


def _first(tags: plugin.ImageFileDirectory_v2, tag: int) -> int:
  found = tags.get(tag, (1,))
  return found[0] if isinstance(found, tuple) else found


def _kind(tags: plugin.ImageFileDirectory_v2) -> str:
  samples = tags.get(plugin.SAMPLESPERPIXEL, 1)
  sign = _first(tags, plugin.SAMPLEFORMAT)
  photometric = tags.get(plugin.PHOTOMETRIC_INTERPRETATION, 0)
  compression = tags.get(plugin.COMPRESSION, 1)
  words = [f'{_first(tags, plugin.BITSPERSAMPLE)} bit {_SAMPLE_FORMATS.get(sign, "unknown")}']
  words += [f'{samples} samples a pixel'] if samples != 1 else []
  words += ['big-endian'] if tags._endian == '>' else []
  words += ['0 as white'] if photometric == _WHITE_IS_ZERO else []
  words += [f'photometric interpretation {photometric}'] if photometric not in (0, 1, 2) else []
  words += [f'compression {compression}'] if compression not in plugin.COMPRESSION_INFO else []
  words += ['planes'] if tags.get(plugin.PLANAR_CONFIGURATION, 1) == _PLANES else []
  return ', '.join(words)
