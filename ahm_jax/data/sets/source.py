"""What the rest of the project knows of a data set.

A new one is a file with a `SOURCE` beside this one, and a line in the table of `ahm_jax.data.sets`.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahm_jax.config import DataConfig
from ahm_jax.data.readers.base import UnavailableFile
from ahm_jax.data.sets.items import Listing, refuse
from ahm_jax.errors import UserError, cannot_read


@dataclass(frozen=True)
class DatasetSource:
  name: str  # That of config.data.name.
  # Of what it gives for the same files and config. To be raised with every change of that, so that
  # data prepared before are prepared again.
  version: int
  # The images, with masks, labels, splits and groups; reads no pixels. UserError where there is
  # nothing that can be listed.
  list_items: Callable[[DataConfig], Listing]
  # What the prepared data depend on beside size, channels and split_seed, as JSON holds it.
  depends_on: Callable[[DataConfig], Mapping[str, Any]]
  # What config.data.root is, for messages, as 'the folder that holds images/'; '': it reads none.
  root: str = ''
  is_named_by_root: bool = False  # Whether reports call it by the name of its folder.
  has_mask_classes: bool = False  # Whether its masks may hold config.data.mask_classes.
  has_modalities: bool = False  # Whether its cases may have config.data.modalities.
  class_names: tuple[str, ...] = ()  # In order; empty: the labels that occur, by name.

  def check(self, config: DataConfig) -> None:
    """Raises a UserError where `config` lacks what the data set needs, or asks what it lacks."""
    if self.root and not config.root:
      raise UserError(f'config.data.root is not set; give {self.root}: --config.data.root=DIR')
    if config.mask_classes and not self.has_mask_classes:
      raise UserError(
        f'config.data.mask_classes is {config.mask_classes}, but data.name={self.name} has binary '
        'masks; leave it empty: ()'
      )

    if config.modalities and not self.has_modalities:
      raise UserError(
        f'config.data.modalities is {config.modalities}, but data.name={self.name} has none; leave '
        'it empty: ()'
      )

  def list_usable(self, config: DataConfig) -> Listing:
    """As `list_items`; UserError also where what is there does not fit together."""
    with available():
      listing = self.list_items(config)
    refuse(Path(config.root).expanduser(), listing.problems + listing.crossing)
    return listing

  def folder(self, config: DataConfig) -> Path | None:
    """The folder that it is read from; None: it reads none."""
    return Path(config.root).expanduser().resolve() if self.root else None

  def display_name(self, config: DataConfig) -> str:
    folder = self.folder(config)
    return folder.name if folder and self.is_named_by_root else self.name


@contextlib.contextmanager
def available() -> Iterator[None]:
  """Where folders are listed: what the system refuses becomes an `UnavailableFile`."""
  try:
    yield
  except OSError as error:
    raise UnavailableFile(cannot_read(error.filename or 'a file of the data set', error)) from error


def stamps(place: Path) -> Iterator[tuple[str, int, int, int]]:
  """Path, size and times of a file, or of every file of a folder but dot-files: that of its content
  and, as copying may keep that, the one that the system sets at every change.

  Nothing where there is neither.
  """
  for path in place.iterdir() if place.is_dir() else (place,):
    if path.is_file() and not path.name.startswith('.'):
      stat = path.stat()
      yield str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
