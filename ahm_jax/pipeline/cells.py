"""The cells of a grid, {method} x {labels} x {seed}: their runs, where those lie, their scores."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ahm_jax.config import Config, pretraining_of, with_method
from ahm_jax.data.dataset import Dataset
from ahm_jax.evaluation import compare, per_image, results
from ahm_jax.pipeline.evaluate import evaluate_run
from ahm_jax.pipeline.setup import open_run
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT
from ahm_jax.pipeline.train import train_run
from ahm_jax.runs import directory
from ahm_jax.runs.stage import Stage
from ahm_jax.runtime import json_files


@dataclass(frozen=True)
class Cell:
  """One combination of the grid."""

  root: Path  # Of the grid.
  method: str
  pretraining: str  # The method whose pre-training it starts from; '' from scratch.
  labels: int
  seed: int

  @property
  def key(self) -> compare.Key:
    return self.method, self.labels, self.seed

  def directory(self, stage: Stage) -> Path:
    """Of its run of a stage; cells of other numbers of labels share the pre-training."""
    if stage is PRETRAIN:
      return self.root / stage.name / self.pretraining / f'seed{self.seed}'
    return self.root / stage.name / self.method / f'labels{self.labels}' / f'seed{self.seed}'

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
  return [
    Cell(root, method, pretraining_of(method, config.grid.variants), labels, seed)
    for seed in config.grid.seeds
    for labels in config.grid.labels
    for method in config.grid.methods
  ]


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
    own = dataclasses.replace(own, data=dataclasses.replace(config.data, labels=0), init_from='')
    yield CellRun(PRETRAIN, own, cell.directory(PRETRAIN))
    start = str(cell.directory(PRETRAIN))
  tuned = with_method(config, cell.method)
  config = dataclasses.replace(config, segment=tuned.segment, transfer=tuned.transfer)
  for stage in fine_tunings(classify):
    yield CellRun(stage, dataclasses.replace(config, init_from=start), cell.directory(stage))
    start = str(cell.directory(stage))


def run_cell(cell: Cell, config: Config, data: Dataset, classify: bool) -> bool:
  """Runs and evaluates what is not finished of a cell; False where another process runs a part."""
  return all(_finish(run, data) for run in cell_runs(cell, config, classify))


def _finish(run: CellRun, data: Dataset) -> bool:
  stage, config, workdir = run
  directory.check(workdir, stage.name, config)
  if is_finished(workdir, config):
    return True
  with directory.alone(workdir) as alone:
    if alone and not is_finished(workdir, config):
      opened = open_run(stage, config, workdir, data)
      train_run(opened)
      evaluate_run(opened)
    return alone


def is_finished(workdir: Path, config: Config) -> bool:
  """Whether a run was evaluated as `config.evaluate` says."""
  held, own = json_files.read_json(workdir / directory.EVALUATION), config.evaluate
  return held is not None and (held['split'], held['threshold']) == (own.split, own.threshold)


def is_done(cell: Cell, config: Config, classify: bool) -> bool:
  """Whether all that a cell trains beside its pre-training is finished."""
  return all(is_finished(cell.directory(stage), config) for stage in fine_tunings(classify))


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
      found = json_files.read_json(cell.directory(PRETRAIN) / directory.EVALUATION)
      known.agents[agent] = {name: found[name] for name in results.AGENT_METRICS}
  return known


def _scores(cell: Cell, classify: bool) -> dict:
  scores = {'method': cell.method, 'labels': cell.labels, 'seed': cell.seed}
  for stage in fine_tunings(classify):
    found = json_files.read_json(cell.directory(stage) / directory.EVALUATION) or {}
    scores |= {name: value for name, value in found.items() if name not in directory.CONDITIONS}
  return scores
