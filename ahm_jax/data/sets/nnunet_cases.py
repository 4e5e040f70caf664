"""The cases of a data set of nnU-Net, or of the Medical Segmentation Decathlon: the images and
labels that belong together, by name or by dataset.json.

Of nnU-Net images are named CASE_0000.ENDING, of the Decathlon CASE.ENDING; labels are CASE.ENDING.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import raster
from ahm_jax.data.readers.base import Case, link_problem, shown, stem
from ahm_jax.data.sets import files, table
from ahm_jax.data.sets.nnunet_json import FILE, Description, Listed
from ahm_jax.errors import UserError

TRAINING, TEST = ('imagesTr', 'labelsTr'), ('imagesTs', 'labelsTs')
_NUMBERED = re.compile('(.+)_([0-9]{4})', re.ASCII | re.DOTALL)  # CASE_0000
_TIFF = ('.tif', '.tiff')


class Pair(NamedTuple):
  """A case of the set."""

  name: str
  image: Path | Case  # The latter with modalities.
  label: Path

  @property
  def first(self) -> Path:
    """A file of its image."""
    return self.image.first if isinstance(self.image, Case) else self.image


class Found(NamedTuple):
  training: list[Pair]
  test: list[Pair]  # With labels.
  problems: list[str]
  notes: list[str]


def find(root: Path, description: Description, config: DataConfig) -> Found:
  """Finds the cases of both kinds, each ordered by name.

  Raises:
    UserError: there are none to train on.
  """
  finder = _Finder(root, description, config)
  is_numbered = not description.is_decathlon or finder.has_numbers(description)
  if description.listed is None:
    training = finder.in_folders(*TRAINING, is_numbered)
  else:
    training = finder.listed(description)
  test = finder.test_cases(is_numbered)
  problems, notes = finder.problems, finder.notes
  problems += _twice(training, test)
  if description.told not in (None, len(training)) and not problems:
    problems.append(
      f'{FILE} says numTraining {description.told}, but there are {len(training)} training cases; '
      'copy the set again, or correct the number'
    )
  if not training and not problems:
    raise UserError(f'{root}: there is no image in {TRAINING[0]}; copy the set again')
  if description.ending in _TIFF:
    problems += _of_pages([*training, *test])
  return Found(training, test, problems, notes)


class _Finder:
  """Pairs files, and collects what is wrong and what is to be said."""

  def __init__(self, root: Path, description: Description, config: DataConfig):
    self.problems: list[str] = []
    self.notes: list[str] = []
    self._root, self._ending, self._config = root, description.ending, config

  def has_numbers(self, description: Description) -> bool:
    """Whether images that are listed as CASE.ENDING are named CASE_0000.ENDING, as of nnU-Net 1."""
    places = [self._root / place for case in description.listed or () for place in case.images]
    return bool(places) and not any(map(Path.exists, places)) and any(map(_is_numbered, places))

  def in_folders(self, images: str, labels: str, is_numbered: bool) -> list[Pair]:
    """The cases of two folders."""
    for name in (images, labels):
      if not (self._root / name).is_dir():
        raise UserError(f'{self._root}: there is no folder {name}/; copy the set again')
    found = self._images(images, is_numbered)
    masks = self._files(labels)
    self.problems += [
      f'{shown(image)} has no label; add {labels}/{case}{self._ending}, or remove the image'
      for case, image in found.items()
      if case not in masks
    ]
    number = '_0000' if is_numbered else ''
    self.problems += [
      f'{shown(path)} has no image; add {images}/{case}{number}{self._ending}, or remove the label'
      for case, path in masks.items()
      if case not in found
    ]
    return [Pair(case, found[case], masks[case]) for case in sorted(found.keys() & masks.keys())]

  def listed(self, description: Description) -> list[Pair]:
    """The cases that dataset.json names."""
    found: dict[str, Pair] = {}
    used: set[Path] = set()
    counts = {1, len(self._config.modalities)} - {0}
    for told in description.listed or ():
      files_told = self._listed_images(told)
      images = [path for path in files_told if path]
      name, label = table.composed(told.case), self._root / told.label
      if len(files_told) not in counts:
        self.problems.append(
          f'{FILE} names {len(files_told)} images of case {table.quoted(name)}; give '
          f'{" or ".join(map(str, sorted(counts)))}'
        )
      elif name in found or {*images, label} & used or len({*images}) < len(images):
        self.problems.append(
          f'{FILE} names case {table.quoted(name)}, or its image or label, twice; keep one of them'
        )
      elif absent := [path for path in (*images, label) if not path.is_file()]:
        place = table.quoted(absent[0].relative_to(self._root).as_posix())
        self.problems.append(
          f'{FILE} names {place} of case {table.quoted(name)}, which is not there; '
          f'copy the set again, or take the case out of {FILE}'
        )
      else:
        self.problems += filter(None, (self._problem(path) for path in (*images, label)))
        image = Case(name, files_told) if self._config.modalities else images[0]
        found[name] = Pair(name, image, label)
        used |= {*images, label}
    of_cases = [pair.image for pair in found.values() if isinstance(pair.image, Case)]
    files.check_whole(of_cases, self._config, self.problems, self.notes)
    for folder in TRAINING:
      others = [path.name for path in self._all(folder).values() if path not in used]
      if others and not self.problems:
        self.notes.append(
          f'files in {folder}/ that are NOT used, as {FILE} does not name them: {len(others)} '
          f'({table.some(others)})'
        )
    return [found[name] for name in sorted(found)]

  def _listed_images(self, told: Listed) -> tuple[Path | None, ...]:
    """The files of a case, None where a channel has none: of nnU-Net 1, which lists CASE.ENDING,
    they are CASE_0000.ENDING and so on.
    """
    images = tuple(self._root / place for place in told.images)
    if len(images) != 1 or images[0].exists() or not images[0].name:
      return images
    numbered = (_numbered(images[0], k) for k in range(len(self._config.modalities) or 1))
    found = tuple(path if path.is_file() else None for path in numbered)
    return found if any(found) else images

  def test_cases(self, is_numbered: bool) -> list[Pair]:
    """Those of imagesTs, where there are labels of them."""
    images, labels = TEST
    if self._all(labels):
      return self.in_folders(images, labels, is_numbered)
    if unlabelled := self._all(images):
      self.notes.append(
        f'images in {images}/ are NOT used, since there are no labels of them in {labels}/: '
        f'{len(unlabelled)}; a test set is not trained on'
      )
    return []

  def _images(self, folder: str, is_numbered: bool) -> Mapping[str, Path | Case]:
    """By case."""
    found = self._files(folder)
    if self._config.modalities and is_numbered:
      return files.cases_of(found, self._config, self.problems, self.notes)
    if self._config.modalities:
      return {name: Case(stem(path.name), (path,)) for name, path in found.items()}
    if not is_numbered:
      return found
    by_case: dict[str, Path] = {}
    for name, path in found.items():
      match = _NUMBERED.fullmatch(name)
      if not match:
        self.problems.append(
          f'{shown(path)} has no number of a channel; name it {stem(path.name)}_0000{self._ending}'
        )
      elif match[2] != '0000':
        self.problems.append(
          f'{shown(path)} is of channel {match[2]}, but one file a case is read, of channel 0000; '
          'remove it'
        )
      else:
        by_case[match[1]] = path
    return by_case

  def _files(self, folder: str) -> dict[str, Path]:
    """Images or labels of a folder, by composed name without the ending."""
    found = self._all(folder, self.problems, self.notes)
    self.problems += [
      f'{shown(path)} does not end in {self._ending}, the file_ending of {FILE}; save all alike'
      for path in found.values()
      if not path.name.endswith(self._ending)
    ]
    return {name: path for name, path in found.items() if path.name.endswith(self._ending)}

  def _all(
    self, folder: str, problems: list[str] | None = None, notes: list[str] | None = None
  ) -> dict[str, Path]:
    return files.by_stem(
      self._root, folder, [] if problems is None else problems, [] if notes is None else notes
    )

  def _problem(self, path: Path) -> str:
    """What is wrong with a file that dataset.json names."""
    folders = path.relative_to(self._root).parents
    links = (link_problem(self._root / folder, self._root) for folder in folders)
    if problem := next(filter(None, links), '') or files.problem_of(path, self._root, None):
      return problem
    if not path.name.endswith(self._ending):
      return f'{shown(path)} does not end in {self._ending}, as others do; save all alike'
    return ''


def _numbered(image: Path, channel: int = 0) -> Path:
  bare = stem(image.name)
  return image.with_name(f'{bare}_{channel:04d}{image.name[len(bare) :]}')


def _is_numbered(image: Path) -> bool:
  return bool(image.name) and _numbered(image).is_file()


def _twice(training: Iterable[Pair], test: Iterable[Pair]) -> list[str]:
  """What is wrong with cases that are both trained on and tested on."""
  known = {case.name: case for case in training}
  return [
    f'case {case.name!r} is in both {shown(known[case.name].image)} and {shown(case.image)}; a '
    'case to test on must not be trained on: remove it from one, or rename it where it is another'
    for case in test
    if case.name in known
  ]


def _of_pages(cases: Iterable[Pair]) -> list[str]:
  """What is wrong with TIFF of several pages, of which others than the first would be lost."""
  return [
    f'{shown(path)} holds {count} pages, a volume in TIFF, which is not read; save it as NIfTI'
    for case in cases
    for path in ((case.label,) if isinstance(case.image, Case) else (case.image, case.label))
    if (count := raster.describe(path)[1]) > 1
  ]
