"""One file, decoded safely: photographs and scans here, DICOM and NIfTI by `medical`.

Whatever a file holds, it gives pixels, or raises `Unreadable` or `UnsupportedImage`; headers are
checked before memory is taken for what they promise. JPEG, PNG, TIFF, BMP and WebP are read by
content, whatever the name says, and nothing else is (Pillow would hand a PostScript file to
Ghostscript). Of several frames or pages the first one counts. The EXIF orientation is applied.

Grey levels. 8 bits stay as they are. More than 8 bits (integer or float grey) are mapped linearly
onto 0..255: from centre - width / 2 to centre + width / 2 where there is a window, else from the
0.5th to the 99.5th percentile of the file's own values (the range that nnU-Net clips to, Isensee et
al. 2021), or from lowest to highest where these two are equal. Files use a part of their type's
range only, often 12 of 16 bits, so that the full range would leave a few levels. A volume is mapped
as a whole. Colour of 16 bits a channel, and grey of 16 bits with alpha, are not mapped: each
channel keeps its high byte, as Pillow reads it, and no window applies, so that what uses the low
bits only comes out nearly black; prepare_data --check says where.

Alpha is ignored, not blended: what lies under transparent pixels is image too, and a background
  colour would be our invention.
"""

import contextlib
import ctypes
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

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

from ahm_jax.errors import UserError

RASTER = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
VOLUMES = ('.dcm', '.nii', '.nii.gz')  # One slice or many.
SUFFIXES = RASTER + VOLUMES
FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')
# Of an image or slice: Pillow's own limit, 256 MiB of RGB. More is taken for a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_VALUES = 2**28  # Of a volume: 512 x 512 x 1024; 2 GiB where they are stored in 8 bytes.
PERCENTILES = (0.5, 99.5)
SAMPLED = 2**22  # Values of a volume, evenly spaced, that its percentiles are taken from.

# Pillow warns of bombs, and of damage that it reads past. Filters are shared by threads, so they
# cannot be set for one read.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)
warnings.filterwarnings('error', category=UserWarning, module=r'PIL\.')

# libtiff prints what is wrong with a file, where one line of ours is to say it.
with contextlib.suppress(OSError, AttributeError):
  ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class Unreadable(Exception):
  """A file that cannot be decoded; the message is its folder and name."""


class UnsupportedImage(Exception):
  """A file that can be decoded but not used.

  The message is a line that says why, and what to do.
  """


class Held(NamedTuple):
  """A file that does not lie on a disk by itself.

  Stands for the Path of an image or mask that is no volume.
  """

  path: PurePath  # Where it is, for messages.
  read_bytes: Callable[[], bytes]

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def parent(self) -> PurePath:
    return self.path.parent


class Picture(NamedTuple):
  """An image, or a slice of a volume."""

  pixels: np.ndarray  # uint8 [H, W, C], turned as its EXIF orientation asks; maybe read-only.
  spacing: tuple[float, float] | None = (
    None  # (row, column): mm from one pixel to the next down and across; None: unknown.
  )
  size: tuple[int, int] = (
    0,
    0,
  )  # The file's own (height, width); `pixels` are smaller where `at_least` let them be.


def suffix(name: str) -> str:
  """The suffix of a file name in lower case, '.nii.gz' taken whole."""
  lower = name.lower()
  return '.nii.gz' if lower.endswith('.nii.gz') else Path(lower).suffix


def shown(path: Path | Held) -> str:
  """Folder and name of a file in one line, with what is not printable escaped."""
  return printable(f'{path.parent.name}/{path.name}')


def printable(text: str) -> str:
  """Text from a file in one line, with what is not printable escaped."""
  return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def is_volume(path: Path | Held) -> bool:
  """Whether a file may hold many slices."""
  return suffix(path.name) in VOLUMES


def read(
  path: Path | Held,
  channels: int,
  *,
  window: Sequence[float] | None = None,
  at_least: tuple[int, int] | None = None,
) -> Picture:
  """Reads an image.

  Args:
    path: a file of one of `SUFFIXES`; a volume must have one slice, and lie on a disk.
    channels: 3 for RGB, 1 for grey.
    window: (centre, width) of what has more than 8 bits, in the file's own units after rescaling
      (HU in CT).
    at_least: (width, height) that suffice; a JPEG decoder may halve a larger image on its way, but
      not below this.

  Raises:
    Unreadable, UnsupportedImage: see there.
    UserError: reading it needs a package that is not installed.
  """
  if not is_volume(path):
    return _read_raster(path, channels, window, at_least)
  slices = read_slices(path, channels, window=window)
  if len(slices) > 1:
    raise UnsupportedImage(
      f'{shown(path)} holds {len(slices)} slices where one image is needed; save a slice of it'
    )
  return slices[0][1]


