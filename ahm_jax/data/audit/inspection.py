"""Reads every image and mask of a data set once, and keeps of each what is needed to say what is
wrong with the set.

Nothing is written. Of an image some kilobytes are kept, whatever its size.
"""

import collections
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import sets
from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import SIDE, Fingerprint
from ahm_jax.data.mask_png import encode_mask
from ahm_jax.data.readers import raster
from ahm_jax.data.readers.base import (
  Case,
  Held,
  UnavailableFile,
  Unreadable,
  UnsupportedImage,
  decoding,
)
from ahm_jax.data.resize import squashed_mask
from ahm_jax.data.sets import items
from ahm_jax.data.sets.items import SPLITS, Item, Slice
from ahm_jax.data.sets.source import available
from ahm_jax.data.threads import in_parallel
from ahm_jax.data.vanishing import Fate, fate

# Kinds of problems.
UNREADABLE, UNSUPPORTED, UNAVAILABLE = 'unreadable', 'unsupported', 'unavailable'
_PROBLEMS = (Unreadable, UnsupportedImage, UnavailableFile)
_MAX_BYTES = 2**28  # Of a file that is held in memory.
_MAX_SAMPLES = 2**16  # Pixels, evenly spaced, that an image's contrast is taken from.


@dataclass(frozen=True, eq=False)
class ImageRecord:
  """What is kept of an image, or of a slice of a volume."""

  name: str
  file: str  # Folder and name; '' where the image is drawn.
  split: str
  label: str  # '': unknown.
  group: str
  listed: bool  # Whether a table has a row for it, or there is none.
  width: int  # Pixels.
  height: int
  kind: str  # What the file holds, as 'colour, 8 bit'.
  pages: int  # Or frames, of which the first one is read.
  contrast: float  # Standard deviation of the grey levels, of 255.
  highest: int  # Largest value of a channel, of 255.
  print: Fingerprint
  thumbnail: bytes  # As `inspect` was told to make it.
  mask: 'MaskRecord | None'  # None: it has none, or none that can be used.
  has_mask_file: bool
  turned: int  # EXIF orientation (2 to 8) by which it is turned and its mask is not; 1: none.
  remark: str = ''  # As of a `Picture`.


@dataclass(frozen=True, eq=False)
class MaskRecord:
  coverage: tuple[float, ...]  # Each class's share of the pixels, of a binary mask the lesion's.
  borders: int  # How many of the image's four borders it touches.
  digest: bytes  # SHA-256 of its pixels and shape.
  small: np.ndarray  # uint8 [SIDE, SIDE], what share of each pixel is not background, of 255.
  fate: Fate  # Of its lesions at config.data.image_size.
  png: bytes  # The mask, as `encode_mask` has it, where one of them vanishes; else b''.

  @property
  def total(self) -> float:
    return sum(self.coverage)


class Problem(NamedTuple):
  """A file that cannot be read, or not be used, or that the system does not hand out."""

  kind: str  # UNREADABLE, UNSUPPORTED or UNAVAILABLE.
  name: str  # Of the image.
  split: str
  text: str


@dataclass(frozen=True, eq=False)
class Inspection:
  images: tuple[ImageRecord, ...]
  problems: tuple[Problem, ...]
  layout: tuple[str, ...]  # What does not fit together, but for:
  crossing: tuple[str, ...]  # groups in several splits.
  notes: tuple[str, ...]  # What is ignored, and groups that may be other than is meant.


Thumbnail = Callable[[np.ndarray, np.ndarray | None], bytes]


def inspect(config: DataConfig, thumbnail: Thumbnail) -> Inspection:
  """Reads all images and masks of a data set, in a few threads and under a progress bar.

  Args:
    config: what to read; `skip_unreadable` does not matter here, and `image_size` only for
      phantoms, which are drawn at it, and for lesions that vanish at it.
    thumbnail: makes a small picture of an image, uint8 [H, W, C], and its mask, uint8 [H, W] or
      None, to show it by.

  Raises:
    UserError: there is no data set to look at, or it cannot be listed.
  """
  with available():
    listing = sets.find(config).list_items(config)
  inspect_item = functools.partial(_inspect_item, config=config, thumbnail=thumbnail)
  images: list[ImageRecord] = []
  problems: list[Problem] = []
  for found, wrong in in_parallel(inspect_item, listing.items, 'check'):
    images += found
    problems += wrong
  names = collections.Counter(image.name for image in images)
  layout = listing.problems + [  # A slice may have the name of an image.
    f'{count} images are named {name!r}; rename all but one'
    for name, count in names.items()
    if count > 1
  ]
  return Inspection(
    tuple(images), tuple(problems), tuple(layout), tuple(listing.crossing), tuple(listing.notes)
  )


# One image.


def _inspect_item(
  item: Item, config: DataConfig, thumbnail: Thumbnail
) -> tuple[list[ImageRecord], list[Problem]]:
  problems: list[Problem] = []
  try:
    held, data = _into_memory(item)
    kind, pages = _describe(held)
    slices = items.read_images(held, config)
  except _PROBLEMS as error:
    return [], [_problem(item, error)]
  try:
    slices = items.with_masks(slices, held, config)
  except _PROBLEMS as error:
    problems.append(_problem(item, error))
  about = dict(
    file=item.file,
    split=item.split,
    label=item.label,
    group=item.group,
    listed=item.listed,
    kind=kind if len(slices) == 1 else f'volumes of slices, {kind}',
    pages=pages,
    has_mask_file=item.has_mask,
    turned=_turned(slices[0], item),
  )
  data = data if len(slices) == 1 else b''
  chosen = slices[:: config.every_slice]
  return [_image_record(part, config, data, thumbnail, about) for part in chosen], problems


