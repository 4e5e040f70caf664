"""The layout of a folder of images: which files belong together, and what labels.csv says of them;
reads no pixels.

A group is what labels.csv says, else the patient of a DICOM file (its study or series, where it
names no patient), else the file itself, with all its slices. So a row joins its image to another
one by naming that as the group.

Names are compared in Unicode's composed form (NFC), since macOS and others write an accent as a
letter of its own; they are shown and written as the files have them.
"""

import collections
import csv
import io
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import medical
from ahm_jax.data.readers.files import SUFFIXES, Held, is_volume, shown, suffix
from ahm_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')
COLUMNS = ('image', 'label', 'split', 'group')
PROBLEMS_SHOWN = 3
NAMES_SHOWN = 5
MAX_TABLE = 2**26  # Bytes of labels.csv.
MAX_CELL = 1000  # Letters of a cell of it.
_SYSTEM = ('thumbs.db', 'desktop.ini')  # What Windows puts into folders.
_INVISIBLE = (
  'Cc',
  'Cs',
  'Zl',
  'Zp',
)  # Unicode categories: control characters, half surrogates, separators of lines.
_TURNING = frozenset(
  '\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'
)  # Would show a name in another order.


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


def list_folder(
  config: DataConfig, problems: list[str] | None = None, notes: list[str] | None = None
) -> list[Item]:
  """Lists the images of `config.root` with mask, label, split and group, ordered by name; reads no
  pixels.

  Args:
    problems: where given, what does not fit together is added to it; a row that is wrong counts as
      none.
    notes: where given, lines for the user are added to it: what is passed over, and groups that may
      be other than is meant.

  Raises:
    UserError: there is no image, or no table in labels.csv; or, without `problems`, what is there
      does not fit together.
  """
  found: list[str] = []
  items = _list(config, found, [] if notes is None else notes)
  if problems is None:
    refuse(Path(config.root).expanduser(), found)
  else:
    problems += found
  return items


def _list(config: DataConfig, problems: list[str], notes: list[str]) -> list[Item]:
  root = Path(config.root).expanduser()
  if not (root / 'images').is_dir():
    raise UserError(
      f'{root}: there is no folder images/; put the images there, masks in masks/, or set config.data.root'
    )
  images = _by_stem(root, 'images', problems, notes)
  masks = _by_stem(root, 'masks', problems, notes)
  if not images:
    raise UserError(
      f'{root / "images"}: holds no image; it should hold files that end in {", ".join(SUFFIXES)}'
    )
  problems += [
    f'{shown(mask)} has no image; add images/{_stem(mask)}.jpg (or .png) or remove the mask'
    for name, mask in masks.items()
    if name not in images
  ]
  data = read_table(root)
  columns, rows = (
    ([], None) if data is None else _read_rows(root / 'labels.csv', data, images, problems, notes)
  )
  groups = _groups(images, masks, rows or {}, notes)
  has_splits = 'split' in columns
  items = []
  for name, path in images.items():
    row = {} if rows is None else rows.get(name)
    listed = row is not None
    row = row or {}
    mask = masks.get(name) if listed else None
    split = row.get('split', '') if listed and has_splits else 'train'
    items.append(Item(_stem(path), path, mask, row.get('label', ''), split, groups[name], listed))
  if not has_splits:
    return _split_by_group(items, config.split_fractions, config.split_seed)
  problems += crossing_groups(items, 'labels.csv')
  return items


def read_table(root: Path) -> bytes | None:
  """The bytes of labels.csv; None where there is none.

  Raises:
    UserError: it is no file, is too large, or is a link that leads out of the folder.
  """
  table = root / 'labels.csv'
  problem = link_problem(table, root)
  if problem:
    raise UserError(f'{root}: {problem}')
  if not table.exists():
    return None
  if not table.is_file() or table.stat().st_size > MAX_TABLE:
    raise UserError(
      f'{table}: is not a file of at most {MAX_TABLE} bytes; save it as comma-separated text'
    )
  return table.read_bytes()


def _stem(path: Path) -> str:
  return path.name[: -len(suffix(path.name))]


def _composed(name: str) -> str:
  return unicodedata.normalize('NFC', name)