def read_slices(
  path: Path | Held,
  channels: int,
  *,
  window: Sequence[float] | None = None,
  at_least: tuple[int, int] | None = None,
  axis: int = 2,
) -> list[tuple[str, Picture]]:
  """Reads the slices of a volume, or an image as the only one.

  Args:
    path, channels, window, at_least: as for `read`.
    axis: of a NIfTI volume in RAS+ orientation, across which the slices lie: 0 sagittal, 1 coronal,
      2 axial.

  Returns:
    for each slice, what its image's name is to end in ('_s0007'; '' for an only one), and the
    slice.

  Raises: as `read`.
  """
  if not is_volume(path):
    return [('', _read_raster(path, channels, window, at_least))]
  from ahm_jax.data.readers import medical  # Here, since few need its packages.

  with decoding(path):
    return medical.read_slices(path, channels, window, axis)


def read_mask(path: Path | Held, classes: Sequence[str] = ()) -> np.ndarray:
  """Reads a mask: uint8 [H, W].

  Args:
    path: a file as `read` takes it.
    classes: names of the values 1, 2, ..., where 0 is background. Empty: a binary mask of 0 and 1,
      of 0 and 255, or of 0 and 65535. Of a palette image the indices count, not the colours; but
      some programs number the two colours of a binary mask by how often they occur. So of indices 0
      and 1 that of the brighter colour is the lesion where the other is black or the whole palette
      is grey, and a mask of one colour is background where that is black, lesion where it is white
      in a grey palette.

  Returns:
    class indices; 0 and 1 where `classes` is empty.

  Raises: as `read`.
  """
  masks = read_mask_slices(path, classes)
  if len(masks) > 1:
    raise UnsupportedImage(
      f'{shown(path)} holds {len(masks)} slices where one mask is needed; save a slice of it'
    )
  return masks[0]


def read_mask_slices(
  path: Path | Held, classes: Sequence[str] = (), *, axis: int = 2
) -> list[np.ndarray]:
  """Reads the masks of a volume's slices, or a mask as the only one.

  See `read_slices` and `read_mask`.
  """
  if not is_volume(path):
    return [as_mask(_mask_values(path, by_colour=not classes), path, classes)]
  from ahm_jax.data.readers import medical

  with decoding(path):
    return list(as_mask(medical.read_labels(path, axis), path, classes))


def check_pair(image: Path, mask: Path) -> None:
  """Refuses (UnsupportedImage) a volume and its mask whose axes mean different things, which
  their sizes alone may not show.
  """
  from ahm_jax.data.readers import medical

  medical.check_pair(image, mask)


def as_mask(values: np.ndarray, path: Path, classes: Sequence[str]) -> np.ndarray:
  """Stored values of a mask or of all masks of a volume, [...], as `read_mask` gives them.

  UnsupportedImage where they are none.
  """
  if values.dtype == bool:
    return values.astype(np.uint8)
  found = np.unique(values)
  if classes:
    other = [value for value in found.tolist() if value not in range(len(classes) + 1)]
    if other:
      names = ', '.join(
        f'{index} {name}' for index, name in enumerate(('background', *classes[:6]))
      )
      raise UnsupportedImage(
        f'{shown(path)} holds the value {other[0]:g}, but config.data.mask_classes names {len(classes)} '
        f'({names}{", ..." if len(classes) > 6 else ""}); name every class, or mend the mask'
      )
    return values.astype(np.uint8)
  if found.tolist() not in ([], [0], [1], [255], [65535], [0, 1], [0, 255], [0, 65535]):
    some = ', '.join(f'{value:g}' for value in found[:6].tolist()) + (
      ', ...' if len(found) > 6 else ''
    )
    raise UnsupportedImage(
      f'{shown(path)} is not binary: its values are {some}; it may hold 0 and 1, or 0 and 255 (of 16 bits, 65535); name '
      'classes, where these are some, in config.data.mask_classes'
    )
  return (values > 0).astype(np.uint8)


