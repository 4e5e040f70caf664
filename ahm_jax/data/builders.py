"""TFDS builders, without TensorFlow: a folder of images and masks, ISIC 2018, and the dermoscopy
phantoms.

All write one kind of record in array_record files, which
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

The info's metadata hold `class_names` and `notes`, lines for the user.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import files
from ahm_jax.data.readers.files import Unreadable, UnsupportedImage
from ahm_jax.data.sets import isic2018, phantom
from ahm_jax.data.sets.folder import SPLITS, Item, list_folder

# Images that are read before any of them is written; bounds the memory that preparation takes.
CHUNK = 64
VOLUME_CHUNK = 4  # The same, where some hold many slices.
UNKNOWN_SPACING = (np.nan, np.nan)


# One image and its mask.


def encode_mask(mask: np.ndarray) -> bytes:
  """A mask as the bytes of a PNG: bool [h, w] takes one bit a pixel, uint8 [h, w] eight."""
  stream = io.BytesIO()
  Image.fromarray(mask).save(stream, 'PNG')
  return stream.getvalue()


def decode_mask(data: bytes) -> np.ndarray:
  """What `encode_mask` wrote, with its type."""
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(picture)


def _resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
  """A mask of `size` x `size` pixels: uint8 [size, size].

  Args:
    mask: bool [h, w], which gives 1 where it covers at least half of the pixel's area; or class
      indices, uint8 [h, w], of which the one with the largest area in the pixel is taken, the
      lowest of equals.
  """
  shape = (size, size)
  if mask.dtype == bool:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return (np.asarray(grey.resize(shape, Image.Resampling.BOX)) >= 128).astype(np.uint8)
  classes = np.unique(mask)
  areas = np.stack([_pool(_pool(mask == index, size).T, size).T for index in classes])
  return classes[areas.argmax(axis=0)]


def _pool(values: np.ndarray, size: int) -> np.ndarray:
  """Sums of the rows [h, w] that lie in each of `size` equal parts of the height, times `size`,
  exactly: int64 [size, w].

  Pillow's box takes a pixel as a whole or not at all.
  """
  whole, rest = np.divmod(
    np.arange(size + 1) * len(values), size
  )  # The parts' edges, in rows and in shares of a row.
  sums = np.cumsum(values, axis=0, dtype=np.int32)  # At most the mask's number of pixels.
  before = sums[whole - 1].astype(np.int64) * (whole > 0)[:, None]
  cut = values[np.minimum(whole, len(values) - 1)].astype(
    np.int64
  )  # At the last edge nothing is cut: rest is 0.
  return np.diff(before * size + cut * rest[:, None], axis=0)


def _read_item(item: Item, config: DataConfig) -> list[dict] | Exception:
  """The records of an image or of a volume's slices, but for their labels.

  Or what is wrong with it.
  """
  size = config.image_size
  try:
    slices = files.read_slices(
      item.image,
      config.channels,
      window=config.window,
      at_least=(2 * size, 2 * size),
      axis=config.slice_axis,
    )
    masks = (
      [None] * len(slices)
      if item.mask is None
      else read_masks(item, [picture.size for _, picture in slices], config)
    )
  except (Unreadable, UnsupportedImage) as problem:
    return problem
  chosen = list(zip(slices, masks, strict=True))[:: config.every_slice]
  return [
    _record(item.name + suffix, item.group, picture, mask, config)
    for (suffix, picture), mask in chosen
  ]


def read_masks(item: Item, sizes: list[tuple[int, int]], config: DataConfig) -> list[np.ndarray]:
  """The masks of an item at their own resolution, bool or class indices, for slices of these
  (height, width).
  """
  if files.is_volume(item.image) or files.is_volume(item.mask):
    files.check_pair(item.image, item.mask)
  masks = files.read_mask_slices(item.mask, config.mask_classes, axis=config.slice_axis)
  mask_name, image_name = files.shown(item.mask), files.shown(item.image)
  if len(masks) != len(sizes):
    raise UnsupportedImage(
      f'{mask_name} holds {len(masks)} slices but {image_name} holds {len(sizes)}; make them the same shape'
    )
  for mask, (height, width) in zip(masks, sizes, strict=True):
    if mask.shape != (height, width):
      raise UnsupportedImage(
        f'{mask_name} is {mask.shape[1]}x{mask.shape[0]} but {image_name} is {width}x{height} (width x height); '
        'make them the same size'
      )
  return masks if config.mask_classes else [mask.astype(bool) for mask in masks]


def _record(
  name: str, group: str, picture: files.Picture, mask: np.ndarray | None, config: DataConfig
) -> dict:
  size = config.image_size
  return dict(
    image=files.squashed(picture.pixels, size),
    mask=np.zeros((size, size), np.uint8) if mask is None else _resize_mask(mask, size),
    has_mask=mask is not None,
    id=name,
    group=group,
    full_mask=b'' if mask is None else encode_mask(mask),
    spacing=np.array(UNKNOWN_SPACING if picture.spacing is None else picture.spacing, np.float32),
  )


def _is_empty(record: dict) -> bool:
  """Whether a mask holds nothing at its own resolution.

  A small lesion may vanish from the resized one.
  """
  return not record['mask'].any() and not decode_mask(record['full_mask']).any()


def in_parallel(
  function: Callable, arguments: Sequence, description: str, chunk: int = CHUNK
) -> Iterator:
  """Results of a function in order, from a few threads, under a progress bar."""
  progress = tqdm(total=len(arguments), desc=description, unit='image', disable=None)
  with ThreadPoolExecutor(os.cpu_count()) as pool, progress as bar:
    for start in range(0, len(arguments), chunk):
      for result in pool.map(function, arguments[start : start + chunk]):
        yield result
        bar.update()


# The builders.


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What all builders share: the features."""

  VERSION = tfds.core.Version('1.0.0')
  url_infos = None  # Nothing is downloaded; TFDS would look for checksums next to the package.

  def __init__(self, *, options: DataConfig, **kwargs):
    """Args: options: what to prepare; kwargs: of the TFDS builder, as `data_dir`."""
    self.options = options
    super().__init__(file_format='array_record', **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    size, channels = self.options.image_size, self.options.channels
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
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(class_names=[], notes=[]),
      disable_shuffling=True,
    )


