"""The images of a data set as their files hold them, where a prepared split has them resized."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.dataset import BUILDERS, Split
from ahm_jax.data.readers import files
from ahm_jax.data.readers.files import Unreadable, UnsupportedImage
from ahm_jax.errors import UserError


def pictures(config: DataConfig, name: str, split: Split) -> Iterator[np.ndarray]:
  """Reads the images of a split one by one, in its order, at their own size; windows and
  orientation are those of preparation.

  Args:
    name: 'train', 'validation' or 'test'.
    split: that split of the prepared data; some of its images may be left out.

  Yields:
    uint8 [h, w, C], one for each of `split.ids`; maybe read-only.

  Raises:
    UserError: the files are no longer those that were prepared.
  """
  if config.name == 'phantom':  # They are drawn at the size that they are prepared in.
    yield from split.images
    return
  found = _read(config, name, set(split.ids))
  for expected in split.ids:
    if (read := next(found, None)) is None or read[0] != expected:
      raise UserError(
        f'{config.root} has changed since its images were prepared; start the same command again'
      )
    yield read[1]


def _read(config: DataConfig, name: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
  """Names and pixels, in the order in which they were prepared."""
  for item in BUILDERS[config.name].list_items(config):
    if item.split != name or not (item.name in wanted or files.is_volume(item.image)):
      continue
    try:
      slices = files.read_slices(
        item.image, config.channels, window=config.window, axis=config.slice_axis
      )
    except Unreadable as problem:
      if (
        item.name not in wanted and config.skip_unreadable
      ):  # It was passed over in preparation too.
        continue
      raise UserError(
        f'{Path(config.root)}: {problem} can no longer be read; replace it'
      ) from problem
    except UnsupportedImage as problem:
      raise UserError(f'{Path(config.root)}: {problem}') from problem
    for suffix, picture in slices[:: config.every_slice]:
      if item.name + suffix in wanted:
        yield item.name + suffix, picture.pixels
