"""Prepared data as arrays, label budgets, and the order of training images.

Randomness is the raw 64-bit output of NumPy's Philox generator, sorted: it is the same on every
platform and NumPy version.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ahm_jax.config import DataConfig
from ahm_jax.data import builders
from ahm_jax.data.readers import archives, files, medical
from ahm_jax.data.sets import folder, isic2018, phantom
from ahm_jax.errors import UserError

BUILDERS = {
  'folder': builders.MaskedImageFolder,
  'isic2018': builders.Isic2018,
  'phantom': builders.DermoscopyPhantom,
}

CODE = (
  archives,
  builders,
  files,
  folder,
  isic2018,
  medical,
  phantom,
)  # What prepared data depend on.

# What tells the streams of random numbers apart that are drawn from one seed.
LABELS, ORDER = 1, 2


@dataclass(frozen=True, eq=False)
class Split:
  """The images of one split."""

  ids: tuple[str, ...]  # N image names.
  images: np.ndarray  # uint8 [N, S, S, C].
  masks: (
    np.ndarray
  )  # uint8 [N, S, S], values 0 and 1, or class indices; zeros where has_mask is False.
  labels: np.ndarray  # int32 [N], index into the class names; -1: unknown.
  has_mask: np.ndarray  # bool [N].
  groups: tuple[str, ...]  # Images of one group (a patient, near-duplicates) share a split.
  full_masks: tuple[
    bytes, ...
  ]  # Each a PNG of the mask at the image's own resolution; b'' where has_mask is False.
  spacing: np.ndarray | None = (
    None  # float32 [N, 2], mm a pixel of the original images, down and across; nan: unknown.
  )

  def __post_init__(self):
    if self.spacing is None:
      object.__setattr__(self, 'spacing', np.full((len(self), 2), np.nan, np.float32))

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
    return builders.decode_mask(self.full_masks[i])

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
    )


@dataclass(frozen=True, eq=False)
class Dataset:
  name: str  # 'phantom', or the name of the folder.
  class_names: tuple[str, ...]  # Empty where no image has a label.
  splits: dict[str, Split]  # 'train', 'validation' and 'test'; a split may be empty.
  notes: tuple[
    str, ...
  ]  # Lines for the user: how many images serve pre-training only, which files were skipped.
  mask_classes: tuple[
    str, ...
  ] = ()  # Names of the values 1, 2, ... of masks; empty: masks are binary.


# Preparing and reading.


def prepare(config: DataConfig, workdir: Path) -> Path:
  """Writes the TFDS data of `config`, unless they are there for this very config and these very
  files.

  They are kept under `config.prepared_dir`, or `workdir/data`, in a folder whose name changes with
  whatever the data depend on. The folder appears, by renaming, once it is whole. Processes that
  prepare the same data at once wait for the first.

  Returns:
    the folder, for `tfds.builder_from_directory`.

  Raises:
    UserError: the folder of images cannot be used; one line that names the first files that are
      wrong.
  """
  home = Path(config.prepared_dir).expanduser() if config.prepared_dir else Path(workdir) / 'data'
  target = home / f'{config.name}-{_fingerprint(config)}'
  if target.exists():
    return target
  home.mkdir(parents=True, exist_ok=True)
  with _lock(target.with_suffix('.lock')):
    if not target.exists():
      scratch = target.with_suffix('.incomplete')
      shutil.rmtree(scratch, ignore_errors=True)
      try:
        os.rename(_build(config, scratch), target)
      finally:
        shutil.rmtree(scratch, ignore_errors=True)
  return target


def load(config: DataConfig, workdir: Path) -> Dataset:
  """Prepares the data of `config` where they are not, and reads them into memory; see `prepare`."""
  builder = tfds.builder_from_directory(prepare(config, workdir))
  sources = builder.as_data_source()
  shape = (config.image_size, config.image_size, config.channels)
  name = Path(config.root).expanduser().resolve().name if config.name == 'folder' else config.name
  return Dataset(
    name=name,
    class_names=tuple(builder.info.metadata['class_names']),
    splits={split: _read_split(sources.get(split, ()), shape) for split in folder.SPLITS},
    notes=tuple(builder.info.metadata['notes']),
    mask_classes=config.mask_classes,
  )


def _read_split(source, shape: tuple[int, int, int]) -> Split:
  count = len(source)
  images, masks = np.empty((count, *shape), np.uint8), np.empty((count, *shape[:2]), np.uint8)
  labels, has_mask = np.empty(count, np.int32), np.empty(count, bool)
  spacing = np.empty((count, 2), np.float32)
  ids, groups, full_masks = [], [], []
  for i in range(count):
    record = source[i]
    images[i], masks[i], labels[i], has_mask[i] = (
      record[key] for key in ('image', 'mask', 'label', 'has_mask')
    )
    spacing[i] = record['spacing']
    ids.append(record['id'].decode())
    groups.append(record['group'].decode())
    full_masks.append(record['full_mask'])
  return Split(
    tuple(ids), images, masks, labels, has_mask, tuple(groups), tuple(full_masks), spacing
  )


def _build(config: DataConfig, scratch: Path) -> Path:
  """Runs the builder of `config` under `scratch`; returns the folder that TFDS made there."""
  tfds.disable_progress_bar()
  builder = BUILDERS[config.name](options=config, data_dir=scratch)
  problems: list[str] = getattr(builder, 'problems', [])
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it would download.
      builder.download_and_prepare()
  except AssertionError as error:  # TFDS cannot write a split without records.
    if not problems and 'No examples' in str(error):
      names = ', '.join(builder.unreadable[: folder.PROBLEMS_SHOWN])
      problems = [f'no image of a split can be read ({names}, ...); replace the files']
    elif not problems:
      raise
  folder.refuse(Path(config.root), problems)
  return Path(builder.data_dir)


def _fingerprint(config: DataConfig) -> str:
  """A short name of all that the prepared data depend on: config fields, the files, and the code
  that reads or draws them.
  """
  parts: dict[str, Any] = {
    'size': config.image_size,
    'channels': config.channels,
    'seed': config.split_seed,
  }
  parts['code'] = [
    hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest() for module in CODE
  ]
  if config.name == 'phantom':
    parts['counts'] = [config.phantom.train, config.phantom.validation, config.phantom.test]
  elif config.name == 'isic2018':
    root = Path(config.root).expanduser().resolve()
    parts |= {'root': str(root), 'skip': config.skip_unreadable, 'classes': config.mask_classes}
    parts['files'] = [sorted(_stamps(place)) for place in isic2018.sources(root)]
  else:
    root = Path(config.root).expanduser().resolve()
    table = folder.read_table(root)
    parts |= {
      'root': str(root),
      'skip': config.skip_unreadable,
      'fractions': list(config.split_fractions),
    }
    parts |= {
      'classes': config.mask_classes,
      'window': config.window,
      'slices': [config.slice_axis, config.every_slice],
    }
    parts['table'] = None if table is None else hashlib.sha256(table).hexdigest()
    parts['files'] = sorted(_stamps(root / 'images')) + sorted(_stamps(root / 'masks'))
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _stamps(place: Path) -> Iterator[tuple[str, int, int]]:
  """Path, size and time of change of a file, or of every file of a folder but dot-files.

  Nothing where there is neither.
  """
  for path in place.iterdir() if place.is_dir() else (place,):
    if path.is_file() and not path.name.startswith('.'):
      stat = path.stat()
      yield str(path), stat.st_size, stat.st_mtime_ns


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
  """Holds a file lock, which the system lets go of when the process dies."""
  with path.open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


# Label budgets and the order of training images.


def labelled_indices(split: Split, count: int, seed: int, by: str = 'mask') -> np.ndarray:
  """Chooses images with a mask, or with a label, to learn from.

  The choice is nested: for one seed, that of a smaller count is the beginning of that of a larger
  one. It is stratified: of every class it holds what the class's share asks for, to within one
  image (images without a label are a class of their own). The classes take turns by a fair
  schedule, in which the k-th image of a class with n of N falls between places (k - 1) N / n and k
  N / n: of the classes that may come next, the one that must come soonest does (Baruah et al.
  1996).

  Args:
    count: how many; 0: all there are, in their order.
    seed: of the choice.
    by: what they must have, 'mask' or 'label'.

  Returns:
    int64 [count], indices into the split.

  Raises:
    UserError: fewer images than that have it, or none.
  """
  candidates = np.flatnonzero(split.has_mask if by == 'mask' else split.labels >= 0)
  if not len(candidates):
    where = 'the folder masks/' if by == 'mask' else 'the column label'
    raise UserError(f'no training image has a {by}; see {where} and the column split of labels.csv')
  if count == 0:
    return candidates
  if count > len(candidates):
    raise UserError(
      f'{count} labelled training images are asked for, but only {len(candidates)} of {len(split)} have a {by}; '
      f'lower {"config.data.labels (or config.grid.labels)" if by == "mask" else "config.classify.labels"}'
    )
  shuffled = candidates[_permutation(len(candidates), LABELS, seed)]
  classes = [
    shuffled[split.labels[shuffled] == label] for label in np.unique(split.labels[candidates])
  ]
  total = len(candidates)
  taken = [0] * len(classes)
  chosen = []
  for place in range(count):
    ready = [
      c
      for c, members in enumerate(classes)
      if taken[c] < len(members) and taken[c] * total < (place + 1) * len(members)
    ]
    soonest = min(ready, key=lambda c: -(-(taken[c] + 1) * total // len(classes[c])))
    chosen.append(classes[soonest][taken[soonest]])
    taken[soonest] += 1
  return np.array(chosen, np.int64)


def batch_indices(seed: int, step: int, examples: int, batch_size: int) -> np.ndarray:
  """The images of one training step; a function of its arguments alone.

  Image number i of a run is number i mod N of the permutation of epoch i // N; step k takes the
  numbers k B to k B + B - 1. So every epoch shows each image once, batches run on from one epoch
  into the next, and N may be smaller than B.

  Args:
    seed: of the run, at least 0.
    step: k, at least 0.
    examples: N.
    batch_size: B, over all devices.

  Returns:
    int32 [batch_size], each in [0, examples).

  Raises:
    UserError: there are no examples.
  """
  if examples < 1:
    raise UserError(
      'there are no images to train on; see the split column of labels.csv and the folder masks/'
    )
  numbers = int(step) * batch_size + np.arange(batch_size, dtype=np.int64)
  epochs, places = numbers // examples, numbers % examples
  indices = np.empty(batch_size, np.int32)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    indices[here] = _permutation(examples, ORDER, seed, int(epoch))[places[here]]
  return indices


@functools.lru_cache(maxsize=8)
def _permutation(count: int, *seeds: int) -> np.ndarray:
  """A permutation of range(count), int64 [count], a function of its arguments alone."""
  raw = np.random.Philox(np.random.SeedSequence(seeds)).random_raw(count)
  permutation = np.argsort(raw, kind='stable')
  permutation.flags.writeable = False
  return permutation
