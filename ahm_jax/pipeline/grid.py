"""The main job: every cell of {method} x {number of labels} x {seed}, and what the comparison says.

Processes that are given the same directory share the cells: each takes one that is neither finished
nor held by another.
"""

import dataclasses
import itertools
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ahm_jax.config import (
  REPRODUCE,
  SCRATCH,
  Config,
  FrozenDict,
  parse,
  pretraining_of,
  with_method,
)
from ahm_jax.data.dataset import Dataset
from ahm_jax.data.labelled import segmented_indices
from ahm_jax.errors import UserError
from ahm_jax.evaluation import results
from ahm_jax.evaluation.per_image import group_numbers
from ahm_jax.evaluation.tables import label_count
from ahm_jax.masking import registry
from ahm_jax.pipeline import cells as grid_cells
from ahm_jax.pipeline import gallery
from ahm_jax.pipeline.cells import Cell
from ahm_jax.pipeline.setup import check_config, check_targets, held_out, load_data, scored
from ahm_jax.pipeline.stages import (
  CLASSIFY,
  PRETRAIN,
  SEGMENT,
  agent_weights,
  classifier_weights,
  diagnosed,
  diagnoses,
)
from ahm_jax.runs import directory, provenance
from ahm_jax.runtime import json_files, places

PAUSE = 2.0  # Seconds between looks at cells that other processes hold.


def reproduce(config: Config, workdir: Path) -> dict[str, Any]:
  """Runs every cell that is not finished yet, here or in the files of `grid.results`, then compares
  them all.

  Cells that stand in those files, or were run here before, but are not of this grid, are left out.

  Writes results.json, report.html, its charts and pictures into `workdir`, and returns what
  results.json holds, see `results.tree`.

  Raises:
    UserError: something would stop it later, see `check_grid`, or `workdir` holds another grid.
  """
  check_methods(config)
  directory.check(workdir, REPRODUCE, config)
  config = _with_known_variants(config, workdir)
  data = load_data(config, workdir)
  images = scored(config, data, SEGMENT.scored_by)
  elsewhere = results.read(config.grid.results, config, data.name, images)
  cells, classify = grid_cells.all_cells(config, workdir), classifies(config, data)
  own = [cell for cell in cells if cell.key not in elsewhere.scores]
  unfinished = [cell for cell in own if not grid_cells.is_done(cell, config, data, classify)]
  check_grid(config, data, dict.fromkeys(cell.method for cell in unfinished))
  provenance.check_grid(workdir, data)
  directory.claim(workdir, REPRODUCE, config)
  with places.kept(workdir):
    if outside := elsewhere.scores.keys() - {cell.key for cell in cells}:
      print(
        f'Cells of config.grid.results that are not of this grid, left out: {len(outside)}',
        flush=True,
      )
    _run_all(own, config, data, classify)
    found = grid_cells.collect(cells, elsewhere, config)
    groups = group_numbers(data.splits[config.evaluate.split])
    tree = results.tree(found, config, data.name, groups)
    json_files.write_json(workdir / directory.RESULTS, tree)
    gallery.report(own, tree, config, workdir, data)
    return tree


def check_methods(config: Config) -> None:
  """Raises a UserError where an entry of `grid.methods`, `grid.baselines` or `grid.variants` is no
  method, two of `grid.methods` are the same, or one of `grid.all_labels` is not among them.
  """
  variants = config.grid.variants
  seen: list[tuple[str, str, Config]] = []
  for method in (*config.grid.methods, *config.grid.baselines, *variants):
    strategy, own = parse(method, variants).strategy, with_method(config, method)
    seen.append((method, strategy, own))
    if strategy != SCRATCH:
      try:
        registry.check(strategy)
      except UserError as error:
        raise UserError(f'{_field(config, method)} holds {method!r}: {error}') from error
  compared = seen[: len(config.grid.methods)]
  for (first, *one), (second, *other) in itertools.combinations(compared, 2):
    if one == other:
      raise UserError(
        f'config.grid.methods holds {first!r} and {second!r}, which are the same; leave out one'
      )
  if strange := set(config.grid.all_labels) - set(config.grid.methods):
    raise UserError(
      f'config.grid.all_labels holds {min(strange)!r}, which is none of config.grid.methods; '
      'add it there, or leave it out'
    )
  if shadows := variants.keys() & set(registry.names()):
    raise UserError(
      f'config.grid.variants holds {min(shadows)!r}, which is a masking strategy; '
      'choose another name'
    )