def _turned(part: Slice, item: Item) -> int:
  alone = part.mask is not None and items.is_turned_alone(part.picture, item)
  return part.picture.orientation if alone else 1


def _into_memory(item: Item) -> tuple[Item, bytes]:
  """An item whose image is read from memory from now on, and the bytes of its file.

  None of a volume, a huge file or a drawing, which counts by its pixels.
  """
  path = item.image
  if path is None or isinstance(path, Case) or item.has_slices:
    return item, b''
  with decoding(path):
    if isinstance(path, Path) and path.stat().st_size > _MAX_BYTES:
      return item, b''
    data = path.read_bytes()
  place = path if isinstance(path, Path) else path.path
  return item._replace(image=Held(place, lambda: data)), data


def _describe(item: Item) -> tuple[str, int]:
  """What an item's file holds, as far as its header says, and in how many pages."""
  if item.image is None:
    return 'drawn', 1
  if isinstance(item.image, Case):
    return 'modalities', 1
  return ('medical', 1) if item.has_slices else raster.describe(item.image)


def _problem(item: Item, error: Exception) -> Problem:
  if isinstance(error, UnsupportedImage):
    return Problem(UNSUPPORTED, item.name, item.split, str(error))
  if isinstance(error, UnavailableFile):
    return Problem(UNAVAILABLE, item.name, item.split, str(error))
  return Problem(UNREADABLE, item.name, item.split, f'{error} is damaged or not an image')


def _image_record(
  part: Slice, config: DataConfig, data: bytes, thumbnail: Thumbnail, about: dict[str, Any]
) -> ImageRecord:
  pixels = part.picture.pixels
  mask = None if part.mask is None else part.mask.astype(np.uint8)
  classes = max(1, len(config.mask_classes))
  step = max(1, pixels[..., 0].size // _MAX_SAMPLES)
  height, width = part.picture.size
  return ImageRecord(
    name=part.name,
    width=width,
    height=height,
    contrast=float(pixels.reshape(-1, pixels.shape[-1])[::step].mean(1).std()),
    highest=int(pixels.max()),
    print=duplicates.fingerprint(pixels, data),
    thumbnail=thumbnail(pixels, mask),
    mask=None if part.mask is None else _mask_record(part.mask, classes, config.image_size),
    remark=part.picture.remark,
    **about,
  )


def _mask_record(drawn: np.ndarray, classes: int, size: int) -> MaskRecord:
  """Args: drawn: bool [h, w], or class indices, uint8 [h, w]."""
  found = fate(drawn, squashed_mask(drawn, size))
  mask = drawn.astype(np.uint8)
  counts = np.bincount(mask.ravel(), minlength=classes + 1)
  inside = mask > 0
  digest = hashlib.sha256(str(mask.shape).encode() + mask.tobytes()).digest()
  small = Image.fromarray(inside.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.BOX)
  return MaskRecord(
    coverage=tuple((counts[1 : classes + 1] / mask.size).tolist()),
    borders=sum(bool(edge.any()) for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1])),
    digest=digest,
    small=np.asarray(small),
    fate=found,
    png=encode_mask(drawn) if found.lost else b'',
  )


# Numbers of the whole.


def numbers(inspection: Inspection, mask_classes: Sequence[str] = ()) -> dict[str, Any]:
  """Counts and sizes of what was seen, as JSON holds them.

  Returns:
    'splits': by split, 'images', 'unreadable' (images that gave nothing), 'masks', 'labels',
      'groups', 'classes' (count by label).
    'sizes': 'width', 'height', 'aspect' (width / height), each [least, median, largest]; None
    without images.
    'kinds': how many images by what their files hold.
    'coverage': by mask class (of a binary mask 'lesion'), 'masks' (how many hold it) and 'share' of
      the pixels of those, [least, median, largest].
  """
  images = inspection.images
  names = tuple(mask_classes) or ('lesion',)
  masks = [image.mask for image in images if image.mask is not None]
  seen = {image.name for image in images}
  coverage = {}
  for index, name in enumerate(names):
    shares = [mask.coverage[index] for mask in masks if mask.coverage[index] > 0]
    coverage[name] = {'masks': len(shares), 'share': spread(shares)}
  return {
    'splits': {split: _split_numbers(inspection, split, seen) for split in SPLITS},
    'sizes': {
      'width': spread([image.width for image in images]),
      'height': spread([image.height for image in images]),
      'aspect': spread([image.width / image.height for image in images]),
    },
    'kinds': dict(collections.Counter(image.kind for image in images).most_common()),
    'coverage': coverage,
  }


def spread(values: Sequence[float]) -> list[float] | None:
  """Least, median and largest; None of nothing."""
  return [float(np.quantile(values, q)) for q in (0, 0.5, 1)] if len(values) else None


def _split_numbers(inspection: Inspection, split: str, seen: set[str]) -> dict[str, Any]:
  images = [image for image in inspection.images if image.split == split]
  lost = {
    problem.name
    for problem in inspection.problems
    if problem.split == split and problem.kind == UNREADABLE
  }
  return {
    'images': len(images),
    'unreadable': len(lost - seen),
    'masks': sum(image.mask is not None for image in images),
    'labels': sum(bool(image.label) for image in images),
    'groups': len({image.group for image in images}),
    'classes': dict(
      sorted(collections.Counter(image.label for image in images if image.label).items())
    ),
  }
