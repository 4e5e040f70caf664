"""Reads every image and mask of a data set once, and keeps of each what is needed to say what is
wrong with the set.

Nothing is written. Of an image some kilobytes are kept, whatever its size.
"""

import collections
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from ahm_jax.config import DataConfig
from ahm_jax.data import builders
from ahm_jax.data.audit import duplicates
from ahm_jax.data.audit.duplicates import SIDE, Fingerprint
from ahm_jax.data.readers import files
from ahm_jax.data.readers.files import Held, Picture, Unreadable, UnsupportedImage
from ahm_jax.data.sets import isic2018, phantom
from ahm_jax.data.sets.folder import SPLITS, Item, crossing_groups, list_folder

_KINDS = {
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
DEEP = '16 bit a channel'  # What ends the kind of a file that is read by its high bytes.
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
  pages: int  # Of a TIFF, of which the first one is read; 1 of others.
  contrast: float  # Standard deviation of the grey levels, of 255.
  highest: int  # Largest value of a channel, of 255.
  print: Fingerprint
  thumbnail: bytes  # As `inspect` was told to make it.
  mask: 'SeenMask | None'  # None: it has none, or none that can be used.
  has_mask_file: bool


@dataclass(frozen=True, eq=False)
class SeenMask:
  coverage: tuple[float, ...]  # Each class's share of the pixels, of a binary mask the lesion's.
  borders: int  # How many of the image's four borders it touches.
  digest: bytes  # SHA-256 of its pixels and shape.
  small: np.ndarray  # uint8 [SIDE, SIDE], what share of each pixel is not background, of 255.

  @property
  def total(self) -> float:
    return sum(self.coverage)


class Problem(NamedTuple):
  """A file that cannot be read, or not be used."""

  kind: str  # 'unreadable' or 'unfit'.
  name: str  # Of the image.
  split: str
  text: str


@dataclass(frozen=True, eq=False)
class Inspection:
  images: tuple[ImageRecord, ...]
  problems: tuple[Problem, ...]
  layout: tuple[str, ...]  # What does not fit together, but for:
  crossing: tuple[str, ...]  # groups in several splits.
  notes: tuple[str, ...]  # What is passed over, and groups that may be other than is meant.


def inspect(
  config: DataConfig, thumbnail: Callable[[np.ndarray, np.ndarray | None], bytes]
) -> Inspection:
  """Reads all images and masks of a data set, in a few threads and under a progress bar.

  Args:
    config: what to read; `skip_unreadable` does not matter here, and `image_size` only for
      phantoms, which are drawn at it.
    thumbnail: makes a small picture of an image, uint8 [H, W, C], and its mask, uint8 [H, W] or
      None, to show it by.

  Raises:
    UserError: there is no data set to look at, or it cannot be listed.
  """
  layout: list[str] = []
  crossing: list[str] = []
  notes: list[str] = []
  if config.name == 'phantom':
    counts = {split: getattr(config.phantom, split) for split in SPLITS}
    work = [(split, index) for split, count in counts.items() for index in range(count)]
    look = functools.partial(_look_at_phantom, config=config, thumbnail=thumbnail)
  else:
    listing, table = (
      (isic2018.list_items, isic2018.GROUPINGS)
      if config.name == 'isic2018'
      else (list_folder, 'labels.csv')
    )
    work = listing(config, layout, notes)
    crossing = crossing_groups(work, table)
    layout = [line for line in layout if line not in crossing]
    look = functools.partial(_look, config=config, thumbnail=thumbnail)
  images: list[ImageRecord] = []
  problems: list[Problem] = []
  with threadpool_limits(1, user_api='blas'):
    for seen, wrong in builders.in_parallel(look, work, 'check'):
      images += seen
      problems += wrong
  names = collections.Counter(
    image.name for image in images
  )  # A slice may have the name of an image.
  layout += [
    f'{count} images are named {name!r}; rename all but one'
    for name, count in names.items()
    if count > 1
  ]
  return Inspection(tuple(images), tuple(problems), tuple(layout), tuple(crossing), tuple(notes))


# One image.


def _look(
  item: Item, config: DataConfig, thumbnail: Callable
) -> tuple[list[ImageRecord], list[Problem]]:
  problems: list[Problem] = []
  data = b''
  try:
    image, data = _into_memory(item.image)
    kind, pages = _header(image)
    slices = files.read_slices(image, config.channels, window=config.window, axis=config.slice_axis)
  except (Unreadable, UnsupportedImage) as error:
    return [], [_problem(item, error)]
  masks = [None] * len(slices)
  if item.mask is not None:
    try:
      masks = builders.read_masks(item, [picture.size for _, picture in slices], config)
    except (Unreadable, UnsupportedImage) as error:
      problems.append(_problem(item, error))
  chosen = list(zip(slices, masks, strict=True))[:: config.every_slice]
  about = dict(
    file=files.shown(item.image),
    split=item.split,
    label=item.label,
    group=item.group,
    listed=item.listed,
    kind=kind if len(slices) == 1 else f'volumes of slices, {kind}',
    pages=pages,
    has_mask_file=item.mask is not None,
  )
  classes = max(1, len(config.mask_classes))
  seen = [
    _seen(
      item.name + suffix,
      picture,
      mask,
      classes,
      data if len(slices) == 1 else b'',
      thumbnail,
      about,
    )
    for (suffix, picture), mask in chosen
  ]
  return seen, problems


def _look_at_phantom(
  where: tuple[str, int], config: DataConfig, thumbnail: Callable
) -> tuple[list[ImageRecord], list[Problem]]:
  split, index = where
  rng = phantom.generator(config.split_seed, split, index)
  image, mask, label = phantom.draw(rng, config.image_size, config.channels)
  name = f'{split}_{index:06d}'
  about = dict(
    file='',
    split=split,
    label=phantom.CLASS_NAMES[label],
    group=name,
    listed=True,
    kind='drawn',
    pages=1,
    has_mask_file=True,
  )
  return [_seen(name, Picture(image, None, image.shape[:2]), mask, 1, b'', thumbnail, about)], []


def _into_memory(path: Path | Held) -> tuple[Path | Held, bytes]:
  """A file that is read from memory from now on, and its bytes.

  None of a volume or a huge file, which counts by its pixels.
  """
  if files.is_volume(path):
    return path, b''
  with files.decoding(path):
    if isinstance(path, Path) and path.stat().st_size > _MAX_BYTES:
      return path, b''
    data = path.read_bytes()
  return Held(path if isinstance(path, Path) else path.path, lambda: data), data


def _header(path: Path | Held) -> tuple[str, int]:
  """What a file holds, as far as its header says, and in how many pages."""
  if files.is_volume(path):
    return 'medical', 1
  try:
    with Image.open(
      io.BytesIO(path.read_bytes()) if isinstance(path, Held) else path, formats=files.FORMATS
    ) as picture:
      kind = (
        'grey, 16 bit'
        if picture.mode.startswith('I;16')
        else _KINDS.get(picture.mode, picture.mode)
      )
      if picture.format in ('PNG', 'TIFF') and ';16' in str(
        picture.tile[:1]
      ):  # Pillow's mode is that of the high bytes.
        kind = kind.replace('8 bit', DEEP)
      return kind, picture.n_frames if picture.format == 'TIFF' else 1
  except Exception:  # The reader that comes next says what is wrong.
    return '', 1


def _problem(item: Item, error: Exception) -> Problem:
  if isinstance(error, UnsupportedImage):
    return Problem('unfit', item.name, item.split, str(error))
  return Problem('unreadable', item.name, item.split, f'{error} is damaged or not an image')


def _seen(
  name: str,
  picture: Picture,
  mask: np.ndarray | None,
  classes: int,
  data: bytes,
  thumbnail: Callable,
  about: dict,
) -> ImageRecord:
  pixels = picture.pixels
  if mask is not None:
    mask = mask.astype(np.uint8)
  step = max(1, pixels[..., 0].size // _MAX_SAMPLES)
  return ImageRecord(
    name=name,
    width=picture.size[1],
    height=picture.size[0],
    contrast=float(pixels.reshape(-1, pixels.shape[-1])[::step].mean(1).std()),
    highest=int(pixels.max()),
    print=duplicates.fingerprint(pixels, data),
    thumbnail=thumbnail(pixels, mask),
    mask=None if mask is None else _seen_mask(mask, classes),
    **about,
  )


def _seen_mask(mask: np.ndarray, classes: int) -> SeenMask:
  counts = np.bincount(mask.ravel(), minlength=classes + 1)
  inside = mask > 0
  digest = hashlib.sha256(str(mask.shape).encode() + mask.tobytes()).digest()
  small = Image.fromarray(inside.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.BOX)
  return SeenMask(
    coverage=tuple((counts[1 : classes + 1] / mask.size).tolist()),
    borders=sum(bool(edge.any()) for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1])),
    digest=digest,
    small=np.asarray(small),
  )


# Numbers of the whole.


def numbers(inspection: Inspection, mask_classes: Sequence[str] = ()) -> dict:
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


def _split_numbers(inspection: Inspection, split: str, seen: set[str]) -> dict:
  images = [image for image in inspection.images if image.split == split]
  lost = {
    problem.name
    for problem in inspection.problems
    if problem.split == split and problem.kind == 'unreadable'
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