def _field(config: Config, method: str) -> str:
  """Which field holds a method."""
  fields = ('methods', 'baselines', 'variants')
  return next(f'config.grid.{name}' for name in fields if method in getattr(config.grid, name))


def _with_known_variants(config: Config, workdir: Path) -> Config:
  """The config with the variants alone that it uses, or that earlier grids in `workdir` used:
  these keep their meaning.
  """
  grid = config.grid
  held = directory.held_run(workdir)
  known = held.config.grid.variants if held else {}
  named = (*grid.methods, *grid.baselines)
  used = {name: grid.variants[name] for name in named if name in grid.variants}
  return dataclasses.replace(
    config, grid=dataclasses.replace(grid, variants=FrozenDict({**known, **used}))
  )


def classifies(config: Config, data: Dataset) -> bool:
  """Whether the cells of a grid classify too: there must be diagnoses to distinguish."""
  return config.grid.classify and len(data.class_names) > 1


def check_grid(config: Config, data: Dataset, methods: Collection[str]) -> None:
  """Says before a grid's hours of training what would stop these methods later.

  Raises:
    UserError: devices cannot share a batch; more labels are asked for than
      there are; the validation split, or the one to be scored, holds no image with a mask, or none
      with a label where the grid classifies; there is none for a classifier, or a segmentation
      that tells diagnoses, to learn from; or other people's weights do not fit the classifier or an
      agent.
  """
  owns = [with_method(config, method) for method in methods]
  for method, own in zip(methods, owns, strict=True):
    pretraining = pretraining_of(method, config.grid.variants)
    for stage in (PRETRAIN, SEGMENT) if pretraining else (SEGMENT,):
      check_config(own, stage)
    if pretraining:
      agent_weights(own)
  if not methods:
    return
  told = [diagnoses(own, data) for own in owns]
  classify = classifies(config, data) and not all(told)
  _check_labels(config, data, owns, classify)
  for stage in grid_cells.fine_tunings(classify):
    held_out(data, stage.scored_by)
    scored(config, data, stage.scored_by)
  if classify:
    for own in owns:
      check_config(own, CLASSIFY)
    classifier_weights(config, len(data.class_names))


def _check_labels(config: Config, data: Dataset, owns: Sequence[Config], classify: bool) -> None:
  """Of the images that methods, each with a config of its `own`, would learn from."""
  validation = held_out(data, 'mask')
  check_targets(config, validation, range(len(validation)), 'validation')
  sources = dict.fromkeys((own.data.labelled_from, own.classify) for own in owns)
  counts = (*config.grid.labels, *([0] if config.grid.all_labels else []))
  for (listed, how), labels, seed in itertools.product(sources, counts, config.grid.seeds):
    own = dataclasses.replace(config.data, labels=labels, labelled_from=listed)
    cell = dataclasses.replace(config, seed=seed, data=own, classify=how)
    chosen = segmented_indices(cell, data)
    check_targets(config, data.splits['train'], chosen, 'training')
    if classify:
      diagnosed(cell, data)


def _run_all(cells: Sequence[Cell], config: Config, data: Dataset, classify: bool) -> None:
  waiting, said = dict(enumerate(cells, 1)), set()
  while waiting:
    before = len(waiting)
    for number, cell in list(waiting.items()):
      name = (
        f'[{number}/{len(cells)}] {cell.method}, {label_count(cell.labels)} labels, '
        f'seed {cell.seed}'
      )
      if number not in said:
        print(name, flush=True)
      if grid_cells.run_cell(cell, config, data, classify):
        del waiting[number]
      elif number not in said:
        print(f'{name}: another process is running it', flush=True)
      said.add(number)
    if len(waiting) == before:
      time.sleep(PAUSE)
