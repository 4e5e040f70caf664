"""The images of a data set as their files hold them, where a prepared split has them resized."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data import sets
from ahm_jax.data.dataset import Split
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage
from ahm_jax.data.sets import items
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
  found = _read(config, name, set(split.ids))
  for expected in split.ids:
    if (read := next(found, None)) is None or read[0] != expected:
      raise UserError(
        f'{config.root} has changed since its images were prepared; start the same command again'
      )
    yield read[1]


def _read(config: DataConfig, name: str, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
  """Names and pixels, in the order in which they were prepared."""
  for item in sets.find(config).list_usable(config).items:
    if item.split != name or not (item.name in wanted or item.has_slices):
      continue
    try:
      slices = items.read_images(item, config)
    except Unreadable as problem:
      # It was skipped in preparation too.
      if item.name not in wanted and config.skip_unreadable:
        continue
      raise UserError(
        f'{Path(config.root)}: {problem} can no longer be read; replace it'
      ) from problem
    except UnsupportedImage as problem:
      raise UserError(f'{Path(config.root)}: {problem}') from problem
    for part in slices[:: config.every_slice]:
      if part.name in wanted:
        yield part.name, part.picture.pixels
