"""A folder of images: images/, masks/ of the same names where there are some, and labels.csv.

A group is what labels.csv says, else the patient of a DICOM file (its study or series, where it
names no patient), else the file itself, with all its slices. So a row joins its image to another
one by naming that as the group.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import dicom, dispatch
from ahm_jax.data.readers.base import SUFFIXES, Case, Held, UnavailableFile, shown, stem
from ahm_jax.data.sets import annotations, files, naming, splitting, table
from ahm_jax.data.sets.items import Item, Listing, crossing_groups
from ahm_jax.data.sets.source import DatasetSource, stamps
from ahm_jax.errors import UserError

VERSION = 2  # See `DatasetSource.version`.


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
  masks = _masks(root, config.mask_suffix, images, problems, notes)
  if not images:
    raise UserError(
      f'{root / "images"}: holds no image; it should hold files that end in {", ".join(SUFFIXES)}'
    )
  problems += _without_image(images, masks)
  notes += _misplaced(root, images)
  origins = _origins(images, masks, problems)
  masks |= annotations.labelme(root, images, masks, config.mask_classes, problems, notes)
  masks |= annotations.coco(root, images, masks, config.mask_classes, problems, notes)
  labels = table.read(root, images)
  if labels:
    problems += labels.problems
    notes += labels.notes + _masks_without_row(masks, labels)
  groups = _groups(images, origins, labels.rows if labels else {}, notes)
  items = [
    _item(name, path, masks.get(name), groups[name], labels) for name, path in images.items()
  ]
  if labels and 'split' in labels.columns:
    return Listing(items, problems, crossing_groups(items, table.NAME), notes)
  items = splitting.by_group(items, config.split_fractions, config.split_seed)
  return Listing(items, problems, [], notes)


def depends_on(config: DataConfig) -> dict[str, Any]:
  root = Path(config.root).expanduser().resolve()
  data = table.read_bytes(root)
  drawn = [stamp for path in annotations.files(root) for stamp in stamps(path)]
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
    **({'drawn': drawn} if drawn else {}),  # Else prepared data keep the name that they had.
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
  name: str, path: Image, mask: Path | Held | None, group: str, labels: table.Table | None
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
  """As `files.by_stem`; with modalities, the cases that the files hold."""
  single = files.by_stem(root, 'images', problems, notes)
  return files.cases_of(single, config, problems, notes) if config.modalities else single


def _masks(
  root: Path, ending: str, images: Mapping[str, Image], problems: list[str], notes: list[str]
) -> dict[str, Path | Held]:
  """As `files.by_stem`, by what the names are without this ending."""
  drawn = {path.name for path in annotations.files(root) if table.composed(path.stem) in images}
  masks = files.by_stem(root, 'masks', problems, notes, drawn)
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


def _without_image(images: Mapping[str, Image], masks: Mapping[str, Path | Held]) -> list[str]:
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


def _masks_without_row(masks: Mapping[str, Path | Held], labels: table.Table) -> list[str]:
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
  if not {'masks', annotations.COCO} & {path.name for path in beside} and folders:
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


# Groups.


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
  images: Mapping[str, Image], masks: Mapping[str, Path | Held], problems: list[str]
) -> dict[str, dicom.Origin]:
  """Where DICOM images come from, by image name; adds those that the system refuses to `problems`.

  Says at once where a package is missing that the folder needs.
  """
  for path in (*images.values(), *masks.values()):
    if isinstance(path, Path | Case) and dispatch.is_volume_file(path):
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
