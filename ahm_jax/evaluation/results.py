"""results.json: what a grid found, cell by cell, and cells that the same grid found elsewhere."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.config import (
  REPRODUCE,
  Config,
  check_same,
  from_config_dict,
  pretraining_name,
  pretraining_of,
  to_dict,
)
from ahm_jax.errors import UserError
from ahm_jax.evaluation import compare
from ahm_jax.evaluation.intervals import group_indices
from ahm_jax.evaluation.stored import AGENT, AGENT_METRICS, score, scores
from ahm_jax.runtime import json_files, schema
from ahm_jax.runtime.schema import Check

PER_IMAGE = 'per_image'
DIGITS = 5  # Of each image's Dice.
_CURE = 'leave it out of config.grid.results'
# What a file may have: so many bytes for each Dice, of which 21 are written, in so many cells.
_BYTES, _CELLS = 32, 10_000
_KEY: dict[str, Check] = {'method': schema.text, 'seed': schema.count()}
_CELL = {**_KEY, 'labels': schema.count(), PER_IMAGE: schema.mapping(schema.list_of(score('dice')))}
_TREE = schema.record(
  {
    'dataset': schema.text,
    'split': schema.text,
    'config': schema.mapping(),
    'images': schema.list_of(schema.text, unique=True),
    'cells': schema.list_of(schema.both(schema.record(_CELL), scores(*_CELL))),
    'pretrainings': schema.list_of(schema.both(schema.record(_KEY), AGENT)),
  }
)


class Cells(NamedTuple):
  """What is known of cells and of pre-trainings."""

  # By method, labels, seed; with 'method', 'labels' and 'seed' in it.
  scores: dict[compare.Key, dict[str, Any]]
  # 'dice', and with classes 'dice_NAME', of each image by its name; nan where prediction and truth
  # are both empty.
  dice: dict[compare.Key, dict[str, dict[str, float]]]
  # AGENT_METRICS by pre-training, in the short form, and seed; None where there is no value.
  agents: dict[tuple[str, int], dict[str, float | None]]


def tree(cells: Cells, config: Config, dataset: str, groups: Mapping[str, int]) -> dict[str, Any]:
  """What results.json holds.

  Args:
    groups: of the images, by name; see `per_image.group_numbers`.

  Returns:
    'dataset', 'split', 'config'.
    'images': names of the scored images; 'groups': a number for each, alike within a group.
    'cells': scores of each cell, with 'per_image': 'dice' (and with classes 'dice_NAME'), each in
      the order of 'images'.
    'pretrainings': AGENT_METRICS of each method that pre-trains, and seed.
    'summary': of `compare.summarise_grid`.
    'over_labels': the same of means over the numbers of labels that `compare.over_labels` gives;
      empty where it gives none.
    'agent': AGENT_METRICS by method, means over seeds.

  Raises:
    UserError: cells were scored on different images.
  """
  classes = config.data.mask_classes
  dice, *class_dice = (
    {key: columns[name] for key, columns in cells.dice.items()} for name in dice_columns(classes)
  )
  by_class = dict(zip(classes, class_dice, strict=True))
  known = list(cells.scores.values())
  counts = compare.over_labels(known)
  summarise = functools.partial(
    compare.summarise_grid,
    samples=config.evaluate.bootstrap_samples,
    groups=groups,
    baselines=config.grid.baselines,
  )
  images = sorted(next(iter(dice.values())))
  return {
    'dataset': dataset,
    'split': config.evaluate.split,
    'config': to_dict(config),
    'images': images,
    'groups': group_indices(images, groups),
    'cells': [
      {**scores, PER_IMAGE: _in_order(cells.dice[key], images)}
      for key, scores in cells.scores.items()
    ],
    'pretrainings': [
      {'method': pretraining_name(pretraining, config.grid), 'seed': seed, **values}
      for (pretraining, seed), values in cells.agents.items()
    ],
    'summary': summarise(known, dice, by_class=by_class),
    'over_labels': summarise(
      compare.averaged_cells(known, counts),
      compare.averaged(dice, counts),
      by_class={name: compare.averaged(values, counts) for name, values in by_class.items()},
    ),
    'agent': {
      pretraining_name(pretraining, config.grid): _mean(cells, pretraining)
      for pretraining in dict.fromkeys(pretraining for pretraining, _ in cells.agents)
    },
  }


def dice_columns(mask_classes: Sequence[str]) -> list[str]:
  """The columns of per_image.csv that hold Dice: of the image, then of each class."""
  return ['dice', *(f'dice_{name}' for name in mask_classes)]


def _in_order(columns: dict[str, dict[str, float]], images: list[str]) -> dict[str, list[float]]:
  return {
    name: [round(values[image], DIGITS) for image in images] for name, values in columns.items()
  }


def _by_name(columns: dict[str, list], images: list[str]) -> dict[str, dict[str, float]]:
  """The inverse of `_in_order`, of what JSON made of it."""
  return {
    name: {
      image: math.nan if value is None else float(value)
      for image, value in zip(images, values, strict=True)
    }
    for name, values in columns.items()
  }


def _mean(cells: Cells, method: str) -> dict[str, float | None]:
  found = [values for (name, _), values in cells.agents.items() if name == method]
  means: dict[str, float | None] = {}
  for metric in AGENT_METRICS:
    known = [value for values in found if (value := values[metric]) is not None]
    means[metric] = math.fsum(known) / len(known) if known else None
  return means


def read(paths: Sequence[str], config: Config, dataset: str, images: Collection[str]) -> Cells:
  """The cells of results.json files of this grid that were made elsewhere; of a cell in two of
  them, the first.

  Args:
    images: names of those that this grid scores.

  Raises:
    UserError: a file is no results.json, or is that of another data set, split or config, or of
      other images.
  """
  found = Cells({}, {}, {})
  columns = dice_columns(config.data.mask_classes)
  most = json_files.MOST_BYTES + _BYTES * _CELLS * len(images) * len(columns)
  for path in map(Path, paths):
    held = json_files.read_json(path.expanduser(), _TREE, _CURE, most)
    if held is None:
      raise UserError(f'{path}, in config.grid.results, is not there; {_CURE}')
    variants = _check(path, held, config, dataset, images).grid.variants
    for cell in held['cells']:
      key = cell['method'], cell['labels'], cell['seed']
      found.dice.setdefault(key, _by_name(cell.pop(PER_IMAGE), held['images']))
      found.scores.setdefault(key, cell)
    for agent in held['pretrainings']:
      pretraining = pretraining_of(agent['method'], variants)
      found.agents.setdefault(
        (pretraining, agent['seed']), {name: agent[name] for name in AGENT_METRICS}
      )
  return found


def _check(path: Path, held: dict, config: Config, dataset: str, images: Collection[str]) -> Config:
  named = f'{path}, in config.grid.results,'
  for name, own in (('dataset', dataset), ('split', config.evaluate.split)):
    if held[name] != own:
      raise UserError(f'{named} is of {name} {schema.shown(held[name])}, not {own!r}; leave it out')
  try:
    other = from_config_dict(held['config'])
    for item in [*held['cells'], *held['pretrainings']]:
      pretraining_of(item['method'], other.grid.variants)
  except UserError as error:
    raise UserError(f'{named} is damaged, or of another version: {error}; leave it out') from error
  check_same(named, REPRODUCE, held['config'], config, free=('data.root',), remedy='leave it out')
  if strange := set(images) ^ set(held['images']):
    raise UserError(f'{named} has scores of other images, as of {min(strange)}; leave it out')
  columns = set(dice_columns(config.data.mask_classes))
  for number, cell in enumerate(held['cells']):
    lengths = {len(values) for values in cell[PER_IMAGE].values()}
    if cell[PER_IMAGE].keys() != columns or lengths != {len(held['images'])}:
      raise UserError(
        f'{named} is damaged: cells[{number}] has not one Dice for each image; leave it out'
      )
  return other
