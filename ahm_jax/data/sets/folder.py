"""A folder of images: images/, masks/ of the same names where there are some, and labels.csv.

A group is what labels.csv says, else the patient of a DICOM file (its study or series, where it
names no patient), else the file itself, with all its slices. So a row joins its image to another
one by naming that as the group.
"""

import collections
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import cases, dicom, dispatch
from ahm_jax.data.readers.base import (
  SUFFIXES,
  Case,
  UnavailableFile,
  is_odd,
  link_problem,
  shown,
  stem,
)
from ahm_jax.data.sets import naming, table
from ahm_jax.data.sets.items import SPLITS, Item, Listing, crossing_groups
from ahm_jax.data.sets.source import DatasetSource, stamps
from ahm_jax.errors import UserError

VERSION = 2  # See `DatasetSource.version`.
_SYSTEM = ('thumbs.db', 'desktop.ini')  # What Windows puts into folders.


def list_items(config: DataConfig) -> Listing:
  """Lists the images of `config.root` with mask, label, split and group, ordered by name; reads no
  pixels. A row of labels.csv that is wrong counts as none.

  Raises:
    UserError: there is no image, or no table in labels.csv.
  """
  root = Path(config.root).expanduser()
  if not (root / 'images').is_dir():
    raise UserError(
      f'{root}: there is no folder images/; put the images there, masks in masks/, or set '
      'config.data.root'
    )
  problems: list[str] = []
  notes: list[str] = []
  images = _images(root, config, problems, notes)
  masks = _masks(root, config.mask_suffix, problems, notes)
  if not images:
    raise UserError(
      f'{root / "images"}: holds no image; it should hold files that end in {", ".join(SUFFIXES)}'
    )
  problems += _without_image(images, masks)
  notes += _misplaced(root, images)
  labels = table.read(root, images)
  if labels:
    problems += labels.problems
    notes += labels.notes + _masks_without_row(masks, labels)
  origins = _origins(images, masks, problems)
  groups = _groups(images, origins, labels.rows if labels else {}, notes)
  items = [
    _item(name, path, masks.get(name), groups[name], labels) for name, path in images.items()
  ]
  if labels and 'split' in labels.columns:
    return Listing(items, problems, crossing_groups(items, table.NAME), notes)
  items = _split_by_group(items, config.split_fractions, config.split_seed)
  return Listing(items, problems, [], notes)


def depends_on(config: DataConfig) -> dict[str, Any]:
  root = Path(config.root).expanduser().resolve()
  data = table.read_bytes(root)
  return {
    'root': str(root),
    'skip': config.skip_unreadable,
    'fractions': config.split_fractions,
    'classes': config.mask_classes,
    'mask_suffix': config.mask_suffix,
    'window': config.window,
    'slices': [config.slice_axis, config.every_slice],
    'table': None if data is None else hashlib.sha256(data).hexdigest(),
    'files': sorted(stamps(root / 'images')) + sorted(stamps(root / 'masks')),
  }


SOURCE = DatasetSource(
  name='folder',
  version=VERSION,
  list_items=list_items,
  depends_on=depends_on,
  root='the folder that holds images/',
  is_named_by_root=True,
  has_mask_classes=True,
  has_modalities=True,
)


# Files.


Image = Path | Case


def _item(
  name: str, path: Image, mask: Path | None, group: str, labels: table.Table | None
) -> Item:
  shown_name = _name(path)
  if labels is None:
    return Item(shown_name, 'train', '', group, path, mask)
  row = labels.rows.get(name)
  if row is None:
    return Item(shown_name, 'train', '', group, path, listed=False)
  return Item(shown_name, row.get('split', 'train'), row.get('label', ''), group, path, mask)


def _name(path: Image) -> str:
  return path.name if isinstance(path, Case) else stem(path.name)


