"""An image as prediction reads it: its slices, each with the windows that a network sees of it."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.config import Config
from ahm_jax.data import resize
from ahm_jax.data.readers import cases, dispatch, nifti, raster
from ahm_jax.data.readers.base import (
  RASTER,
  Case,
  Picture,
  UnavailableFile,
  Unreadable,
  UnsupportedImage,
  is_odd,
  link_problem,
  shown,
  suffix,
)
from ahm_jax.predict import made, volumes
from ahm_jax.predict.listing import as_cell, stem
from ahm_jax.predict.options import Options
from ahm_jax.predict.views import Tiled, Whole, view

OVERLAY_SIDE = 1024  # Longer side of an overlay in pixels, at most.
_NONE: Mapping[str, Case] = MappingProxyType({})
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
  lacking: Sequence[str] = ()  # Modalities that it has no file of, which are mid-grey.
  shown: np.ndarray | None = None  # For its overlay, uint8 [h, w, 3].
  diagnosis: np.ndarray | None = None  # Probability of each class.
  volume: volumes.Volume | None = None  # That its mask goes into too.


class Problem(NamedTuple):
  """An image that cannot be predicted."""

  image: str  # Its path below the folder.
  text: str  # What is wrong with it, in a line.
  last: bool = True  # As of a `Slice`: nothing else comes of the image.


def read(
  root: Path, image: str, config: Config, options: Options, found: Mapping[str, Case] = _NONE
) -> list[Slice | Problem]:
  """Reads an image as training reads it.

  Args:
    root: the folder.
    image: path below it.
    config: of the segmenter.
    found: cases by what stands for their paths, where the segmenter sees modalities.

  Returns:
    Its slices in order, or a `Problem` alone.
  """
  place = found.get(image, root / image)
  links = (link_problem(path, root) for path in made.files(place))
  if problem := _odd_name(image) or next(filter(None, links), ''):
    return [Problem(image, problem)]
  return read_place(place, image, config, options)


def read_place(
  place: Path | Case, image: str, config: Config, options: Options
) -> list[Slice | Problem]:
  """As `read`, of what may lie anywhere, and is called `image`."""
  may_lack = config.data.modality_dropout > 0
  modalities = config.data.modalities
  if isinstance(place, Case) and not may_lack and (problem := cases.incomplete(place, modalities)):
    return [Problem(image, problem)]
  try:
    return _slices(place, image, config, options)
  except Unreadable as error:
    return [Problem(image, f'{error} is damaged or not an image; replace it')]
  except UnsupportedImage as error:
    return [Problem(image, str(error))]
  except UnavailableFile as error:
    if getattr(error.__cause__, 'errno', None) in _ENDING:
      raise
    return [Problem(image, str(error))]
  except MemoryError:
    return [Problem(image, f'{shown(place)} does not fit into memory; free some, or split it')]


def of_pixels(
  pixels: np.ndarray, image: str, config: Config, options: Options, lacking: Sequence[str] = ()
) -> Slice:
  """An image, uint8 [H, W, C], that was read already, and is called `image`."""
  return Slice(
    image=image,
    name=image,
    number='',
    size=(pixels.shape[0], pixels.shape[1]),
    spacing=None,
    view=view(pixels, config.data.image_size, options.tile, options.overlap),
    last=True,
    lacking=lacking,
    shown=_shrunk(pixels) if options.overlays else None,
  )


def is_of_nnunet(config: Config) -> bool:
  """Whether a network was trained on a data set of nnU-Net, whose names of files it then knows; not
  where it sees modalities, for `cases` has taken the numbers off already.
  """
  return config.data.name == 'nnunet' and not config.data.modalities


def _odd_name(image: str) -> str:
  if not is_odd(image):
    return ''
  return f'{as_cell(image)} has control characters in its name, shown as \\x..; rename it'


def _slices(
  place: Path | Case, image: str, config: Config, options: Options
) -> list[Slice | Problem]:
  pictures, whole = _pictures(place, config, options)
  volume = _volume(place, image, config)
  if volume and volume.slices != [picture.size for _, picture in pictures]:
    return [Problem(image, f'{shown(place)} has changed while it was read; try again')]
  pages = _pages(place)
  lacking = cases.lacking(place, config.data.modalities) if isinstance(place, Case) else ()
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
      lacking=lacking,
      shown=_shrunk(full.pixels) if options.overlays else None,
      volume=volume,
    )
    for number, ((ending, picture), (_, full)) in enumerate(zip(pictures, whole, strict=True))
  ]


def _volume(place: Path | Case, image: str, config: Config) -> volumes.Volume | None:
  named = volumes.named(image, place)
  if not volumes.is_kept(named):
    return None
  layout = nifti.layout(place.first if isinstance(place, Case) else place)
  return volumes.Volume(volumes.place(named, is_of_nnunet(config)), layout, config.data.slice_axis)


def _pages(place: Path | Case) -> int | str:
  """As a `Slice` has them; of a case, all are read."""
  if isinstance(place, Case) or suffix(place.name) not in RASTER:
    return ''
  return raster.describe(place)[1]


_Pictures = list[tuple[str, Picture]]


def _pictures(path: Path | Case, config: Config, options: Options) -> tuple[_Pictures, _Pictures]:
  """The slices for the network, maybe decoded smaller, and those for overlays, which are not."""
  if isinstance(path, Case):
    wanted = cases.entries(config.data.intensity, config.data.modalities)
    both = cases.read_slices(path, wanted, config.data.slice_axis)
    return both, both
  side, channels = config.data.image_size, config.data.channels
  window, axis = config.data.window, config.data.slice_axis
  at_least = None if options.tile else (2 * side, 2 * side)
  pictures = dispatch.read_slices(path, channels, window=window, at_least=at_least, axis=axis)
  if options.overlays and any(picture.pixels.shape[:2] != picture.size for _, picture in pictures):
    return pictures, dispatch.read_slices(path, channels, window=window, axis=axis)
  return pictures, pictures


def _shrunk(pixels: np.ndarray) -> np.ndarray:
  """The picture of an image uint8 [H, W, C], of at most OVERLAY_SIDE pixels a side: uint8 [h, w,
  3].
  """
  picture = resize.picture(pixels)
  picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE), Image.Resampling.BICUBIC)
  return np.asarray(picture)