class MaskedImageFolder(_Builder):
  """Images of a folder, with the masks, labels, splits and groups that it gives for them.

  `problems` and `unreadable` tell after (or in the middle of) a preparation what was wrong with
  single files; where there are problems, what was prepared is not to be used.
  """

  def __init__(self, *, options: DataConfig, **kwargs):
    self.problems: list[str] = []
    self.unreadable: list[str] = []
    self._used: list[Item] = []  # For every image or slice, what it came from.
    self._names: dict[str, Item] = {}
    self._empty = 0  # Slices whose mask is there and empty.
    self._listing: list[str] = []  # Notes of how the folder was read.
    super().__init__(options=options, **kwargs)

  list_items = staticmethod(list_folder)

  def _split_generators(self, dl_manager):
    items = self.list_items(self.options, notes=self._listing)
    class_names = sorted({item.label for item in items} - {''})
    self.info.metadata['class_names'] = class_names
    by_split = {split: [item for item in items if item.split == split] for split in SPLITS}
    return {
      split: self._generate_examples(split, items, class_names)
      for split, items in by_split.items()
      if items
    }

  def _generate_examples(self, split, items, class_names):
    chunk = VOLUME_CHUNK if any(files.is_volume(item.image) for item in items) else CHUNK
    records = in_parallel(
      lambda item: _read_item(item, self.options), items, f'prepare {split}', chunk
    )
    index = 0
    for item, found in zip(items, records, strict=True):
      if isinstance(found, Unreadable):
        self.unreadable.append(str(found))
        if not self.options.skip_unreadable:
          self.problems.append(
            f'{found} is damaged or not an image; replace it, or drop such files by --config.data.skip_unreadable'
          )
      elif isinstance(found, UnsupportedImage):
        self.problems.append(str(found))
      else:
        for record in found:
          self._check_name(record['id'], item)
          self._used.append(item)
          self._empty += item.mask is not None and len(found) > 1 and _is_empty(record)
          yield index, {**record, 'label': class_names.index(item.label) if item.label else -1}
          index += 1
    self.info.metadata['notes'] = self._notes()

  def _check_name(self, name: str, item: Item) -> None:
    other = self._names.setdefault(name, item)
    if other is not item:
      self.problems.append(
        f'{files.shown(other.image)} and {files.shown(item.image)} both give an image named {name!r}; rename one of them'
      )

  def _notes(self) -> list[str]:
    notes = list(self._listing)
    unlisted = sum(not item.listed for item in self._used)
    bare = [
      item for item in self._used if item.listed and item.mask is None and item.split == 'train'
    ]
    if unlisted or bare:
      labelled = sum(bool(item.label) for item in bare)
      notes.append(
        f'images that serve pre-training only: {unlisted + len(bare)} (without a mask: {len(bare)}, of which {labelled} have a '
        f'label and serve classification too; without a row in labels.csv: {unlisted})'
      )
    notes += [
      f'the {split} split holds no image'
      for split in SPLITS
      if not any(item.split == split for item in self._used)
    ]
    if self._empty:
      notes.append(
        f'slices of volumes with an empty mask, which count as images without lesion: {self._empty}'
      )
    if self.unreadable:
      notes.append(
        f'unreadable files skipped: {len(self.unreadable)} ({", ".join(self.unreadable)})'
      )
    return notes


class Isic2018(MaskedImageFolder):
  """Images of ISIC 2018 with the lesion masks of task 1 and, where they are there, the diagnoses
  of task 3.
  """

  list_items = staticmethod(isic2018.list_items)


class DermoscopyPhantom(_Builder):
  """Dermoscopy-like images of skin lesions, drawn from a seed, with exact masks and classes."""

  def _split_generators(self, dl_manager):
    self.info.metadata['class_names'] = list(phantom.CLASS_NAMES)
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split):
    count = getattr(self.options.phantom, split)
    # Threads of BLAS within threads of ours wait for each other: on two busy cores that was 25
    # times slower.
    with threadpool_limits(1, user_api='blas'):
      yield from enumerate(
        in_parallel(lambda index: self._draw(split, index), range(count), f'draw {split}')
      )

  def _draw(self, split: str, index: int) -> dict:
    rng = phantom.generator(self.options.split_seed, split, index)
    image, mask, label = phantom.draw(rng, self.options.image_size, self.options.channels)
    name = f'{split}_{index:06d}'
    full = encode_mask(mask.astype(bool))
    spacing = np.array(UNKNOWN_SPACING, np.float32)
    return dict(
      image=image,
      mask=mask,
      label=label,
      has_mask=True,
      id=name,
      group=name,
      full_mask=full,
      spacing=spacing,
    )
