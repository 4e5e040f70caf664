"""The masks of a NIfTI volume's slices, as one volume that lies where the image does."""

import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ahm_jax.data import mask_nifti
from ahm_jax.data.readers.base import NIFTI, Case, suffix
from ahm_jax.data.readers.nifti import Layout
from ahm_jax.predict.listing import stem

FOLDER = 'volumes'
_NUMBER = '_0000'  # Of the only channel, in nnU-Net's names of images.


class Volume:
  """Masks, until all are there; threads may add them.

  Args:
    place: of the file, below the folder of predictions.
    layout: of the image.
    axis: of the image in RAS+ orientation, across which its slices lie.
  """

  def __init__(self, place: str, layout: Layout, axis: int):
    self.place = place
    self._layout, self._axis = layout, axis
    self._missing = layout.turned_shape[axis]
    self._labels: np.ndarray | None = None
    self._lock = threading.Lock()

  @property
  def slices(self) -> list[tuple[int, int]]:
    """Height and width of each."""
    shape = self._layout.turned_shape
    height, width = (length for axis, length in enumerate(shape) if axis != self._axis)
    return [(height, width)] * shape[self._axis]

  def add(self, number: int, mask: np.ndarray) -> bool:
    """Takes the mask of a slice, bool or class indices, uint8 [h, w]; says whether it was the last
    one that was missing.
    """
    with self._lock:
      if self._labels is None:
        self._labels = np.zeros(self._layout.turned_shape, np.uint8)
      np.moveaxis(self._labels, self._axis, 0)[number] = mask
      self._missing -= 1
      return not self._missing

  def write(self, path: Path) -> None:
    """Writes them all; see `mask_nifti.write`."""
    assert self._labels is not None and not self._missing
    mask_nifti.write(path, self._labels, self._layout, self.place.endswith('.gz'))
    self._labels = None


def named(image: str, place: Path | Case) -> str:
  """The name of an image with the suffix of its file; that of a case in several files has none."""
  ending = suffix(place.first.name) if isinstance(place, Case) else ''
  return image if image.lower().endswith(ending) else image + ending


def is_kept(image: str) -> bool:
  """Whether an image's masks become a volume too, by its name."""
  return suffix(image) in NIFTI


def is_place(path: str) -> bool:
  """Whether a path below the folder of predictions is that of a volume."""
  return path.startswith(f'{FOLDER}/')


def place(image: str, of_nnunet: bool) -> str:
  """Where the volume of an image goes, below the folder of predictions.

  Its name is that of the image. Where the network was trained on a set of nnU-Net it is that of the
  case, as nnU-Net calls its predictions: CASE.nii.gz for CASE_0000.nii.gz. The name of a file alone
  does not tell: others number volumes from 0000 on too, and a name that hung on other files would
  change as these come and go.
  """
  bare = stem(image)
  folder, slash, name = bare.rpartition('/')
  case = name.removesuffix(_NUMBER) if of_nnunet else name
  return f'{FOLDER}/{folder}{slash}{case or name}{suffix(image)}'


def clash(
  images: Iterable[str], of_nnunet: bool, folds_case: bool = False
) -> tuple[str, str] | None:
  """The first two images whose volumes would be one file.

  Args:
    folds_case: where upper and lower case, and ways to compose a letter, are one.
  """
  seen: dict[str, str] = {}
  for image in filter(is_kept, images):
    bare = stem(place(image, of_nnunet))
    key = unicodedata.normalize('NFC', bare).casefold() if folds_case else bare
    other = seen.setdefault(key, image)
    if other != image:
      return other, image
  return None
