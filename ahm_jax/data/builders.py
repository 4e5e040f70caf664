"""TFDS builders, without TensorFlow: a folder of images and masks, and the dermoscopy phantoms.

Both write one kind of record in array_record files, which `tfds.builder_from_directory(dir).as_data_source()` reads:

  image: uint8 [S, S, C], squashed to a square with antialiasing.
  mask: uint8 [S, S] of 0 and 1, 1 where the lesion covers at least half of the pixel; zeros without a mask.
  label: int32, index into the builder's class names; -1: unknown.
  has_mask: bool.
  id, group: text.
  full_mask: the mask at the image's own resolution, as the bytes of a PNG; empty without a mask.

The info's metadata hold `class_names` and `notes`, lines for the user.
"""

import collections
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import ExifTags, Image, ImageOps
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ahm_jax.config import DataConfig
from ahm_jax.data import phantom
from ahm_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
PROBLEMS_SHOWN = 3
CHUNK = 64  # Images that are read before any of them is written; bounds the memory that preparation takes.


class Item(NamedTuple):
  """One image of a folder."""

  name: str
  image: Path
  mask: Path | None
  label: str
  split: str
  group: str
  listed: bool  # Whether labels.csv has a row for it (or there is no labels.csv).


def refuse(root: Path, problems: list[str]) -> None:
  """Raises a UserError of one line with the first few of `problems`, if there are any."""
  if problems:
    more = len(problems) - PROBLEMS_SHOWN
    rest = f'; and {more} more like these' if more > 0 else ''
    raise UserError(f'{root}: ' + '; '.join(problems[:PROBLEMS_SHOWN]) + rest)


# The folder's layout.


def list_folder(config: DataConfig) -> list[Item]:
  """Lists the images of `config.root` with mask, label, split and group, ordered by name; reads no pixels.

  Raises:
    UserError: the folder's files, or its labels.csv, do not fit together.
  """
  root = Path(config.root).expanduser()
  if not (root / 'images').is_dir():
    raise UserError(f'{root}: there is no folder images/; put the images there, masks in masks/, or set config.data.root')
  problems: list[str] = []
  images = _by_stem(root, 'images', problems)
  masks = _by_stem(root, 'masks', problems)
  if not images:
    raise UserError(f'{root / "images"}: holds no image; it should hold files that end in {", ".join(SUFFIXES)}')
  problems += [
    f'masks/{masks[name].name} has no image; add images/{name}.jpg (or .png) or remove the mask'
    for name in masks
    if name not in images
  ]
  table = root / 'labels.csv'
  columns, rows = _read_rows(table, images, problems) if table.exists() else ([], None)
  refuse(root, problems)
  has_splits = 'split' in columns
  items = []
  for name, path in images.items():
    row = {} if rows is None else rows.get(name)
    listed = row is not None
    row = row or {}
    mask = masks.get(name) if listed else None
    split = row.get('split', '') if listed and has_splits else 'train'
    items.append(Item(name, path, mask, row.get('label', ''), split, row.get('group') or name, listed))
  if not has_splits:
    return _split_by_group(items, config.split_fractions, config.split_seed)
  refuse(root, _crossing_groups(items))
  return items


def _by_stem(root: Path, folder: str, problems: list[str]) -> dict[str, Path]:
  """Image files of a folder by name without suffix, in order; an empty dict where there is no such folder."""
  found: dict[str, Path] = {}
  if not (root / folder).is_dir():
    return found
  for path in sorted((root / folder).iterdir()):
    if path.name.startswith('.') or path.suffix.lower() not in SUFFIXES or not path.is_file():
      continue
    if path.stem in found:
      problems.append(f'{folder}/{found[path.stem].name} and {folder}/{path.name} have the same name; keep one of them')
    found.setdefault(path.stem, path)
  return dict(sorted(found.items()))


