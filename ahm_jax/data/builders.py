"""TFDS builders, without TensorFlow: a folder of images and masks, ISIC 2018, and the dermoscopy phantoms.

All write one kind of record in array_record files, which `tfds.builder_from_directory(dir).as_data_source()` reads:

  image: uint8 [S, S, C], squashed to a square with antialiasing.
  mask: uint8 [S, S] of 0 and 1, 1 where the lesion covers at least half of the pixel; zeros without a mask.
  label: int32, index into the builder's class names; -1: unknown.
  has_mask: bool.
  id, group: text.
  full_mask: the mask at the image's own resolution, as the bytes of a PNG; empty without a mask.

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
from ahm_jax.data import files, isic2018, phantom
from ahm_jax.data.files import Unfit, Unreadable
from ahm_jax.data.folder import SPLITS, Item, list_folder

CHUNK = 64  # Images that are read before any of them is written; bounds the memory that preparation takes.


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
    mask: bool [h, w], which gives 1 where it covers at least half of the pixel's area; or class indices, uint8 [h, w], of which
      the one with the largest area in the pixel is taken, the lowest of equals.
  """
  shape = (size, size)
  if mask.dtype == bool:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return (np.asarray(grey.resize(shape, Image.Resampling.BOX)) >= 128).astype(np.uint8)
  classes = np.unique(mask)
  planes = (Image.fromarray((mask == index).astype(np.float32)) for index in classes)
  shares = np.stack([np.asarray(plane.resize(shape, Image.Resampling.BOX)) for plane in planes])
  return classes[shares.argmax(axis=0)]


def _read_item(item: Item, config: DataConfig) -> list[dict] | Exception:
  """The records of an image or of a volume's slices, but for their labels; or what is wrong with it."""
  size = config.image_size
  try:
    pictures = files.read_slices(item.image, config.channels, at_least=(2 * size, 2 * size))
    masks = [None] * len(pictures) if item.mask is None else read_masks(item, [p.size for _, p in pictures], config)
  except (Unreadable, Unfit) as problem:
    return problem
  records = []
  for (suffix, picture), mask in zip(pictures, masks, strict=True):
    small = Image.fromarray(picture.pixels[..., 0] if config.channels == 1 else picture.pixels)
    image = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, config.channels)
    records.append(
      dict(
        image=image,
        mask=np.zeros((size, size), np.uint8) if mask is None else _resize_mask(mask, size),
        has_mask=mask is not None,
        id=item.name + suffix,
        group=item.group,
        full_mask=b'' if mask is None else encode_mask(mask),
      )
    )
  return records


def read_masks(item: Item, sizes: list[tuple[int, int]], config: DataConfig) -> list[np.ndarray]:
  """The masks of an item at their own resolution, bool, for slices of these (height, width)."""
  masks = [mask.astype(bool) for mask in files.read_mask_slices(item.mask)]
  mask_name, image_name = files.shown(item.mask), files.shown(item.image)
  if len(masks) != len(sizes):
    raise Unfit(f'{mask_name} holds {len(masks)} slices but {image_name} holds {len(sizes)}; make them the same shape')
  for mask, (height, width) in zip(masks, sizes, strict=True):
    if mask.shape != (height, width):
      raise Unfit(
        f'{mask_name} is {mask.shape[1]}x{mask.shape[0]} but {image_name} is {width}x{height} (width x height); '
        'make them the same size'
      )
  return masks


def in_parallel(function: Callable, arguments: Sequence, description: str) -> Iterator:
  """Results of a function in order, from a few threads, under a progress bar."""
  progress = tqdm(total=len(arguments), desc=description, unit='image', disable=None)
  with ThreadPoolExecutor(os.cpu_count()) as pool, progress as bar:
    for start in range(0, len(arguments), CHUNK):
      for result in pool.map(function, arguments[start : start + CHUNK]):
        yield result
        bar.update()


# The builders.


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What both builders share: the features."""

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

  `problems` and `unreadable` tell after (or in the middle of) a preparation what was wrong with single files; where there are
  problems, what was prepared is not to be used.
  """

  def __init__(self, *, options: DataConfig, **kwargs):
    self.problems: list[str] = []
    self.unreadable: list[str] = []
    self._used: list[Item] = []
    super().__init__(options=options, **kwargs)

  list_items = staticmethod(list_folder)

  def _split_generators(self, dl_manager):
    items = self.list_items(self.options)
    class_names = sorted({item.label for item in items} - {''})
    self.info.metadata['class_names'] = class_names
    by_split = {split: [item for item in items if item.split == split] for split in SPLITS}
    return {split: self._generate_examples(split, items, class_names) for split, items in by_split.items() if items}

  def _generate_examples(self, split, items, class_names):
    records = in_parallel(lambda item: _read_item(item, self.options), items, f'prepare {split}')
    index = 0
    for item, found in zip(items, records, strict=True):
      if isinstance(found, Unreadable):
        self.unreadable.append(str(found))
        if not self.options.skip_unreadable:
          self.problems.append(
            f'{found} is damaged or not an image; replace it, or drop such files by --config.data.skip_unreadable'
          )
      elif isinstance(found, Unfit):
        self.problems.append(str(found))
      else:
        for record in found:
          self._used.append(item)
          yield index, {**record, 'label': class_names.index(item.label) if item.label else -1}
          index += 1
    self.info.metadata['notes'] = self._notes()

  def _notes(self) -> list[str]:
    notes = []
    unlisted = sum(not item.listed for item in self._used)
    bare = [item for item in self._used if item.listed and item.mask is None]
    if unlisted or bare:
      labelled = sum(bool(item.label) for item in bare)
      notes.append(
        f'images that serve pre-training only: {unlisted + len(bare)} (without a mask: {len(bare)}, of which {labelled} have a '
        f'label and serve classification too; without a row in labels.csv: {unlisted})'
      )
    notes += [f'the {split} split holds no image' for split in SPLITS if not any(item.split == split for item in self._used)]
    if self.unreadable:
      notes.append(f'unreadable files skipped: {len(self.unreadable)} ({", ".join(self.unreadable)})')
    return notes


class Isic2018(MaskedImageFolder):
  """Images of ISIC 2018 with the lesion masks of task 1 and, where they are there, the diagnoses of task 3."""

  list_items = staticmethod(isic2018.list_items)


class DermoscopyPhantom(_Builder):
  """Dermoscopy-like images of skin lesions, drawn from a seed, with exact masks and classes."""

  def _split_generators(self, dl_manager):
    self.info.metadata['class_names'] = list(phantom.CLASS_NAMES)
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split):
    count = getattr(self.options.phantom, split)
    # Threads of BLAS within threads of ours wait for each other: on two busy cores that was 25 times slower.
    with threadpool_limits(1, user_api='blas'):
      yield from enumerate(in_parallel(lambda index: self._draw(split, index), range(count), f'draw {split}'))

  def _draw(self, split: str, index: int) -> dict:
    rng = phantom.generator(self.options.split_seed, split, index)
    image, mask, label = phantom.draw(rng, self.options.image_size, self.options.channels)
    name = f'{split}_{index:06d}'
    full = encode_mask(mask.astype(bool))
    return dict(image=image, mask=mask, label=label, has_mask=True, id=name, group=name, full_mask=full)
