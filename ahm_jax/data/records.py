"""What is prepared of every image, written by TFDS without TensorFlow.

One kind of record in array_record files, which
`tfds.builder_from_directory(dir).as_data_source()` reads:

  image: uint8 [S, S, C], squashed to a square with antialiasing.
  mask: uint8 [S, S] of 0 and 1, 1 where the lesion covers at least half of the pixel; with
    mask_classes of class indices, the one with the largest area in the pixel; zeros without a mask.
  label: int32, index into the builder's class names; -1: unknown.
  has_mask: bool.
  id, group: text.
  full_mask: the mask at the image's own resolution, as the bytes of a PNG; empty without a mask.
  spacing: float32 [2], mm from pixel to pixel of the image's own resolution, down and across; nan:
    unknown.
  digests: uint8 [2, DIGEST], of the image and of the mask, that at its own resolution too.

The info's metadata hold `class_names` and `notes`, lines for the user.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ahm_jax.config import DataConfig
from ahm_jax.data.mask_png import encode_mask
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage
from ahm_jax.data.resize import squashed, squashed_mask
from ahm_jax.data.sets import items
from ahm_jax.data.sets.items import SPLITS, Item, Slice
from ahm_jax.data.sets.source import DatasetSource
from ahm_jax.data.sets.table import some
from ahm_jax.data.threads import CHUNK, in_parallel
from ahm_jax.data.vanishing import Fate, Vanished, fate

# Of the record, and of what the readers make of a file. To be raised with every change of either,
# so that data prepared before are prepared again.
VERSION = 3
DIGEST = 8  # Bytes of a digest: of a million images no two are taken for the same.
VOLUME_CHUNK = 4  # Items that are read before any is written, where some hold many slices.
UNKNOWN_SPACING = (np.nan, np.nan)


def digest(*arrays: np.ndarray) -> np.ndarray:
  """Of the types, shapes and values of arrays: uint8 [DIGEST]."""
  found = hashlib.blake2b(digest_size=DIGEST)
  for array in arrays:
    found.update(f'{array.dtype} {array.shape} '.encode())
    packed = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
    found.update(packed.data)
  return np.frombuffer(found.digest(), np.uint8)


class Read(NamedTuple):
  """What is read of an image, or of a slice of a volume."""

  record: dict[str, Any]  # But for its label.
  fate: Fate | None  # Of the mask's lesions in the record; None without a mask.
  is_turned: bool  # By its EXIF orientation, and its mask is not.


def read_item(item: Item, config: DataConfig) -> list[Read] | Exception:
  """What is read of an image or of a volume's slices, or what is wrong with it.

  Raises:
    UnavailableFile: nothing can be said of it now.
  """
  size = config.image_size
  try:
    slices = items.read(item, config, at_least=(2 * size, 2 * size))
  except (Unreadable, UnsupportedImage) as problem:
    return problem
  return [_read(part, item, size) for part in slices]


def _read(part: Slice, item: Item, size: int) -> Read:
  mask, spacing = part.mask, part.picture.spacing
  image = squashed(part.picture.pixels, size)
  small = np.zeros((size, size), np.uint8) if mask is None else squashed_mask(mask, size)
  record = dict(
    image=image,
    mask=small,
    has_mask=mask is not None,
    id=part.name,
    group=item.group,
    full_mask=b'' if mask is None else encode_mask(mask),
    spacing=np.array(UNKNOWN_SPACING if spacing is None else spacing, np.float32),
    digests=np.stack([digest(image), digest(small, *(() if mask is None else (mask,)))]),
  )
  return Read(
    record,
    None if mask is None else fate(mask, small),
    mask is not None and items.is_turned_alone(part.picture, item),
  )


class Records(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """Images with the masks, labels, splits and groups that a data set gives for them.

  `problems` and `unreadable` tell after (or in the middle of) a preparation what was wrong with
  single files; where there are problems, what was prepared is not to be used.
  """

  VERSION = tfds.core.Version(f'{VERSION}.0.0')
  url_infos = None  # Nothing is downloaded; TFDS would look for checksums next to the package.

  def __init__(self, *, source: DatasetSource, options: DataConfig, **kwargs: Any):
    """Args: source, options: what to prepare; kwargs: of the TFDS builder, as `data_dir`."""
    self.options = options
    self.problems: list[str] = []
    self.unreadable: list[str] = []
    self._source = source
    self._used: list[Item] = []  # For every image or slice, what it came from.
    self._names: dict[str, Item] = {}
    self._empty = 0  # Slices whose mask is there and empty.
    self._listing_notes: list[str] = []
    self._turned: list[str] = []  # Images that are turned by EXIF, and their masks are not.
    self._splits_left = 0
    self._vanished = Vanished(options.image_size, options.mask_classes)
    super().__init__(file_format='array_record', **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    size, channels = self.options.image_size, self.options.depth
    features = {
      # Bytes: by default TFDS writes uint8 arrays as lists of 64-bit integers.
      'image': tfds.features.Tensor(shape=(size, size, channels), dtype=np.uint8, encoding='bytes'),
      'mask': tfds.features.Tensor(shape=(size, size), dtype=np.uint8, encoding='bytes'),
      'label': tfds.features.Scalar(np.int32),
      'has_mask': tfds.features.Scalar(np.bool_),
      'id': tfds.features.Text(),
      'group': tfds.features.Text(),
      'full_mask': tfds.features.Scalar(np.object_),
      'spacing': tfds.features.Tensor(shape=(2,), dtype=np.float32),
      'digests': tfds.features.Tensor(shape=(2, DIGEST), dtype=np.uint8, encoding='bytes'),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(class_names=[], notes=[]),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    del dl_manager
    listing = self._source.list_usable(self.options)
    self._listing_notes = listing.notes
    class_names = self._source.class_names or sorted({item.label for item in listing.items} - {''})
    self.info.metadata['class_names'] = list(class_names)
    by_split = {split: [item for item in listing.items if item.split == split] for split in SPLITS}
    filled = {split: members for split, members in by_split.items() if members}
    self._splits_left = len(filled)
    return {
      split: self._generate_examples(split, members, class_names)
      for split, members in filled.items()
    }

  def _generate_examples(
    self, split: str, members: Sequence[Item], class_names: Sequence[str]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    chunk = VOLUME_CHUNK if any(item.has_slices for item in members) else CHUNK
    read = functools.partial(read_item, config=self.options)
    index = 0
    for item, found in zip(
      members, in_parallel(read, members, f'prepare {split}', chunk), strict=True
    ):
      if isinstance(found, Exception):
        self._note_problem(found)
        continue
      for record, masked, is_turned in found:
        self._check_name(record['id'], item)
        self._used.append(item)
        self._turned += [item.name] * is_turned
        if masked:
          self._empty += len(found) > 1 and not masked.held
          self._vanished.add(masked, record['full_mask'])
        yield index, {**record, 'label': class_names.index(item.label) if item.label else -1}
        index += 1
    self._splits_left -= 1
    if not self._splits_left:
      self.info.metadata['notes'] = self._notes()

  def _note_problem(self, problem: Exception) -> None:
    if not isinstance(problem, Unreadable):
      self.problems.append(str(problem))
      return
    self.unreadable.append(str(problem))
    if not self.options.skip_unreadable:
      self.problems.append(
        f'{problem} is damaged or not an image; replace it, or skip such files by '
        '--config.data.skip_unreadable'
      )

  def _check_name(self, name: str, item: Item) -> None:
    other = self._names.setdefault(name, item)
    if other is not item:
      self.problems.append(
        f'{other.file} and {item.file} both give an image named {name!r}; rename one of them'
      )

  def _notes(self) -> list[str]:
    notes = list(self._listing_notes)
    unlisted = sum(not item.listed for item in self._used)
    bare = [
      item for item in self._used if item.listed and not item.has_mask and item.split == 'train'
    ]
    if unlisted or bare:
      labelled = sum(bool(item.label) for item in bare)
      notes.append(
        f'images that serve pre-training only: {unlisted + len(bare)} (without a mask: '
        f'{len(bare)}, of which {labelled} have a label and serve classification too; without a '
        f'row in labels.csv: {unlisted})'
      )
    used = {item.split for item in self._used}
    notes += [f'the {split} split holds no image' for split in SPLITS if split not in used]
    if self._empty:
      notes.append(
        f'slices of volumes with an empty mask, which count as images without lesion: {self._empty}'
      )
    notes += self._vanished.lines()
    if self._turned:
      notes.append(
        f'images that are turned by their EXIF orientation, and their masks are not: '
        f'{len(self._turned)} ({some(self._turned)}); look by prepare_data --check whether they fit'
      )
    if self.unreadable:
      notes.append(
        f'unreadable files skipped: {len(self.unreadable)} ({", ".join(self.unreadable)})'
      )
    return notes