def _by_stem(root: Path, folder: str, problems: list[str], notes: list[str]) -> dict[str, Path]:
  """Image files of a folder by composed name without suffix, in order.

  An empty dict where there is no such folder.
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
    if suffix(path.name) not in SUFFIXES or not (path.is_file() or path.is_symlink()):
      others.append(path.name)
      continue
    stem = _composed(_stem(path))
    problem = link_problem(path, root)
    if problem:
      problems.append(problem)
    elif is_odd(path.name):
      problems.append(
        f'{shown(path)} has control characters in its name, shown as \\x..; rename it'
      )
    elif stem in found:
      problems.append(
        f'{shown(found[stem])} and {shown(path)} have the same name; keep one of them'
      )
    found.setdefault(stem, path)
  if others:
    notes.append(
      f'what is passed over in {folder}/: {len(others)} ({_some(others)}); only files count, and of these only such as end in '
      f'{", ".join(SUFFIXES)}'
    )
  return dict(sorted(found.items(), key=lambda item: _stem(item[1])))


def _some(names: list[str]) -> str:
  """The first few names, quoted, in one line."""
  return ', '.join(map(_quoted, names[:NAMES_SHOWN])) + (
    ', ...' if len(names) > NAMES_SHOWN else ''
  )


def is_odd(text: str) -> bool:
  """Whether a name holds control characters, line breaks, halves of characters, or marks that
  turn the direction of writing.
  """
  return any(unicodedata.category(letter) in _INVISIBLE or letter in _TURNING for letter in text)


def link_problem(path: Path, root: Path) -> str:
  """What is wrong with a path that is a link.

  Links from one place within `root` to another are fine, as is one to `root`.
  """
  if not path.is_symlink():
    return ''
  name = path.name if path.parent == root else shown(path)
  if not path.exists():
    return f'{name} is a link to nothing; mend it or remove it'
  if not path.resolve().is_relative_to(root.resolve()):
    return f'{name} is a link that leads out of the folder; put a copy in its place'
  return (
    '' if path.is_file() or path.is_dir() else f'{name} is a link to what is not a file; remove it'
  )


def _groups(
  images: dict[str, Path], masks: dict[str, Path], rows: dict[str, dict[str, str]], notes: list[str]
) -> dict[str, str]:
  """The group of each image, by its name."""
  told = {name: _composed(row['group']) for name, row in rows.items() if row.get('group')}
  origins = {name: origin for name, origin in _origins(images, masks).items() if name not in told}
  notes += _one_patient(list(origins.values()))
  groups = told | {name: origin.group for name, origin in origins.items() if origin.group}
  return {name: groups.get(name, name) for name in images}


def _origins(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, medical.Origin]:
  """Where DICOM images come from, by image name.

  Says at once where a package is missing that the folder needs.
  """
  volumes = [path for path in (*images.values(), *masks.values()) if is_volume(path)]
  for path in volumes:
    medical.require(path)
  return {
    name: medical.origin(path)
    for name, path in images.items()
    if is_volume(path) and not medical.is_nifti(path)
  }


def _one_patient(origins: list[medical.Origin]) -> list[str]:
  """A note where DICOM files of several studies have one PatientID, as some tools write to hide
  who was examined.
  """
  patients = {origin.patient for origin in origins}
  studies = {origin.study for origin in origins} - {''}
  if len(patients) != 1 or '' in patients or len(studies) < 2:
    return []
  return [
    f'all {len(origins)} DICOM images without a group in labels.csv have the same PatientID, though they come from '
    f'{len(studies)} studies; so they are one group, which cannot be split; where they show several patients, tell them apart '
    'in a column group of labels.csv'
  ]


def _read_rows(
  table: Path, data: bytes, images: dict[str, Path], problems: list[str], notes: list[str]
) -> tuple[list[str], dict[str, dict[str, str]]]:
  """Reads labels.csv: its columns, and its rows by image name. Appends what is wrong with rows to
  `problems`.

  Cells are text, whatever they begin with.
  """
  columns, raw = _parse_table(table, data)
  others = [name for name in columns if name and name not in COLUMNS]
  if others:
    notes.append(
      f'labels.csv has columns that are not used: {_some(others)}; those that count are {", ".join(COLUMNS)}'
    )
  files = {_composed(path.name): stem for stem, path in images.items()}
  rows: dict[str, dict[str, str]] = {}
  for line, row, extra in raw:
    value = row['image']
    name = _composed(value)
    name = name if name in images else files.get(name, name)
    where = f'labels.csv line {line}'
    odd = [key for key in columns if is_odd(row[key]) or len(row[key]) > MAX_CELL]
    if extra:
      problems.append(
        f'{where} has {len(columns) + extra} cells for {len(columns)} columns; put a cell that holds a comma in double quotes, '
        'or remove what is too much'
      )
    elif odd:
      problems.append(
        f'{where}: {odd[0]} {_quoted(row[odd[0]])} has control characters or over {MAX_CELL} letters; mend it'
      )
    elif '/' in value or '\\' in value or value in ('', '.', '..'):
      problems.append(
        f'{where}: {_quoted(value)} is not an image name; write the bare name of a file in images/'
      )
    elif name not in images:
      problems.append(
        f'{where} names {_quoted(value)}, which is not in images/; add the image or remove the row'
      )
    elif name in rows:
      problems.append(f'{where}: {_quoted(value)} has a row already; keep one of them')
    elif 'split' in columns and row['split'] not in SPLITS:
      problems.append(
        f'{where}: split of {_quoted(value)} is {_quoted(row["split"])}; it may be {", ".join(SPLITS)}'
      )
    else:
      rows[name] = row
  return columns, rows


def _parse_table(
  table: Path, data: bytes
) -> tuple[list[str], list[tuple[int, dict[str, str], int]]]:
  """The columns of labels.csv, and its rows, each after the number of its line and before how
  many cells it has too many.
  """
  try:
    if b'\0' in data:
      raise csv.Error('it holds NUL, as UTF-16 does')
    reader = csv.DictReader(io.StringIO(data.decode('utf-8-sig'), newline=''))
    columns = [_column(name or '') for name in reader.fieldnames or []]
    reader.fieldnames = columns
    rows = [
      (
        reader.line_num,
        {key: (row.get(key) or '').strip() for key in columns},
        len(row.get(None, ())),
      )
      for row in reader
    ]
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(
      f'{table}: cannot be read as comma-separated UTF-8 text ({error}); save it as such'
    ) from error
  if 'image' not in columns:
    only = ', '.join(map(_quoted, columns[:10]))
    raise UserError(
      f'{table}: has no column image, only [{only}]; its first line should be image,label,split,group'
    )
  twice = [name for name, count in collections.Counter(columns).items() if name and count > 1]
  if twice:
    raise UserError(f'{table}: has the column {_quoted(twice[0])} twice; keep one of them')
  return columns, rows


def _column(text: str) -> str:
  """The name of a column, whatever its case and the blanks around it."""
  name = text.strip()
  return name.lower() if name.lower() in COLUMNS else name


def _quoted(text: str) -> str:
  return repr(text if len(text) <= 80 else text[:80] + '...')


def crossing_groups(items: list[Item], where: str) -> list[str]:
  """What is to be said of groups whose images `where` gives different splits."""
  first: dict[str, Item] = {}
  problems = {}
  for item in items:
    other = first.setdefault(item.group, item)
    if other.split != item.split:
      by_name = item.group in (other.name, item.name)
      problems[item.group] = (
        f'{where}: group {item.group!r} is in split {other.split} (image {other.name!r}) and in {item.split} '
        f'(image {item.name!r}); give all of a group one split'
        + (
          f', or image {item.group!r}, which is in it by its name, another group' if by_name else ''
        )
      )
  return list(problems.values())


def _split_by_group(items: list[Item], fractions: tuple[float, ...], seed: int) -> list[Item]:
  """Deals groups to train, validation and test from a seed, each to the split that lacks most of
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
  order = (
    np.argsort(np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(free)), kind='stable')
    if free
    else []
  )
  wanted = np.array(fractions) * sum(len(groups[name]) for name in free)
  chosen = dict.fromkeys(bound, 'train')
  for index in order:
    split = int(np.argmax(wanted))
    chosen[free[index]] = SPLITS[split]
    wanted[split] -= len(groups[free[index]])
  return [item._replace(split=chosen[item.group]) for item in items]
