"""An image as prediction reads it: its slices, each with the windows that a network sees of it."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.config import Config
from ahm_jax.data.readers import dispatch, raster
from ahm_jax.data.readers.base import (
  RASTER,
  Picture,
  UnavailableFile,
  Unreadable,
  UnsupportedImage,
  is_odd,
  link_problem,
  shown,
  suffix,
)
from ahm_jax.predict.listing import as_cell, stem
from ahm_jax.predict.options import Options
from ahm_jax.predict.views import Tiled, Whole, view

OVERLAY_SIDE = 1024  # Longer side of an overlay in pixels, at most.
_ENDING = (errno.EMFILE, errno.ENFILE)  # What the system refuses of every file, not of this one.


@dataclass(eq=False)
class Slice:
  """An image, or a slice of a volume, that was read."""

  image: str  # Its path below the folder.
  name: str  # As its files are to be called, without suffixes.
  number: int | str  # Of the slice in its volume, from 0; '' for an image.
  size: tuple[int, int]  # Height and width.
  spacing: tuple[float, float] | None  # mm from a pixel to the next, down and across.
  view: Whole | Tiled
  last: bool  # Of its volume.
  pages: int | str = ''  # That its file holds, of which this is the first; '' for a volume.
  shown: np.ndarray | None = None  # For its overlay, uint8 [h, w, 3].
  diagnosis: np.ndarray | None = None  # Probability of each class.


class Problem(NamedTuple):
  """An image that cannot be predicted."""

  image: str  # Its path below the folder.
  text: str  # What is wrong with it, in a line.
  last: bool = True  # As of a `Slice`: nothing else comes of the image.


def read(root: Path, image: str, config: Config, options: Options) -> list[Slice | Problem]:
  """Reads an image as training reads it.

  Args:
    root: the folder.
    image: path below it.
    config: of the segmenter.

  Returns:
    Its slices in order, or a `Problem` alone.
  """
  if problem := _odd_name(image) or link_problem(root / image, root):
    return [Problem(image, problem)]
  return read_file(root / image, image, config, options)


def read_file(path: Path, image: str, config: Config, options: Options) -> list[Slice | Problem]:
  """As `read`, of a file that may lie anywhere and is called `image`."""
  try:
    return _slices(path, image, config, options)
  except Unreadable as error:
    return [Problem(image, f'{error} is damaged or not an image; replace it')]
  except UnsupportedImage as error:
    return [Problem(image, str(error))]
  except UnavailableFile as error:
    if getattr(error.__cause__, 'errno', None) in _ENDING:
      raise
    return [Problem(image, str(error))]
  except MemoryError:
    return [Problem(image, f'{shown(path)} does not fit into memory; free some, or split it')]


def _odd_name(image: str) -> str:
  if not is_odd(image):
    return ''
  return f'{as_cell(image)} has control characters in its name, shown as \\x..; rename it'


def of_pixels(pixels: np.ndarray, image: str, config: Config, options: Options) -> Slice:
  """An image, uint8 [H, W, C], that was read already and is called `image`."""
  return Slice(
    image=image,
    name=image,
    number='',
    size=(pixels.shape[0], pixels.shape[1]),
    spacing=None,
    view=view(pixels, config.data.image_size, options.tile, options.overlap),
    last=True,
    shown=_shrunk(pixels) if options.overlays else None,
  )


def _slices(path: Path, image: str, config: Config, options: Options) -> list[Slice | Problem]:
  pictures, whole = _pictures(path, config, options)
  pages = raster.describe(path)[1] if suffix(image) in RASTER else ''
  return [
    Slice(
      image=image,
      name=stem(image) + ending,
      number=number if ending else '',
      size=picture.size,
      spacing=picture.spacing,
      view=view(picture.pixels, config.data.image_size, options.tile, options.overlap),
      last=number == len(pictures) - 1,
      pages=pages,
      shown=_shrunk(full.pixels) if options.overlays else None,
    )
    for number, ((ending, picture), (_, full)) in enumerate(zip(pictures, whole, strict=True))
  ]


_Pictures = list[tuple[str, Picture]]


def _pictures(path: Path, config: Config, options: Options) -> tuple[_Pictures, _Pictures]:
  """The slices for the network, maybe decoded smaller, and those for overlays, which are not."""
  side, channels = config.data.image_size, config.data.channels
  window, axis = config.data.window, config.data.slice_axis
  at_least = None if options.tile else (2 * side, 2 * side)
  pictures = dispatch.read_slices(path, channels, window=window, at_least=at_least, axis=axis)
  if options.overlays and any(picture.pixels.shape[:2] != picture.size for _, picture in pictures):
    return pictures, dispatch.read_slices(path, channels, window=window, axis=axis)
  return pictures, pictures


def _shrunk(pixels: np.ndarray) -> np.ndarray:
  """An image uint8 [H, W, C] in RGB, its longer side at most OVERLAY_SIDE: uint8 [h, w, 3]."""
  picture = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).convert('RGB')
  picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)
  return np.asarray(picture)