def _images(
  root: Path, config: DataConfig, problems: list[str], notes: list[str]
) -> Mapping[str, Image]:
  """As `_by_stem`; with modalities, the cases that the files hold."""
  files = _by_stem(root, 'images', problems, notes)
  if not config.modalities:
    return files
  found, wrong = cases.together(files, config.modalities)
  problems += wrong
  lacking = [case for case in found.values() if cases.lacking(case, config.modalities)]
  if config.modality_dropout and lacking:
    names = table.some([case.name for case in lacking])
    notes.append(f'cases that lack modalities, which are mid-grey there: {len(lacking)} ({names})')
  else:
    problems += [cases.incomplete(case, config.modalities) for case in lacking]
  return found


def _by_stem(root: Path, folder: str, problems: list[str], notes: list[str]) -> dict[str, Path]:
  """Image files of a folder by composed name without suffix, in order.

  An empty dict where there is no such folder. Adds what is wrong to `problems`, and what is ignored
  to `notes`.
  """
  found: dict[str, Path] = {}
  others = []
  problem = link_problem(root / folder, root)
  if problem:
    raise UserError(f'{root}: {problem}')
  if not (root / folder).is_dir():
    return found
  for path in sorted((root / folder).iterdir()):
    if path.name.startswith('.') or path.name.lower() in _SYSTEM:
      continue
    try:
      is_image = (path.is_file() or path.is_symlink()) and dispatch.is_image_file(path)
    except UnavailableFile as refused:
      problems.append(str(refused))
      continue
    if not is_image:
      others.append(path.name)
      continue
    name = table.composed(stem(path.name))
    problem = _problem(path, root, found.get(name))
    if problem:
      problems.append(problem)
    found.setdefault(name, path)
  if others:
    notes.append(
      f'what is ignored in {folder}/: {len(others)} ({table.some(others)}); only files count, and '
      f'of these only such as end in {", ".join(SUFFIXES)}, and DICOM of any name'
    )
  return dict(sorted(found.items(), key=lambda item: stem(item[1].name)))


def _masks(root: Path, ending: str, problems: list[str], notes: list[str]) -> dict[str, Path]:
  """As `_by_stem`, by what the names are without this ending."""
  masks = _by_stem(root, 'masks', problems, notes)
  ending = table.composed(ending)
  others = [name for name in masks if not name.endswith(ending) or name == ending]
  problems += [
    f'{shown(masks[name])} has no {ending} before its suffix, which config.data.mask_suffix says '
    'that masks have; rename it, or remove it'
    for name in others
  ]
  return {
    name.removesuffix(ending): path for name, path in masks.items() if name not in set(others)
  }


def _without_image(images: Mapping[str, Image], masks: Mapping[str, Path]) -> list[str]:
  """What is wrong with masks that have no image of their name."""
  lone = [name for name in masks if name not in images]
  bare = {name for name in images if name not in masks}
  told, explained = naming.lines(naming.misfits(lone, bare), len(masks))
  return told + [
    f'{shown(masks[name])} has no image; add images/{stem(masks[name].name)}.jpg (or .png) or '
    'remove the mask'
    for name in lone
    if name not in explained
  ]


def _masks_without_row(masks: Mapping[str, Path], labels: table.Table) -> list[str]:
  """A note on masks that are there and not used."""
  unused = [path.name for name, path in masks.items() if name not in labels.rows]
  return unused and [
    f'masks that are NOT used, as their images have no row in {table.NAME}: {len(unused)} '
    f'({table.some(unused)}); add a row for each, its label may be empty'
  ]


