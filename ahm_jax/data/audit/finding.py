"""One finding: what is wrong, how badly, where, and what to do."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ahm_jax.data.audit.duplicates import FLATNESS
from ahm_jax.data.audit.inspection import ImageRecord

ERROR, WARNING, NOTE = LEVELS = ('error', 'warning', 'note')
FEW = 5  # Images of a class in a split; below this, scores of it mean little.


class Case(NamedTuple):
  """One image, pair, file or line that a finding is about."""

  text: str
  images: tuple[int, ...] = ()  # Indices into `Inspection.images`, to be shown.


class Finding(NamedTuple):
  """All of one kind."""

  level: str  # One of LEVELS. 'error': preparation refuses the set, or scores would be wrong.
  code: str  # A short name that stays the same.
  what: str  # A line.
  do: str  # What the user can do, a line.
  cases: tuple[Case, ...]


def is_blank(image: ImageRecord) -> bool:
  """Whether an image shows nothing."""
  return image.contrast < FLATNESS


def where(image: ImageRecord) -> str:
  """An image by its split and name."""
  return f'{image.split}/{image.name}'


def cases(
  images: Sequence[ImageRecord],
  which: Callable[[ImageRecord], bool],
  said: Callable[[ImageRecord], str] | None = None,
) -> tuple[Case, ...]:
  """A case for each image that is meant, with what is said of it."""
  return tuple(
    Case(where(image) + (f' ({said(image)})' if said else ''), (index,))
    for index, image in enumerate(images)
    if which(image)
  )