def _read_rows(table: Path, images: dict[str, Path], problems: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
  """Reads labels.csv: its columns, and its rows by image name. Appends what is wrong with rows to `problems`."""
  try:
    with table.open(newline='', encoding='utf-8-sig') as file:
      reader = csv.DictReader(file)
      columns = [(name or '').strip() for name in reader.fieldnames or []]
      reader.fieldnames = columns
      raw = [(reader.line_num, {key: (row.get(key) or '').strip() for key in columns}) for row in reader]
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'{table}: cannot be read as comma-separated UTF-8 text ({error}); save it as such') from error
  if 'image' not in columns:
    raise UserError(f'{table}: has no column image, only {columns}; its first line should be image,label,split,group')
  files = {path.name: stem for stem, path in images.items()}
  rows: dict[str, dict[str, str]] = {}
  for line, row in raw:
    value = row['image']
    name = value if value in images else files.get(value, value)
    where = f'labels.csv line {line}'
    if '/' in value or '\\' in value or value in ('', '.', '..'):
      problems.append(f'{where}: {value!r} is not an image name; write the bare name of a file in images/')
    elif name not in images:
      problems.append(f'{where} names {value!r}, which is not in images/; add the image or remove the row')
    elif name in rows:
      problems.append(f'{where}: {value!r} has a row already; keep one of them')
    elif 'split' in columns and row['split'] not in SPLITS:
      problems.append(f'{where}: split of {value!r} is {row["split"]!r}; it may be {", ".join(SPLITS)}')
    else:
      rows[name] = row
  return columns, rows


def _crossing_groups(items: list[Item]) -> list[str]:
  first: dict[str, Item] = {}
  problems = {}
  for item in items:
    other = first.setdefault(item.group, item)
    if other.split != item.split:
      problems[item.group] = (
        f'labels.csv: group {item.group!r} is in split {other.split} (image {other.name!r}) and in {item.split} '
        f'(image {item.name!r}); give all of a group one split'
      )
  return list(problems.values())


def _split_by_group(items: list[Item], fractions: tuple[float, ...], seed: int) -> list[Item]:
  """Deals groups to train, validation and test from a seed, each to the split that lacks most of its share.

  A group that holds an image without a mask, which can only be trained on, goes to train as a whole.
  """
  groups = collections.defaultdict(list)
  for item in items:
    groups[item.group].append(item)
  bound = {name for name, members in groups.items() if any(member.mask is None for member in members)}
  free = sorted(set(groups) - bound)
  order = np.argsort(np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(free)), kind='stable') if free else []
  wanted = np.array(fractions) * sum(len(groups[name]) for name in free)
  chosen = dict.fromkeys(bound, 'train')
  for index in order:
    split = int(np.argmax(wanted))
    chosen[free[index]] = SPLITS[split]
    wanted[split] -= len(groups[free[index]])
  return [item._replace(split=chosen[item.group]) for item in items]


# One image and its mask.


class _Unreadable(Exception):
  """A file that cannot be decoded."""


class _Unfit(Exception):
  """A file that can be read but not used."""


def _open(path: Path) -> Image.Image:
  try:
    return Image.open(path)
  except Exception as error:
    raise _Unreadable(f'{path.parent.name}/{path.name}') from error


def _decode(picture: Image.Image, path: Path) -> None:
  try:
    picture.load()
  except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, struct.error and others on broken files.
    raise _Unreadable(f'{path.parent.name}/{path.name}') from error


def _read_image(path: Path, size: int, channels: int) -> tuple[np.ndarray, tuple[int, int]]:
  """Reads an image: uint8 [size, size, channels], and its own (width, height)."""
  mode = 'RGB' if channels == 3 else 'L'
  with _open(path) as picture:
    own = picture.size
    picture.draft(mode, (2 * size, 2 * size))  # Lets the JPEG decoder halve a large image several times on its way.
    _decode(picture, path)
    if picture.mode.startswith(('I', 'F')):
      raise _Unfit(f'images/{path.name} has pixels of more than 8 bits (mode {picture.mode}); save it with 8 bits a channel')
    if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # Taken with the camera turned by a quarter.
      own = own[::-1]
    small = ImageOps.exif_transpose(picture).convert(mode).resize((size, size), Image.Resampling.BICUBIC)
  return np.asarray(small).reshape(size, size, channels), own


def _read_mask(path: Path) -> np.ndarray:
  """Reads a mask at its own resolution: bool [h, w]."""
  with _open(path) as picture:
    _decode(picture, path)
    array = np.asarray(picture)
    colours = len(picture.getbands()) - ('A' in picture.getbands())
  if array.ndim == 3:
    if (array[..., :colours] != array[..., :1]).any():
      raise _Unfit(f'masks/{path.name} is a colour image; a mask has one channel of 0 and 1, or of 0 and 255')
    array = array[..., 0]
  if array.dtype == bool:
    return array
  highest = array.max()
  if highest not in (0, 1, 255) or ((array != 0) & (array != highest)).any():
    values = np.unique(array)
    shown = ', '.join(map(str, values[:6].tolist())) + (', ...' if len(values) > 6 else '')
    raise _Unfit(f'masks/{path.name} is not binary: its values are {shown}; it may hold 0 and 1, or 0 and 255')
  return array > 0