def _misplaced(root: Path, images: Mapping[str, Image]) -> list[str]:
  """Notes on what may be masks or labels, and is not read as such."""
  notes = []
  if likely := naming.likely_masks(images):
    notes.append(
      f'images that are named as masks of others, and are read as images: {len(likely)} '
      f'({table.some(likely)}); move masks to masks/, under the names of their images'
    )
  beside = [path for path in sorted(root.iterdir()) if not path.name.startswith('.')]
  folders = [path.name for path in beside if path.is_dir() and path.name != 'images']
  if 'masks' not in {path.name for path in beside} and folders:
    notes.append(
      f'there is no folder masks/, so no image has a mask; other folders: {table.some(folders)}'
    )
  tables = [path.name for path in beside if path.suffix.lower() in table.SUFFIXES]
  if table.NAME not in tables and tables:
    notes.append(
      f'there is no {table.NAME}, so no image has a label; other tables: {table.some(tables)}; '
      f'save the one that is meant as {table.NAME}, comma-separated text'
    )
  return notes


def _problem(path: Path, root: Path, other: Path | None) -> str:
  """What is wrong with a file; `other` is that of the same name, if there is one."""
  if problem := link_problem(path, root):
    return problem
  if path.is_dir():  # A folder itself has been passed over.
    return f'{shown(path)} is a link to what is not a file; remove it'
  if is_odd(path.name):
    return f'{shown(path)} has control characters in its name, shown as \\x..; rename it'
  if other is not None:
    return f'{shown(other)} and {shown(path)} have the same name; keep one of them'
  return ''


# Groups and splits.


def _groups(
  images: Mapping[str, Image],
  origins: Mapping[str, dicom.Origin],
  rows: Mapping[str, Mapping[str, str]],
  notes: list[str],
) -> dict[str, str]:
  """The group of each image, by its name."""
  told = {name: table.composed(row['group']) for name, row in rows.items() if row.get('group')}
  origins = {name: origin for name, origin in origins.items() if name not in told}
  notes += _one_patient(list(origins.values()))
  groups = told | {name: origin.group for name, origin in origins.items() if origin.group}
  return {name: groups.get(name, name) for name in images}


def _origins(
  images: Mapping[str, Image], masks: Mapping[str, Path], problems: list[str]
) -> dict[str, dicom.Origin]:
  """Where DICOM images come from, by image name; adds those that the system refuses to `problems`.

  Says at once where a package is missing that the folder needs.
  """
  for path in (*images.values(), *masks.values()):
    if dispatch.is_volume_file(path):
      dispatch.require(path.first if isinstance(path, Case) else path)
  origins = {}
  for name, path in images.items():
    if isinstance(path, Path) and dicom.is_dicom(path):
      try:
        origins[name] = dicom.origin(path)
      except UnavailableFile as problem:
        problems.append(str(problem))
  return origins


def _one_patient(origins: list[dicom.Origin]) -> list[str]:
  """A note where DICOM files of several studies have one PatientID, as some tools write to hide
  who was examined.
  """
  patients = {origin.patient for origin in origins}
  studies = {origin.study for origin in origins} - {''}
  if len(patients) != 1 or '' in patients or len(studies) < 2:
    return []
  return [
    f'all {len(origins)} DICOM images without a group in labels.csv have the same PatientID, '
    f'though they come from {len(studies)} studies; so they are one group, which cannot be split; '
    'where they show several patients, tell them apart in a column group of labels.csv'
  ]


def _split_by_group(items: list[Item], fractions: tuple[float, ...], seed: int) -> list[Item]:
  """Assigns groups to train, validation and test from a seed, each to the split that lacks most of
  its share.

  A group that holds an image without a mask, which can only be trained on, goes to train as a
  whole.
  """
  groups = collections.defaultdict(list)
  for item in items:
    groups[item.group].append(item)
  bound = {
    name for name, members in groups.items() if any(member.mask is None for member in members)
  }
  free = sorted(set(groups) - bound)
  raw = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(free))
  wanted = np.array(fractions) * sum(len(groups[name]) for name in free)
  chosen = dict.fromkeys(bound, 'train')
  for index in np.argsort(raw, kind='stable'):
    split = int(np.argmax(wanted))
    chosen[free[index]] = SPLITS[split]
    wanted[split] -= len(groups[free[index]])
  return [item._replace(split=chosen[item.group]) for item in items]
