"""The main job: every cell of {init} x {number of labels} x {seed}, and what the comparison says.

Processes that are given the same directory share the cells: each takes one that is neither finished nor held by another.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from ahm_jax import rundir, stages, writer
from ahm_jax.config import SCRATCH, Config, to_dict, with_init
from ahm_jax.data.dataset import Dataset
from ahm_jax.evaluation import compare, metrics, report
from ahm_jax.evaluation.examples import make_examples
from ahm_jax.training import pretrain as pretraining

AGENT_METRICS = ('difficulty_rank_correlation', 'hardness_ratio', 'border_lift', 'mask_ratio')
PAUSE = 2.0  # Seconds between looks at cells that other processes hold.


@dataclasses.dataclass(frozen=True)
class Cell:
  """One combination of the grid, with the folders of its runs."""

  root: Path
  init: str
  labels: int
  seed: int

  @property
  def pretrain_dir(self) -> Path:
    return self.root / 'pretrain' / self.init / f'seed{self.seed}'

  @property
  def segment_dir(self) -> Path:
    return self.root / 'segment' / self.init / f'labels{self.labels}' / f'seed{self.seed}'

  @property
  def classify_dir(self) -> Path:
    return self.root / 'classify' / self.init / f'labels{self.labels}' / f'seed{self.seed}'

  @property
  def key(self) -> tuple[str, int, int]:
    return self.init, self.labels, self.seed


def reproduce(config: Config, workdir: Path) -> dict:
  """Runs every cell that is not finished yet, then compares them all.

  Writes results.json and report.html into `workdir`, and returns what results.json holds.
  """
  for init in set(config.grid.inits) - {SCRATCH}:
    stages.check_workers(with_init(config, init))
  rundir.check(workdir, 'reproduce', config)
  data = stages.load_data(config, workdir)
  stages.check_splits(config, data)
  rundir.claim(workdir, 'reproduce', config)
  cells = [
    Cell(workdir, init, labels, seed)
    for seed in config.grid.seeds
    for labels in config.grid.labels
    for init in config.grid.inits
  ]
  _run_all(cells, config, data)
  return _collect(cells, config, workdir, data)


def _run_all(cells: list[Cell], config: Config, data: Dataset) -> None:
  waiting, said = dict(enumerate(cells, 1)), set()
  while waiting:
    before = len(waiting)
    for number, cell in list(waiting.items()):
      name = f'[{number}/{len(cells)}] {cell.init}, {compare.label_count(cell.labels)} labels, seed {cell.seed}'
      if number not in said:
        print(name, flush=True)
      if _run(cell, config, data):
        del waiting[number]
      elif number not in said:
        print(f'{name}: another process is at it', flush=True)
      said.add(number)
    if len(waiting) == before:
      time.sleep(PAUSE)


def _run(cell: Cell, config: Config, data: Dataset) -> bool:
  """Runs what is not finished of a cell; False where another process is at it."""
  config = dataclasses.replace(config, seed=cell.seed, data=dataclasses.replace(config.data, labels=cell.labels))
  if cell.init != SCRATCH:
    own = with_init(config, cell.init)
    own = dataclasses.replace(own, data=dataclasses.replace(config.data, labels=0), init_from='')
    if not _finish(stages.pretrain, own, cell.pretrain_dir, data):
      return False
  init_from = '' if cell.init == SCRATCH else str(cell.pretrain_dir)
  if not _finish(stages.segment, dataclasses.replace(config, init_from=init_from), cell.segment_dir, data):
    return False
  if config.grid.classify and len(data.class_names) > 1:
    return _finish(stages.classify, dataclasses.replace(config, init_from=str(cell.segment_dir)), cell.classify_dir, data)
  return True


def _finish(stage, config: Config, workdir: Path, data: Dataset) -> bool:
  """Runs and evaluates a stage, unless that was done before; False where another process is at it."""
  rundir.check(workdir, stage.__name__, config)
  if _is_finished(workdir, config):
    return True
  with rundir.alone(workdir) as alone:
    if alone and not _is_finished(workdir, config):
      stage(config, workdir, data)
      stages.evaluate(config, workdir, data)
    return alone


def _is_finished(workdir: Path, config: Config) -> bool:
  evaluation = workdir / stages.EVALUATION
  return evaluation.exists() and json.loads(evaluation.read_text())['split'] == config.evaluate.split


def _collect(cells: list[Cell], config: Config, workdir: Path, data: Dataset) -> dict:
  per_image = {}
  for cell in cells:
    rows = metrics.read_per_image(cell.segment_dir / stages.PER_IMAGE)
    per_image[cell.key] = {row['image']: row['dice'] for row in rows}
  scores = [_scores(cell) for cell in cells]
  results = {
    'dataset': data.name,
    'split': config.evaluate.split,
    'config': to_dict(config),
    'cells': scores,
    'summary': compare.summarise_grid(scores, per_image, config.evaluate.bootstrap_samples),
    'agent': {init: _agent(init, cells) for init in config.grid.inits if init != SCRATCH},
  }
  rundir.write_json(workdir / 'results.json', results)
  curves = {
    f'{directory.parent.relative_to(workdir).as_posix()} seed {cell.seed}': _metrics(directory)
    for cell in cells
    for directory in (cell.pretrain_dir, cell.segment_dir, cell.classify_dir)
    if directory.exists()
  }
  examples = _examples(cells, config, data)
  report.write_report(results, curves, examples, workdir / 'report.html')
  if examples:
    report.write_masks_picture(examples, workdir / 'masks.png')
  return results


def _metrics(directory: Path) -> list[dict]:
  return [json.loads(line) for line in (directory / writer.FILE).read_text().splitlines()]


def _scores(cell: Cell) -> dict:
  scores = {'init': cell.init, 'labels': cell.labels, 'seed': cell.seed}
  for directory in (cell.segment_dir, cell.classify_dir):
    if (directory / stages.EVALUATION).exists():
      found = json.loads((directory / stages.EVALUATION).read_text())
      scores.update({name: value for name, value in found.items() if name not in ('stage', 'split')})
  return scores


def _agent(init: str, cells: list[Cell]) -> dict:
  """The learning metrics of a strategy's agents, their mean over seeds; None where no seed has one."""
  directories = sorted({cell.pretrain_dir for cell in cells if cell.init == init})
  found = [json.loads((directory / stages.EVALUATION).read_text()) for directory in directories]
  known = {name: [item[name] for item in found if item[name] is not None] for name in AGENT_METRICS}
  return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def _examples(cells: list[Cell], config: Config, data: Dataset) -> list[report.Example]:
  """Held-out images through the first cell of the last init that pre-trains: by default, AHM with the fewest labels."""
  split = data.splits[config.evaluate.split]
  split = split.take(np.flatnonzero(split.has_mask)[: config.evaluate.report_images])
  shown = [init for init in config.grid.inits if init != SCRATCH]
  if not shown or not len(split):
    return []
  cell = next(cell for cell in cells if cell.init == shown[-1])
  _, pretrained = rundir.read(cell.pretrain_dir, ('pretrain',))
  _, segmented = rundir.read(cell.segment_dir, ('segment',))
  nets = pretraining.networks(pretrained.model, pretrained.masking, pretrained.data.channels)
  state = stages.load_pretrained(pretrained, cell.pretrain_dir, data)
  probabilities = stages.predict_lesions(segmented, cell.segment_dir, split.images)
  return make_examples(nets, state, pretrained.masking, probabilities, split, config.evaluate.threshold)