@contextlib.contextmanager
def decoding(path: Path | Held) -> Iterator[None]:
  """Where a decoder runs: whatever it raises becomes `Unreadable`, or `UnsupportedImage` where
  the image is too large.
  """
  try:
    yield
  except (Unreadable, UnsupportedImage, UserError):
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise _too_large(path, MAX_PIXELS) from error
  # Decoders raise OSError, SyntaxError, ValueError, struct.error and others on broken files.
  except Exception as error:
    raise Unreadable(shown(path)) from error


def check_size(path: Path | Held, *lengths: int, limit: int = MAX_PIXELS) -> None:
  """Refuses what a header promises, before it is decoded: `lengths` of an image or volume that
  are not above 0, or too many.
  """
  if min(lengths) < 1:
    raise Unreadable(shown(path))
  total = 1
  for length in lengths:
    total *= int(length)  # Python's integers do not overflow.
  if total > limit:
    raise _too_large(path, limit)


def _too_large(path: Path | Held, limit: int) -> UnsupportedImage:
  return UnsupportedImage(
    f'{shown(path)} claims to hold more than {limit} pixels, which is taken for damage or an attack; scale it down'
  )


def value_range(values: np.ndarray, window: Sequence[float] | None = None) -> tuple[float, float]:
  """The values that become 0 and 255; see the top of this file.

  Args:
    values: numbers of any shape; those that are not finite do not count.
    window: (centre, width).
  """
  if window:
    centre, width = window
    return centre - width / 2, centre + width / 2
  flat = values.reshape(-1)
  flat = flat[:: max(1, flat.size // SAMPLED)].astype(np.float64)
  flat = flat[np.isfinite(flat)]
  if not flat.size:
    return 0.0, 0.0
  low, high = np.percentile(flat, PERCENTILES)
  return (float(low), float(high)) if low < high else (float(flat.min()), float(flat.max()))


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """`values` mapped linearly from [low, high] onto 0..255 and rounded, uint8.

  0 where they are nan, or low equals high.
  """
  with np.errstate(all='ignore'):
    span = high - low
    share = (
      (values.astype(np.float64) - low) / span
      if np.isfinite(span) and span > 0
      else np.zeros(values.shape)
    )
    return (np.clip(np.nan_to_num(share, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def squashed(pixels: np.ndarray, side: int) -> np.ndarray:
  """An image uint8 [H, W, C] as networks see it, resized bicubically with antialiasing to a
  square: uint8 [side, side, C].
  """
  picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
  return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)).reshape(
    side, side, pixels.shape[-1]
  )


def with_channels(grey: np.ndarray, channels: int) -> np.ndarray:
  """uint8 [H, W] as [H, W, channels], without a copy."""
  return np.broadcast_to(grey[..., None], (*grey.shape, channels))


def _open(path: Path | Held) -> Image.Image:
  picture = Image.open(
    io.BytesIO(path.read_bytes()) if isinstance(path, Held) else path, formats=FORMATS
  )
  try:
    check_size(path, *picture.size)
  except BaseException:
    picture.close()
    raise
  return picture


def _read_raster(
  path: Path | Held, channels: int, window: Sequence[float] | None, at_least: tuple[int, int] | None
) -> Picture:
  mode = 'RGB' if channels == 3 else 'L'
  with decoding(path), _open(path) as picture:
    width, height = picture.size
    if at_least:
      picture.draft(mode, at_least)
    picture.load()
    if picture.getexif().get(ExifTags.Base.Orientation, 1) in (
      5,
      6,
      7,
      8,
    ):  # Taken with the camera turned by a quarter.
      width, height = height, width
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith(('I', 'F')):
      values = np.asarray(picture)
      pixels = with_channels(to_bytes(values, *value_range(values, window)), channels)
    else:
      picture.info.pop('transparency', None)
      pixels = np.asarray(picture.convert(mode)).reshape(picture.height, picture.width, channels)
  return Picture(pixels, None, (height, width))


def _mask_values(path: Path | Held, by_colour: bool) -> np.ndarray:
  """What a mask stores: bool or a number, [H, W].

  With `by_colour`, what a binary palette image shows, where that is plain.
  """
  with decoding(path), _open(path) as picture:
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    array = np.asarray(picture)
    colours = len(picture.getbands()) - ('A' in picture.getbands())
    if by_colour and picture.mode == 'P':
      array = _by_colour(array, picture.getpalette('RGB') or [])
  if array.ndim == 3:
    if (array[..., :colours] != array[..., :1]).any():
      raise UnsupportedImage(
        f'{shown(path)} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255, or of class indices'
      )
    array = array[..., 0]
  return array


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
