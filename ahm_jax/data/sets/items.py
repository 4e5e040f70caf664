"""The images of a data set: what lies where, and what belongs together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import cases, dispatch, raster
from ahm_jax.data.readers.base import Case, Held, Picture, UnsupportedImage, shown
from ahm_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')
PROBLEMS_SHOWN = 3


class Item(NamedTuple):
  """One image, or the volume that several come from, and what is known of it.

  It lies in a file, or is drawn.
  """

  name: str
  split: str
  label: str  # '': unknown.
  group: str
  image: Path | Held | Case | None = None  # None: it is drawn.
  mask: Path | Held | None = None
  # The image, uint8 [H, W, C], and its mask, bool [H, W]; None: it lies in a file.
  draw: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
  listed: bool = True  # Whether a table has a row for it (or there is no table).
  # Names of the values 1, 2, ... of its mask, where dataset.json tells them: others are refused.
  classes: tuple[str, ...] = ()

  @property
  def has_mask(self) -> bool:
    return self.mask is not None or self.draw is not None

  @property
  def has_slices(self) -> bool:
    """Whether it may hold many slices."""
    return self.image is not None and dispatch.is_volume_file(self.image)

  @property
  def file(self) -> str:
    """Folder and name of its image, to be shown; '' where it is drawn."""
    return '' if self.image is None else shown(self.image)


class Listing(NamedTuple):
  """What a data set holds, and what is to be said of it, in lines for the user."""

  items: list[Item]  # In the order that they are prepared in.
  problems: list[str]  # What does not fit together, but for:
  crossing: list[str]  # groups whose images are in several splits.
  notes: list[str]  # What is ignored, and groups that may be other than is meant.


class Slice(NamedTuple):
  """One image of an item and its mask."""

  name: str
  picture: Picture
  mask: np.ndarray | None  # At the image's own size: bool [h, w], or class indices, uint8 [h, w].


def refuse(root: Path, problems: Sequence[str]) -> None:
  """Raises a UserError of one line with the first few of `problems`, if there are any."""
  if problems:
    more = len(problems) - PROBLEMS_SHOWN
    rest = f'; and {more} more like these' if more > 0 else ''
    raise UserError(f'{root}: ' + '; '.join(problems[:PROBLEMS_SHOWN]) + rest)


def crossing_groups(items: Sequence[Item], where: str) -> list[str]:
  """What is to be said of groups whose images `where` gives different splits."""
  first: dict[str, Item] = {}
  problems = {}
  for item in items:
    other = first.setdefault(item.group, item)
    if other.split != item.split:
      by_name = item.group in (other.name, item.name)
      rest = f', or image {item.group!r}, which is in it by its name, another group'
      problems[item.group] = (
        f'{where}: group {item.group!r} is in split {other.split} (image {other.name!r}) and in '
        f'{item.split} (image {item.name!r}); give all of a group one split'
        f'{rest if by_name else ""}'
      )
  return list(problems.values())


# What an item holds.


def read(item: Item, config: DataConfig, at_least: tuple[int, int] | None = None) -> list[Slice]:
  """The slices of an item that are used, with their masks.

  Args:
    at_least: as of `dispatch.read_slices`.

  Raises:
    Unreadable, UnsupportedImage: see there.
  """
  slices = with_masks(read_images(item, config, at_least), item, config)
  return slices[:: config.every_slice]


def read_images(
  item: Item, config: DataConfig, at_least: tuple[int, int] | None = None
) -> list[Slice]:
  """All slices of an item; where it lies in a file, without their masks. Else as `read`."""
  if item.draw is not None:
    pixels, mask = item.draw()
    height, width = mask.shape
    return [Slice(item.name, Picture(pixels, None, (height, width)), mask)]
  assert item.image is not None
  if isinstance(item.image, Case):
    wanted = cases.entries(config.intensity, config.modalities)
    found = cases.read_slices(item.image, wanted, config.slice_axis)
  else:
    found = dispatch.read_slices(
      item.image, config.channels, window=config.window, at_least=at_least, axis=config.slice_axis
    )
  return [Slice(item.name + suffix, picture, None) for suffix, picture in found]


def with_masks(slices: Sequence[Slice], item: Item, config: DataConfig) -> list[Slice]:
  """All slices of an item, with the masks of its mask file where there is one. Raises as `read`."""
  if item.image is None or item.mask is None:
    return list(slices)
  image = item.image.first if isinstance(item.image, Case) else item.image
  masks = dispatch.read_mask_slices(
    item.mask,
    item.classes or config.mask_classes,
    axis=config.slice_axis,
    image=image,
    named_by='dataset.json' if item.classes else 'config.data.mask_classes',
  )
  mask_name, image_name = shown(item.mask), shown(item.image)
  if len(masks) != len(slices):
    raise UnsupportedImage(
      f'{mask_name} holds {len(masks)} slices but {image_name} holds {len(slices)}; make them the '
      'same shape'
    )
  for mask, part in zip(masks, slices, strict=True):
    height, width = part.picture.size
    if mask.shape != (height, width):
      raise UnsupportedImage(
        f'{mask_name} is {mask.shape[1]}x{mask.shape[0]} but {image_name} is {width}x{height} '
        f'(width x height); {_size_cure(part.picture, item)}'
      )
  return [
    part._replace(mask=mask if config.mask_classes else mask.astype(bool))
    for part, mask in zip(slices, masks, strict=True)
  ]


def is_turned_alone(picture: Picture, item: Item) -> bool:
  """Whether an image is turned by its EXIF orientation, and its mask is not turned alike, as where
  that was drawn on the pixels as they are stored.
  """
  if picture.orientation == 1 or item.mask is None or dispatch.is_volume_file(item.mask):
    return False
  return picture.orientation != raster.orientation(item.mask)  # Of a PNG it takes decoding it.


def _size_cure(picture: Picture, item: Item) -> str:
  assert item.mask is not None
  if is_turned_alone(picture, item):
    return (
      f'the image is turned by its EXIF orientation ({picture.orientation}), the mask perhaps is '
      'not; save the image turned, or without the tag'
    )
  if (
    picture.orientation == 1
    and not dispatch.is_volume_file(item.mask)
    and raster.orientation(item.mask) > 1
  ):
    return (
      'the mask is turned by its EXIF orientation, the image is not; save the mask without the tag'
    )
  return 'make them the same size'