def _read_classes(path: Path, classes: int) -> np.ndarray:
  """Reads a mask of class indices at its own resolution: uint8 [h, w]."""
  with _open(path) as picture:
    _decode(picture, path)
    array = np.asarray(picture)
  if array.ndim != 2 or array.max() > classes:
    raise _Unfit(f'masks/{path.name} holds other values than 0 to {classes}; see config.data.mask_classes')
  return array.astype(np.uint8)


def encode_mask(mask: np.ndarray) -> bytes:
  """A mask as the bytes of a PNG: bool [h, w] with one bit a pixel, uint8 [h, w] with eight."""
  stream = io.BytesIO()
  Image.fromarray(mask).save(stream, 'PNG')
  return stream.getvalue()


def decode_mask(data: bytes) -> np.ndarray:
  """What `encode_mask` wrote: bool or uint8 [h, w]."""
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(picture)


def _resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
  """uint8 [size, size]: 1 where the mask, bool [h, w], covers at least half of the pixel's area; of classes, the largest."""
  if mask.dtype != bool:
    shares = [
      Image.fromarray((mask == k) * np.uint8(255)).resize((size, size), Image.Resampling.BOX) for k in range(mask.max() + 1)
    ]
    return np.stack(shares).argmax(0).astype(np.uint8)
  grey = Image.fromarray(mask.astype(np.uint8) * 255)
  return (np.asarray(grey.resize((size, size), Image.Resampling.BOX)) >= 128).astype(np.uint8)


def _read_item(item: Item, config: DataConfig) -> dict | Exception:
  """The record of one image, but for its label; or what is wrong with it."""
  size = config.image_size
  try:
    image, own = _read_image(item.image, size, config.channels)
    mask = np.zeros((size, size), np.uint8)
    full = b''
    if item.mask is not None:
      own_mask = _read_classes(item.mask, len(config.mask_classes)) if config.mask_classes else _read_mask(item.mask)
      height, width = own_mask.shape
      if own != (width, height):
        raise _Unfit(
          f'masks/{item.mask.name} is {width}x{height} but images/{item.image.name} is {own[0]}x{own[1]} '
          '(width x height); make them the same size'
        )
      mask, full = _resize_mask(own_mask, size), encode_mask(own_mask)
  except (_Unreadable, _Unfit) as problem:
    return problem
  has_mask = item.mask is not None
  return dict(image=image, mask=mask, has_mask=has_mask, id=item.name, group=item.group, full_mask=full)


def _in_parallel(function: Callable, arguments: Sequence, description: str) -> Iterator:
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

  def _split_generators(self, dl_manager):
    items = list_folder(self.options)
    class_names = sorted({item.label for item in items} - {''})
    self.info.metadata['class_names'] = class_names
    by_split = {split: [item for item in items if item.split == split] for split in SPLITS}
    return {split: self._generate_examples(split, items, class_names) for split, items in by_split.items() if items}

  def _generate_examples(self, split, items, class_names):
    records = _in_parallel(lambda item: _read_item(item, self.options), items, f'prepare {split}')
    for index, (item, record) in enumerate(zip(items, records, strict=True)):
      if isinstance(record, _Unreadable):
        self.unreadable.append(str(record))
        if not self.options.skip_unreadable:
          self.problems.append(
            f'{record} is damaged or not an image; replace it, or drop such files by --config.data.skip_unreadable'
          )
      elif isinstance(record, _Unfit):
        self.problems.append(str(record))
      else:
        self._used.append(item)
        yield index, {**record, 'label': class_names.index(item.label) if item.label else -1}
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


class DermoscopyPhantom(_Builder):
  """Dermoscopy-like images of skin lesions, drawn from a seed, with exact masks and classes."""

  def _split_generators(self, dl_manager):
    self.info.metadata['class_names'] = list(phantom.CLASS_NAMES)
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split):
    count = getattr(self.options.phantom, split)
    # Threads of BLAS within threads of ours wait for each other: on two busy cores that was 25 times slower.
    with threadpool_limits(1, user_api='blas'):
      yield from enumerate(_in_parallel(lambda index: self._draw(split, index), range(count), f'draw {split}'))

  def _draw(self, split: str, index: int) -> dict:
    rng = phantom.generator(self.options.split_seed, split, index)
    image, mask, label = phantom.draw(rng, self.options.image_size, self.options.channels)
    name = f'{split}_{index:06d}'
    full = encode_mask(mask.astype(bool))
    return dict(image=image, mask=mask, label=label, has_mask=True, id=name, group=name, full_mask=full)
