"""ISIC 2018 (Codella et al., arXiv:1902.03368), from the challenge's own archives: tasks 1 and 3,
in their official splits.

They lie in one folder as they were downloaded, or unpacked into folders of their names; PART is
Training, Validation and Test:

  ISIC2018_Task1-2_PART_Input.zip      ISIC_0000000.jpg ...
  ISIC2018_Task1_PART_GroundTruth.zip  ISIC_0000000_segmentation.png ...
  ISIC2018_Task3_PART_Input.zip        if wanted: images with a diagnosis and no mask
  ISIC2018_Task3_PART_GroundTruth.zip  a table: image,MEL,NV,BCC,AKIEC,BKL,DF,VASC
  ISIC2018_Task3_Training_LesionGroupings.csv
                                       if wanted: image,lesion_id,...; images of one lesion are one
                                       group

Of task 3 (HAM10000: Tschandl et al., Scientific Data 5, 180161, 2018) each split may be there or
not. An image of both tasks keeps the split of task 1.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import archives
from ahm_jax.data.readers.base import Held, link_problem
from ahm_jax.data.sets.items import Item, Listing, crossing_groups, refuse
from ahm_jax.data.sets.source import DatasetSource, stamps
from ahm_jax.errors import UserError, printable

VERSION = 1  # See `DatasetSource.version`.
SITE = 'challenge.isic-archive.com'
# Of the official splits, by ours.
PARTS = {'train': 'Training', 'validation': 'Validation', 'test': 'Test'}
CLASSES = ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC')
GROUPINGS = 'ISIC2018_Task3_Training_LesionGroupings'
_AGAIN = f'download it again from {SITE}'
_IMAGE = re.compile(r'(ISIC_[0-9]{7})\.jpe?g', re.IGNORECASE)
_MASK = re.compile(r'(ISIC_[0-9]{7})_segmentation\.png', re.IGNORECASE)


def sources(root: Path) -> list[Path]:
  """The archives, tables and folders under `root` that the data set is read from.

  Those of task 1 though they be missing.
  """
  required = [name for part in PARTS.values() for name in _task1(part)]
  optional = [name for part in PARTS.values() for name in _task3(part)] + [GROUPINGS]
  return [_locate(root, name) or root / f'{name}.zip' for name in required] + [
    place for name in optional if (place := _locate(root, name))
  ]


def list_items(config: DataConfig) -> Listing:
  """Lists the images under `config.root`, ordered by name; reads tables, and no pixels.

  Raises:
    UserError: archives are missing or damaged.
  """
  root = Path(config.root).expanduser()
  missing = [
    name for part in PARTS.values() for name in _task1(part) if _locate(root, name) is None
  ]
  if missing:
    names = ', '.join(f'{name}.zip' for name in missing)
    raise UserError(f'{root}: lacks {names}; download from {SITE} (2018), put there as is')
  problems: list[str] = []
  items = {item.name: item for split in PARTS for item in _task1_items(root, split, problems)}
  groups = _groups(root)
  for split in PARTS:
    for item in _task3_items(root, split, groups, problems):
      own = items.get(item.name)
      items[item.name] = own._replace(label=item.label, group=item.group) if own else item
  listed = [items[name] for name in sorted(items)]
  return Listing(listed, problems, crossing_groups(listed, GROUPINGS), [])


def depends_on(config: DataConfig) -> dict[str, Any]:
  root = Path(config.root).expanduser().resolve()
  return {
    'root': str(root),
    'skip': config.skip_unreadable,
    'files': [sorted(stamps(place)) for place in sources(root)],
  }


SOURCE = DatasetSource(
  name='isic2018',
  version=VERSION,
  list_items=list_items,
  depends_on=depends_on,
  root='the folder that holds the official archives',
)


def _task1(part: str) -> tuple[str, str]:
  return f'ISIC2018_Task1-2_{part}_Input', f'ISIC2018_Task1_{part}_GroundTruth'


def _task3(part: str) -> tuple[str, str]:
  return f'ISIC2018_Task3_{part}_Input', f'ISIC2018_Task3_{part}_GroundTruth'


def _locate(root: Path, name: str) -> Path | None:
  """A folder of that name, also one within another of the same name, as some programs unpack.

  Or an archive, or a table.
  """
  for place in (root / name / name, root / name):
    if place.is_dir():
      return place
  return next(
    (place for place in (root / f'{name}.zip', root / f'{name}.csv') if place.is_file()), None
  )


def _contents(root: Path, name: str) -> dict[str, Path | Held]:
  """The files of an archive, or of the folder that it was unpacked into, by name."""
  place = _locate(root, name)
  if place is None:
    raise UserError(
      f'{root}: lacks {name}.zip, which belongs to what is there of task 3; download it from '
      f'{SITE} (2018)'
    )
  if place.is_dir():
    contents = {
      path.name: path for path in sorted(place.iterdir()) if not path.name.startswith('.')
    }
    refuse(root, [problem for path in contents.values() if (problem := link_problem(path, root))])
    return {name: path for name, path in contents.items() if path.is_file()}
  if place.suffix == '.zip':
    return {**archives.members(place, _AGAIN)}
  return {place.name: place}


def _by_id(contents: dict[str, Path | Held], pattern: re.Pattern) -> dict[str, Path | Held]:
  matches = ((pattern.fullmatch(name), file) for name, file in contents.items())
  return {match[1].upper(): file for match, file in matches if match}


def _task1_items(root: Path, split: str, problems: list[str]) -> list[Item]:
  inputs, truths = _task1(PARTS[split])
  images, masks = _by_id(_contents(root, inputs), _IMAGE), _by_id(_contents(root, truths), _MASK)
  if not images:
    raise UserError(f'{root}: {inputs} holds no image ISIC_0000000.jpg; {_AGAIN}')
  problems += [
    f'{truths} has a mask of {name}, but {inputs} has no such image; {_AGAIN}'
    for name in masks.keys() - images.keys()
  ]
  problems += [
    f'{inputs} has {name}, but {truths} has no mask of it; {_AGAIN}'
    for name in images.keys() - masks.keys()
  ]
  return [Item(name, split, '', name, image, masks.get(name)) for name, image in images.items()]


def _task3_items(root: Path, split: str, groups: dict[str, str], problems: list[str]) -> list[Item]:
  inputs, truths = _task3(PARTS[split])
  if _locate(root, inputs) is None:
    return []
  images = _by_id(_contents(root, inputs), _IMAGE)
  tables = [file for name, file in _contents(root, truths).items() if name == f'{truths}.csv']
  if not images or not tables:
    raise UserError(
      f'{root}: {inputs} holds no image ISIC_0000000.jpg, or {truths} no table {truths}.csv; '
      f'{_AGAIN}'
    )
  labels = {}
  for row in _rows(tables[0], truths, ('image', *CLASSES)):
    label = _label(row)
    if label is None:
      problems.append(
        f'{truths}: the row of {printable(row["image"])!r} names no class, or several; {_AGAIN}'
      )
    elif row['image'] not in images:
      problems.append(
        f'{truths} names {printable(row["image"])!r}, which is not in {inputs}; {_AGAIN}'
      )
    labels[row['image']] = label or ''
  return [
    Item(name, split, labels.get(name, ''), groups.get(name, name), image)
    for name, image in images.items()
  ]


def _label(row: dict[str, str]) -> str | None:
  try:
    values = [float(row[name]) for name in CLASSES]
  except ValueError:
    return None
  return CLASSES[values.index(1)] if sorted(values) == [0] * (len(CLASSES) - 1) + [1] else None


def _groups(root: Path) -> dict[str, str]:
  """The lesion of each image of task 3 that the table of lesions names."""
  place = _locate(root, GROUPINGS)
  if place is None:
    return {}
  tables = [file for name, file in _contents(root, GROUPINGS).items() if name.endswith('.csv')]
  return {
    row['image']: row['lesion_id']
    for file in tables
    for row in _rows(file, GROUPINGS, ('image', 'lesion_id'))
  }


def _rows(file: Path | Held, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
  try:
    reader = csv.DictReader(io.StringIO(file.read_bytes().decode('utf-8-sig')))
    rows = [{key: (row.get(key) or '').strip() for key in columns} for row in reader]
    lacks = [column for column in columns if column not in (reader.fieldnames or [])]
  except Exception as error:  # Whatever a damaged archive raises.
    if isinstance(error, OSError) and error.errno:
      raise  # It says nothing of what the file holds.
    raise UserError(f'{name}: its table cannot be read ({error}); {_AGAIN}') from error
  if lacks:
    raise UserError(f'{name}: its table has no column {lacks[0]}; {_AGAIN}')
  yield from rows
