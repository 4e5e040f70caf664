"""The layout of a folder of images: which files belong together, and what labels.csv says of them; reads no pixels.

A group is what labels.csv says, else the patient of a DICOM file, else the file itself, with all its slices.
"""

import collections
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data import medical
from ahm_jax.data.files import SUFFIXES, Held, is_volume, suffix
from ahm_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')
PROBLEMS_SHOWN = 3


class Item(NamedTuple):
  """One image, as it lies in a folder or archive."""

  name: str
  image: Path | Held
  mask: Path | Held | None
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


def list_folder(config: DataConfig, problems: list[str] | None = None) -> list[Item]:
  """Lists the images of `config.root` with mask, label, split and group, ordered by name; reads no pixels.

  Args:
    problems: where given, what does not fit together is added to it; a row that is wrong counts as none.

  Raises:
    UserError: there is no image, or no table in labels.csv; or, without `problems`, what is there does not fit together.
  """
  found: list[str] = []
  items = _list(config, found)
  if problems is None:
    refuse(Path(config.root).expanduser(), found)
  else:
    problems += found
  return items


def _list(config: DataConfig, problems: list[str]) -> list[Item]:
  root = Path(config.root).expanduser()
  if not (root / 'images').is_dir():
    raise UserError(f'{root}: there is no folder images/; put the images there, masks in masks/, or set config.data.root')
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
  patients = _patients(images, masks)
  has_splits = 'split' in columns
  items = []
  for name, path in images.items():
    row = {} if rows is None else rows.get(name)
    listed = row is not None
    row = row or {}
    mask = masks.get(name) if listed else None
    split = row.get('split', '') if listed and has_splits else 'train'
    group = row.get('group') or patients.get(name) or name
    items.append(Item(name, path, mask, row.get('label', ''), split, group, listed))
  if not has_splits:
    return _split_by_group(items, config.split_fractions, config.split_seed)
  problems += crossing_groups(items, 'labels.csv')
  return items


def _by_stem(root: Path, folder: str, problems: list[str]) -> dict[str, Path]:
  """Image files of a folder by name without suffix, in order; an empty dict where there is no such folder."""
  found: dict[str, Path] = {}
  if not (root / folder).is_dir():
    return found
  for path in sorted((root / folder).iterdir()):
    if path.name.startswith('.') or suffix(path.name) not in SUFFIXES or not path.is_file():
      continue
    stem = path.name[: -len(suffix(path.name))]
    if stem in found:
      problems.append(f'{folder}/{found[stem].name} and {folder}/{path.name} have the same name; keep one of them')
    found.setdefault(stem, path)
  return dict(sorted(found.items()))


def _patients(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, str]:
  """The patients of DICOM images by image name. Says at once where a package is missing that the folder needs."""
  volumes = [path for path in (*images.values(), *masks.values()) if is_volume(path)]
  for path in volumes:
    medical.require(path)
  return {name: medical.patient(path) for name, path in images.items() if is_volume(path) and not medical.is_nifti(path)}


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


def crossing_groups(items: list[Item], where: str) -> list[str]:
  """What is to be said of groups whose images `where` gives different splits."""
  first: dict[str, Item] = {}
  problems = {}
  for item in items:
    other = first.setdefault(item.group, item)
    if other.split != item.split:
      problems[item.group] = (
        f'{where}: group {item.group!r} is in split {other.split} (image {other.name!r}) and in {item.split} '
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
