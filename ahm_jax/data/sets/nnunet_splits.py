"""Which cases of nnU-Net are trained on, validated on and tested on.

nnU-Net itself has no test set: it trains on the cases of a fold's 'train', and validates on its
'val'. So that no score is of cases that anything was chosen by:

- the validation split is exactly the 'val' of fold config.data.fold in splits_final.json, where
  there is that file, so that it is that of nnU-Net;
- the test split is imagesTs and labelsTs, where there are labels. Else it is a share of the
  training cases, drawn by config.data.split_seed: with splits_final.json of the fold's 'train', by
  which this network is trained on fewer cases than nnU-Net's of that fold, and another test split
  belongs to each fold;
- all else is drawn in the shares config.data.split_fractions, whole cases together.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ahm_jax.config import DataConfig
from ahm_jax.data.readers.base import link_problem
from ahm_jax.data.sets import splitting, table
from ahm_jax.data.sets.items import Item
from ahm_jax.errors import UserError, printable
from ahm_jax.runtime import json_files, schema

FILE, PICKLE = 'splits_final.json', 'splits_final.pkl'
MAX_BYTES = 2**26
_COPY = 'copy it from the preprocessed folder of nnU-Net, which writes it there'
_FOLD = schema.record({'train': schema.list_of(schema.text), 'val': schema.list_of(schema.text)})
_CHECK = schema.list_of(_FOLD)


class Fold(NamedTuple):
  train: frozenset[str]
  validation: frozenset[str]


def assign(
  root: Path, training: Sequence[Item], test: Sequence[Item], config: DataConfig, notes: list[str]
) -> list[Item]:
  """Gives each item its split; leaves out those that a fold does not name.

  Args:
    root: where splits_final.json may lie.
    training, test: the items of both kinds; without `test`, some of `training` are to be it.
    notes: to which what is to be said is added.

  Raises:
    UserError: splits_final.json does not fit the cases, or config.data.split_fractions leaves
      nothing to train on.
  """
  fold = _read(root, config.fold, {item.name for item in training})
  tested = [item._replace(split='test') for item in test]
  if fold is None:
    notes.append(_unsplit(root))
    return splitting.by_group(training, _shares(config, bool(test)), config.split_seed) + tested
  train = [item for item in training if item.name in fold.train]
  validation = [
    item._replace(split='validation') for item in training if item.name in fold.validation
  ]
  if others := [item.name for item in training if item.name not in fold.train | fold.validation]:
    notes.append(
      f'cases that are NOT used, as fold {config.fold} of {FILE} does not name them: '
      f'{len(others)} ({table.some(others)})'
    )
  if not test:
    held = config.split_fractions[2] * (len(train) + len(validation)) / len(train)
    if held >= 1:
      raise UserError(
        f'config.data.split_fractions is {config.split_fractions}, of which the last share would '
        f'take all {len(train)} cases that fold {config.fold} of {FILE} trains on; lower it'
      )
    train = splitting.by_group(train, (1 - held, 0.0, held), config.split_seed)
    drawn = sum(item.split == 'test' for item in train)
    notes.append(
      f'cases of the train of fold {config.fold} that are held out as the test split: {drawn}'
    )
  return train + validation + tested


def _shares(config: DataConfig, has_test: bool) -> tuple[float, ...]:
  """Of the training cases, for the three splits."""
  train, validation, test = config.split_fractions
  if train == 0:
    raise UserError(
      f'config.data.split_fractions is {config.split_fractions}, which leaves nothing to train on'
    )
  whole = train + validation
  return (train / whole, validation / whole, 0.0) if has_test else (train, validation, test)


def _unsplit(root: Path) -> str:
  pickled = f'; {PICKLE}, which is there, is not read' if (root / PICKLE).exists() else ''
  return (
    f'there is no {root / FILE}, so the cases are split by config.data.split_seed{pickled}; '
    f'{_COPY}, to have its validation'
  )


def _read(root: Path, number: int, known: Collection[str]) -> Fold | None:
  """The fold of a number; None where there is no file.

  Raises:
    UserError: there is no such fold, or it does not fit the cases.
  """
  path = root / FILE
  if problem := link_problem(path, root):
    raise UserError(f'{root}: {problem}')
  folds = json_files.read_json(path, _CHECK, 'copy it again', MAX_BYTES)
  if folds is None and number:
    raise UserError(f'config.data.fold is {number}, but there is no {path}; {_COPY}')
  if folds is None:
    return None
  if number >= len(folds):
    raise UserError(
      f'{path} has {len(folds)} folds, and config.data.fold is {number}; they count from 0'
    )
  parts = []
  for name in ('train', 'val'):
    cases = [table.composed(case) for case in folds[number][name]]
    if not cases:
      raise UserError(f'{path}: {name} of fold {number} is empty; give it a case')
    if twice := schema.repeated(cases):
      raise UserError(f'{path}: {name} of fold {number} names {_shown(twice[0])} twice; remove one')
    if strange := [case for case in cases if case not in known]:
      raise UserError(
        f'{path}: {name} of fold {number} names case {_shown(strange[0])}, which is not among the '
        f'{len(known)} training cases; copy the set again, or the {FILE} that belongs to it'
      )
    parts.append(frozenset(cases))
  train, validation = parts
  if both := sorted(train & validation):
    raise UserError(
      f'{path}: fold {number} names case {_shown(both[0])} in train and in val; remove it from one'
    )
  return Fold(train, validation)


def _shown(case: str) -> str:
  return table.quoted(printable(case))
