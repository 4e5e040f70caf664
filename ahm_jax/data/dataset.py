"""Prepared data as arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ahm_jax.config import DataConfig
from ahm_jax.data import sets
from ahm_jax.data.mask_png import decode_mask
from ahm_jax.data.prepare import prepare
from ahm_jax.data.records import DIGEST
from ahm_jax.data.sets.items import SPLITS


@dataclass(frozen=True, eq=False)
class Split:
  """The images of one split."""

  ids: tuple[str, ...]  # N image names.
  images: np.ndarray  # uint8 [N, S, S, C].
  # uint8 [N, S, S], values 0 and 1, or class indices; zeros where has_mask is False.
  masks: np.ndarray
  labels: np.ndarray  # int32 [N], index into the class names; -1: unknown.
  has_mask: np.ndarray  # bool [N].
  groups: tuple[str, ...]  # Images of one group (a patient, near-duplicates) share a split.
  # Each a PNG of the mask at the image's own resolution; b'' where has_mask is False.
  full_masks: tuple[bytes, ...]
  # float32 [N, 2], mm a pixel of the original images, down and across; nan: unknown, as where it is
  # not given.
  spacing: np.ndarray = None  # type: ignore[assignment]
  # uint8 [N, 2, DIGEST], what `digest` makes of each image and of its mask as they were prepared;
  # zeros: unknown, as where it is not given.
  digests: np.ndarray = None  # type: ignore[assignment]

  def __post_init__(self) -> None:
    if self.spacing is None:
      object.__setattr__(self, 'spacing', np.full((len(self), 2), np.nan, np.float32))
    if self.digests is None:
      object.__setattr__(self, 'digests', np.zeros((len(self), 2, DIGEST), np.uint8))

  def __len__(self) -> int:
    return len(self.ids)

  def full_mask(self, i: int) -> np.ndarray:
    """The mask of image i at the image's own resolution: bool [h, w], or class indices, uint8 [h,
    w], with mask_classes.

    Raises:
      ValueError: the image has no mask.
    """
    if not self.full_masks[i]:
      raise ValueError(f'image {self.ids[i]} has no mask')
    return decode_mask(self.full_masks[i])

  def take(self, indices) -> 'Split':
    """The images at `indices`, in their order.

    Integers [M], or what else indexes an axis of an array.
    """
    indices = np.arange(len(self))[indices]

    def pick(items: tuple) -> tuple:
      return tuple(items[i] for i in indices)

    return Split(
      ids=pick(self.ids),
      images=self.images[indices],
      masks=self.masks[indices],
      labels=self.labels[indices],
      has_mask=self.has_mask[indices],
      groups=pick(self.groups),
      full_masks=pick(self.full_masks),
      spacing=self.spacing[indices],
      digests=self.digests[indices],
    )


@dataclass(frozen=True, eq=False)
class Dataset:
  name: str  # As reports have it: that of the folder, or of the data set.
  class_names: tuple[str, ...]  # Empty where no image has a label.
  splits: dict[str, Split]  # 'train', 'validation' and 'test'; a split may be empty.
  # Lines for the user: how many images serve pre-training only, which files were skipped.
  notes: tuple[str, ...]
  # Names of the values 1, 2, ... of masks; empty: masks are binary.
  mask_classes: tuple[str, ...] = ()


def load(config: DataConfig, workdir: Path) -> Dataset:
  """Prepares the data of `config` where they are not, and reads them into memory; see `prepare`."""
  builder = tfds.builder_from_directory(prepare(config, workdir))
  sources = builder.as_data_source()
  shape = (config.image_size, config.image_size, config.depth)
  return Dataset(
    name=sets.find(config).display_name(config),
    class_names=tuple(builder.info.metadata['class_names']),
    splits={split: _read_split(sources.get(split, ()), shape) for split in SPLITS},
    notes=tuple(builder.info.metadata['notes']),
    mask_classes=config.mask_classes,
  )


def _read_split(source: Any, shape: tuple[int, int, int]) -> Split:
  count = len(source)
  images, masks = np.empty((count, *shape), np.uint8), np.empty((count, *shape[:2]), np.uint8)
  labels, has_mask = np.empty(count, np.int32), np.empty(count, bool)
  spacing, digests = np.empty((count, 2), np.float32), np.empty((count, 2, DIGEST), np.uint8)
  ids: list[str] = []
  groups: list[str] = []
  full_masks: list[bytes] = []
  for i in range(count):
    record = source[i]
    images[i], masks[i], labels[i], has_mask[i] = (
      record[key] for key in ('image', 'mask', 'label', 'has_mask')
    )
    spacing[i], digests[i] = record['spacing'], record['digests']
    ids.append(record['id'].decode())
    groups.append(record['group'].decode())
    full_masks.append(record['full_mask'])
  return Split(
    tuple(ids), images, masks, labels, has_mask, tuple(groups), tuple(full_masks), spacing, digests
  )
