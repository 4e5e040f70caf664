"""dataset.json of nnU-Net (version 2, and 1) and of the Medical Segmentation Decathlon.

  nnU-Net 2:      "channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1},
                  "file_ending": ".nii.gz", "numTraining": 131; where the cases are not those in
                  imagesTr, "dataset": {CASE: {"images": [FILE], "label": FILE}}
  Decathlon:      "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"},
                  "numTraining": 131, "training": [{"image": "./imagesTr/liver_0.nii.gz", "label":
                  "./labelsTr/liver_0.nii.gz"}]; nnU-Net 1 has it too

It is nnU-Net 2's where it has a file_ending, or a dataset.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ahm_jax.config import DataConfig
from ahm_jax.config.ranges import MASK_CLASSES, MODALITIES, class_names, modality_names
from ahm_jax.data.readers.base import NIFTI, RASTER, is_odd, link_problem, stem, suffix
from ahm_jax.errors import UserError, first
from ahm_jax.runtime import json_files, schema

FILE = 'dataset.json'
MAX_BYTES = 2**26
BACKGROUND, IGNORE = 'background', 'ignore'
_LONGEST = 60  # Letters of the name of a class.
_LONGEST_MODALITY = 26  # Letters of the name of a modality, without what is added.
_LONGEST_NAME = 255  # Bytes of the name of a file.
_SHOWN = 5
_LOSSY = ('.jpg', '.jpeg')
ENDINGS = (*(ending for ending in RASTER if ending not in _LOSSY), *NIFTI)
# How images of three channels are called that lie in one file: colours, or how nnU-Net scales them.
_COLOURS = frozenset(('r', 'g', 'b', 'red', 'green', 'blue', 'rgb_to_0_1'))
_DIGITS = re.compile('[0-9]{1,4}', re.ASCII)
_CURE = 'correct it'

_NAMES = schema.mapping(schema.text)
_VALUE = schema.either(schema.text, schema.list_of(schema.count()), schema.count())
_CASE = schema.record({'images': schema.list_of(schema.text), 'label': schema.text})
_PAIR = schema.record({'image': schema.text, 'label': schema.text})
_CHECK = schema.record(
  {'labels': schema.mapping(_VALUE)},
  {
    'channel_names': _NAMES,
    'modality': _NAMES,
    'file_ending': schema.text,
    'numTraining': schema.count(),
    'dataset': schema.mapping(_CASE),
    'training': schema.list_of(_PAIR),
    'overwrite_image_reader_writer': schema.optional(schema.text),
  },
)


class Listed(NamedTuple):
  """A case that dataset.json names, with paths below its folder."""

  case: str
  images: tuple[str, ...]  # Of its channels.
  label: str


class Description(NamedTuple):
  path: Path  # Of dataset.json.
  channels: tuple[str, ...]
  classes: tuple[str, ...]  # Of the values 1, 2, ..., as config.data.mask_classes may name them.
  ending: str  # Of the names of images and labels.
  told: int | None  # Number of training cases, as it says.
  listed: tuple[Listed, ...] | None  # None: the cases are what lies in imagesTr.
  is_decathlon: bool  # Or of nnU-Net 1.

  @property
  def is_colour(self) -> bool:
    """Whether the channels are the colours of an image, which lie in one file."""
    named = {name.lower() for name in self.channels}
    return len(self.channels) == 3 and named <= _COLOURS and self.ending in RASTER


def read(root: Path) -> Description:
  """Reads dataset.json.

  Raises:
    UserError: there is none, or it does not describe what can be read.
  """
  path = root / FILE
  if problem := link_problem(path, root):
    raise UserError(f'{root}: {problem}')
  tree = json_files.read_json(path, _CHECK, _CURE, MAX_BYTES)
  if tree is None:
    raise UserError(f'{root}: there is no {FILE}{_hint(root)}')
  writer = tree.get('overwrite_image_reader_writer') or ''
  if writer == 'Tiff3DIO':
    raise UserError(
      f'{path}: overwrite_image_reader_writer is Tiff3DIO, of volumes in TIFF, which are not read; '
      'save them as NIfTI'
    )
  is_decathlon = not ('file_ending' in tree or 'dataset' in tree)
  listed = _listed(path, tree, is_decathlon)
  channels = _channels(path, tree)
  classes = _classes(path, _values(path, tree['labels']))
  ending = tree.get('file_ending') or suffix(listed[0].label if listed else '')
  if ending not in ENDINGS:
    raise UserError(
      f'{path}: the file_ending of its images is {schema.shown(ending)}; those that are read are '
      f'{", ".join(ENDINGS)}'
    )
  return Description(path, channels, classes, ending, tree.get('numTraining'), listed, is_decathlon)


def check_channels(description: Description, config: DataConfig) -> None:
  """Refuses a config whose modalities are not as many as the channels of dataset.json, or have its
  names in another order; but for one channel, and colours, which need none.
  """
  count, modalities = len(description.channels), config.modalities
  found: list[str] = []
  for name in description.channels:
    found.append(_fitting(name[:_LONGEST_MODALITY], found, modality_names))
  own, told = ([name.lower() for name in names] for names in (modalities, found))
  is_turned = own != told and sorted(own) == sorted(told)
  if not modalities if description.is_colour or count == 1 else len(own) == count and not is_turned:
    return
  named = first([f'{k} {name[:_LONGEST]}' for k, name in enumerate(description.channels)], _SHOWN)
  needed = (
    'leave it empty'
    if description.is_colour or count == 1
    else (f'give --config.data.modalities={",".join(found)}')
  )
  raise UserError(
    f'{description.path} names {count} channel{"s" * (count > 1)} ({named}), and '
    f'config.data.modalities is {modalities}; {needed}'
  )


def check_classes(description: Description, config: DataConfig) -> None:
  """Refuses a config whose classes are not those of dataset.json: with one, masks may be binary."""
  classes = description.classes
  if config.mask_classes == classes or (len(classes) == 1 and not config.mask_classes):
    return
  flag = f'--config.data.mask_classes={",".join(classes)}'
  raise UserError(
    f'{description.path} names {len(classes)} label{"s" * (len(classes) > 1)} beside background, '
    f'and config.data.mask_classes is {config.mask_classes}; give {flag}'
    f'{", or none" if len(classes) == 1 else ""}'
  )


def _hint(root: Path) -> str:
  """What may be meant, to end a sentence."""
  if not root.is_dir():
    return ', nor such a folder; set config.data.root'
  below = sorted(path.name for path in root.iterdir() if (path / FILE).is_file())
  if below:
    return f'; give one of the folders that hold one, as {root / below[0]}'
  if (root / 'images').is_dir():
    return '; a folder of images/ and masks/ is data.name=folder'
  return '; give the folder that holds it, imagesTr and labelsTr'


def _channels(path: Path, tree: Mapping[str, Any]) -> tuple[str, ...]:
  named = tree.get('channel_names', tree.get('modality', {}))
  numbers = {int(key) if _DIGITS.fullmatch(key) else -1: name for key, name in named.items()}
  if sorted(numbers) != list(range(len(named))) or not named:
    raise UserError(
      f'{path}: channel_names (or modality) has the keys '
      f'{first(list(map(schema.shown, named)), _SHOWN)}; they must be "0", "1", ...'
    )
  if len(named) > MODALITIES:
    raise UserError(
      f'{path}: channel_names (or modality) has {len(named)} names; images have room for '
      f'{MODALITIES}'
    )
  return tuple(numbers[k] for k in range(len(named)))


def _values(path: Path, labels: Mapping[str, Any]) -> dict[str, int]:
  """The value of each name but 'ignore', whichever of the two is the key."""
  if labels and all(_DIGITS.fullmatch(key) and isinstance(labels[key], str) for key in labels):
    named = list(labels.values())
    if twice := schema.repeated(named):
      raise UserError(f'{path}: labels has the name {schema.shown(twice[0])} twice; {_CURE}')
    labels = {name: int(value) for value, name in labels.items()}
  found = {}
  for name, told in labels.items():
    value = told[0] if isinstance(told, list) and len(told) == 1 else told
    if name.lower() == IGNORE:
      raise UserError(
        f'{path}: labels has {IGNORE!r} (value {value}), of pixels that nobody labelled, and such '
        'masks are not read; label them, or leave those cases out'
      )
    if isinstance(value, list):
      raise UserError(
        f'{path}: label {schema.shown(name)} is the region {value[:_SHOWN]}, and regions are not '
        'read; give each value a name, and no name several values'
      )
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
      raise UserError(
        f'{path}: label {schema.shown(name)} has the value {schema.shown(value)}; {_CURE}'
      )
    found[name] = int(value)
  return found


def _classes(path: Path, values: Mapping[str, int]) -> tuple[str, ...]:
  """Names of the values from 1 on, written as config.data.mask_classes may hold them."""
  if sorted(values.values()) != list(range(len(values))) or len(values) < 2:
    raise UserError(
      f'{path}: labels has the values {first(list(map(str, sorted(values.values()))), _SHOWN)}; '
      'they must be 0 (background), 1, 2, ..., each once, with one beside background'
    )
  ordered = sorted(values, key=values.__getitem__)
  if [name for name in ordered if name.lower() == BACKGROUND] != ordered[:1]:
    raise UserError(
      f'{path}: labels names the value 0 {schema.shown(ordered[0])}, and 0 must be {BACKGROUND!r}'
    )
  if len(ordered) - 1 > MASK_CLASSES:
    raise UserError(f'{path}: labels has {len(ordered)} names; masks have room for {MASK_CLASSES}')
  found: list[str] = []
  for name in ordered[1:]:
    found.append(_fitting(name, found, class_names))
  return tuple(found)


def _fitting(name: str, others: Sequence[str], problem: Callable[[tuple[str, ...]], str]) -> str:
  """A name without what files and columns cannot be named by, and unlike others.

  Args:
    problem: what is wrong with names.
  """
  bare = re.sub('[^A-Za-z0-9_-]+', '_', name).strip('_-')[:_LONGEST] or 'name'
  if problem((bare,)) and problem((f'{bare}_2',)):  # Modalities begin with a letter.
    bare = f'c_{bare}'
  number, fitting = 1, bare
  while problem((*others, fitting)):
    number += 1
    fitting = f'{bare}_{number}'
  return fitting


def _listed(path: Path, tree: Mapping[str, Any], is_decathlon: bool) -> tuple[Listed, ...] | None:
  if 'dataset' in tree:
    cases = tree['dataset'].items()
    found = [Listed(case, tuple(told['images']), told['label']) for case, told in cases]
  elif is_decathlon:
    found = [
      Listed(stem(PurePosixPath(pair['label']).name), (pair['image'],), pair['label'])
      for pair in tree.get('training', ())
    ]
  else:
    return None
  if not found:
    raise UserError(
      f'{path} has no file_ending, as nnU-Net writes it, and names no training cases, as the '
      f'Medical Segmentation Decathlon does; {_CURE}'
    )
  for case in found:
    if not case.case or '/' in case.case or is_odd(case.case):
      raise UserError(
        f'{path} names the case {schema.shown(case.case)}, which no file can be; {_CURE}'
      )
    for place in (*case.images, case.label):
      if not _is_below(place):
        raise UserError(
          f'{path} names {schema.shown(place)}, which is no path below its folder; {_CURE}'
        )
  return tuple(found)


def _is_below(place: str) -> bool:
  """Whether a text is a path that may lie below a folder."""
  path = PurePosixPath(place)
  if is_odd(place) or path.is_absolute() or '..' in path.parts:
    return False
  return all(len(part.encode()) <= _LONGEST_NAME for part in path.parts) and len(path.parts) < 20
