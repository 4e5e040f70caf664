"""The cells of a grid, {method} x {labels} x {seed}: their runs, where those lie, their scores."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ahm_jax.config import (
  Config,
  GridConfig,
  folder_name,
  pretraining_of,
  segmentation_of,
  with_method,
)
from ahm_jax.data.dataset import Dataset
from ahm_jax.data.labelled import segmented_indices
from ahm_jax.errors import printable
from ahm_jax.evaluation import compare, per_image, results, stored
from ahm_jax.pipeline.evaluate import evaluate_run
from ahm_jax.pipeline.setup import open_run, scored
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT
from ahm_jax.pipeline.train import train_run
from ahm_jax.runs import directory, ownership, provenance
from ahm_jax.runs.stage import Stage
from ahm_jax.runtime import json_files, schema


@dataclass(frozen=True)
class Cell:
  """One combination of the grid."""

  root: Path  # Of the grid.
  method: str
  pretraining: str  # The method whose pre-training it starts from; '' from scratch.
  segmentation: str  # The one whose segmentation is its own: they may classify in several ways.
  labels: int
  seed: int

  @property
  def key(self) -> compare.Key:
    return self.method, self.labels, self.seed

  def directory(self, stage: Stage) -> Path:
    """Of its run of a stage; cells of other numbers of labels share the pre-training."""
    if stage is PRETRAIN:
      return self.root / stage.name / self.pretraining / f'seed{self.seed}'
    method = folder_name(self.segmentation if stage is SEGMENT else self.method)
    return self.root / stage.name / method / f'labels{self.labels}' / f'seed{self.seed}'

  def stages(self, classify: bool) -> tuple[Stage, ...]:
    """Of its runs, in order; without that of a classification, which another grid may have made,
    unless it is asked for.
    """
    return (*([PRETRAIN] if self.pretraining else ()), *fine_tunings(classify))


def fine_tunings(classify: bool) -> tuple[Stage, ...]:
  """What is trained for every cell by itself."""
  return (SEGMENT, CLASSIFY) if classify else (SEGMENT,)


def all_cells(config: Config, root: Path) -> list[Cell]:
  """The cells of `config.grid`, in the order that they are run."""
  grid = config.grid
  methods = {labels: grid.methods for labels in grid.labels}
  if grid.all_labels:
    methods.setdefault(0, grid.all_labels)
  return [
    cell_of(root, method, labels, seed, grid)
    for seed in grid.seeds
    for labels, of_these in methods.items()
    for method in of_these
  ]


def cell_of(root: Path, method: str, labels: int, seed: int, grid: GridConfig) -> Cell:
  pretraining = pretraining_of(method, grid.variants)
  return Cell(root, method, pretraining, segmentation_of(method, grid), labels, seed)


class CellRun(NamedTuple):
  """A run of a cell."""

  stage: Stage
  config: Config
  workdir: Path


def cell_runs(cell: Cell, config: Config, classify: bool) -> Iterator[CellRun]:
  """The runs of a cell, each with the config that its own command would have."""
  config = dataclasses.replace(
    config, seed=cell.seed, data=dataclasses.replace(config.data, labels=cell.labels)
  )
  start = ''
  if cell.pretraining:
    own = with_method(config, cell.pretraining)
    unlabelled = dataclasses.replace(config.data, labels=0, labelled_from='')
    own = dataclasses.replace(own, data=unlabelled, init_from='')
    yield CellRun(PRETRAIN, own, cell.directory(PRETRAIN))
    start = str(cell.directory(PRETRAIN))
  tuned = with_method(config, cell.method)
  config = dataclasses.replace(
    config,
    segment=tuned.segment,
    transfer=tuned.transfer,
    data=tuned.data,
    classify=tuned.classify,
    classifier=tuned.classifier,
  )
  for stage in fine_tunings(classify and not config.segment.diagnosis.batch_size):
    yield CellRun(stage, dataclasses.replace(config, init_from=start), cell.directory(stage))
    start = str(cell.directory(stage))


def run_cell(cell: Cell, config: Config, data: Dataset, classify: bool) -> bool:
  """Runs and evaluates what is not finished of a cell; False where another process runs a part."""
  return all(_finish(run, data, cell.root) for run in cell_runs(cell, config, classify))


def _finish(run: CellRun, data: Dataset, root: Path) -> bool:
  stage, config, workdir = run
  ownership.check_way(root, workdir)
  directory.check(workdir, stage.name, config)
  if is_finished(run, data):
    return True
  with directory.alone(workdir) as alone:
    if alone and (missing := unfinished(run, data)) is not None:
      if missing:
        print(printable(f'{missing}; that is done now'), flush=True)
      opened = open_run(stage, config, workdir, data)
      train_run(opened)
      evaluate_run(opened)
    return alone


def is_finished(run: CellRun, data: Dataset) -> bool:
  """Whether a run was evaluated as `config.evaluate` says, and its files tell how."""
  return unfinished(run, data) is None


def unfinished(run: CellRun, data: Dataset) -> str | None:
  """None for a run that is finished; else what is wrong with the files of its evaluation, '' where
  there is none yet.

  Raises:
    UserError: they cannot be read, or it has learnt from other images than its list names now.
  """
  if run.stage is SEGMENT and run.config.data.labelled_from and run.workdir.exists():
    listed = segmented_indices(run.config, data)
    provenance.check_listed(run.workdir, [data.splits['train'].ids[i] for i in listed])
  try:
    held, own = stored.evaluation(run.workdir), run.config.evaluate
    if held is None or (held['split'], held['threshold']) != (own.split, own.threshold):
      return ''
    if run.stage is PRETRAIN:
      schema.require(stored.AGENT, held)
      return None
    path = run.workdir / directory.PER_IMAGE
    rows = per_image.read(path, _columns(run))
    if {row['image'] for row in rows} != set(scored(run.config, data, run.stage.scored_by)):
      return f'{path} is of other images; score the run again'
    return None
  except (json_files.Damaged, ValueError) as problem:
    return str(problem)


def _columns(run: CellRun) -> list[str]:
  """Of per_image.csv, that are looked at."""
  is_mask = run.stage.scored_by == 'mask'
  return results.dice_columns(run.config.data.mask_classes) if is_mask else []


def is_done(cell: Cell, config: Config, data: Dataset, classify: bool) -> bool:
  """Whether all that a cell trains beside its pre-training is finished."""
  tuned = (run for run in cell_runs(cell, config, classify) if run.stage is not PRETRAIN)
  return all(is_finished(run, data) for run in tuned)


def collect(cells: Sequence[Cell], elsewhere: results.Cells, config: Config) -> results.Cells:
  """What is known of each cell, in the order of `cells`: from its runs here, or from elsewhere."""
  known = results.Cells({}, {}, {})
  columns = results.dice_columns(config.data.mask_classes)
  for cell in cells:
    is_own = cell.key not in elsewhere.scores
    if is_own:
      rows = per_image.read(cell.directory(SEGMENT) / directory.PER_IMAGE)
      known.dice[cell.key] = {name: {row['image']: row[name] for row in rows} for name in columns}
      known.scores[cell.key] = _scores(cell, config.grid.classify)
    else:
      known.dice[cell.key] = elsewhere.dice[cell.key]
      known.scores[cell.key] = elsewhere.scores[cell.key]
    agent = cell.pretraining, cell.seed
    if agent in elsewhere.agents:
      known.agents[agent] = elsewhere.agents[agent]
    elif is_own and cell.pretraining:
      found = stored.evaluation(cell.directory(PRETRAIN)) or {}
      known.agents[agent] = {name: found[name] for name in stored.AGENT_METRICS}
  return known


def _scores(cell: Cell, classify: bool) -> dict:
  scores = {'method': cell.method, 'labels': cell.labels, 'seed': cell.seed}
  for stage in fine_tunings(classify):
    found = stored.evaluation(cell.directory(stage)) or {}
    scores |= {name: value for name, value in found.items() if name not in directory.CONDITIONS}
  return scores
