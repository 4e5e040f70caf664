"""The main job: every cell of {method} x {number of labels} x {seed}, and what the comparison says.

Processes that are given the same directory share the cells: each takes one that is neither finished
  nor held by another.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ahm_jax.config import Config, pretraining_of, with_method
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation import compare, metrics, results
from ahm_jax.evaluation.masks import group_numbers, predicted_mask
from ahm_jax.masking import registry
from ahm_jax.masking.strategy import fully_eased
from ahm_jax.pipeline import lesions, setup, stages
from ahm_jax.report import page, pictures
from ahm_jax.report import viewer as viewing
from ahm_jax.report.examples import hide_and_repair, make_examples
from ahm_jax.runs import directory as rundir
from ahm_jax.runs import metrics_log, provenance, snapshots
from ahm_jax.training import pretrain as pretraining

MOVEMENT = 6  # Steps shown of how a policy moved.
PAUSE = 2.0  # Seconds between looks at cells that other processes hold.


@dataclasses.dataclass(frozen=True)
class Cell:
  """One combination of the grid, with the folders of its runs."""

  root: Path
  method: str
  pretraining: str  # The method whose pre-training it starts from; '' from scratch.
  labels: int
  seed: int

  @property
  def pretrain_dir(self) -> Path:
    return self.root / 'pretrain' / self.pretraining / f'seed{self.seed}'

  @property
  def segment_dir(self) -> Path:
    return self.root / 'segment' / self.method / f'labels{self.labels}' / f'seed{self.seed}'

  @property
  def classify_dir(self) -> Path:
    return self.root / 'classify' / self.method / f'labels{self.labels}' / f'seed{self.seed}'

  def directories(self, classify: bool) -> tuple[Path, ...]:
    """The folders of its runs.

    Without that of a classification, which another grid may have made, unless it is asked for.
    """
    return (self.pretrain_dir, self.segment_dir, *([self.classify_dir] if classify else []))

  @property
  def key(self) -> tuple[str, int, int]:
    return self.method, self.labels, self.seed


def reproduce(config: Config, workdir: Path) -> dict:
  """Runs every cell that is not finished yet, here or in the files of `grid.results`, then compares
  them all.

  Cells that stand in those files, or were run here before, but are not of this grid, are left out.

  Writes results.json, report.html, its charts and pictures into `workdir`, and returns what
  results.json holds, see `results.tree`.
  """
  check_methods(config)
  rundir.check(workdir, 'reproduce', config)
  data = setup.load_data(config, workdir)
  elsewhere = results.read(
    config.grid.results, config, data.name, setup.scored(config, data, 'mask')
  )
  cells = [
    Cell(workdir, method, pretraining_of(method, config.grid.variants), labels, seed)
    for seed in config.grid.seeds
    for labels in config.grid.labels
    for method in config.grid.methods
  ]
  own = [cell for cell in cells if cell.key not in elsewhere.scores]
  if methods := tuple(
    dict.fromkeys(cell.method for cell in own if not _is_done(cell, config, data))
  ):
    setup.check_grid(
      dataclasses.replace(config, grid=dataclasses.replace(config.grid, methods=methods)), data
    )
  provenance.check_grid(workdir, data)
  rundir.claim(workdir, 'reproduce', config)
  if outside := elsewhere.scores.keys() - {cell.key for cell in cells}:
    print(
      f'Cells of config.grid.results that are not of this grid, left out: {len(outside)}',
      flush=True,
    )
  _run_all(own, config, data)
  tree = results.tree(
    _known(cells, elsewhere, config),
    config,
    data.name,
    group_numbers(data.splits[config.evaluate.split]),
  )
  rundir.write_json(workdir / results.FILE, tree)
  _report(own, tree, config, workdir, data)
  return tree


def check_methods(config: Config) -> None:
  """Raises a UserError where an entry of `grid.methods` is no method."""
  for method in config.grid.methods:
    strategy = with_method(config, method).masking.strategy
    if pretraining_of(method, config.grid.variants):
      try:
        registry.check(strategy)
      except UserError as error:
        raise UserError(f'config.grid.methods holds {method!r}: {error}') from error
  if shadows := config.grid.variants.keys() & set(registry.names()):
    raise UserError(
      f'config.grid.variants holds {min(shadows)!r}, which is a masking strategy; '
      'choose another name'
    )


def _run_all(cells: list[Cell], config: Config, data: Dataset) -> None:
  waiting, said = dict(enumerate(cells, 1)), set()
  while waiting:
    before = len(waiting)
    for number, cell in list(waiting.items()):
      name = f'[{number}/{len(cells)}] {cell.method}, {compare.label_count(cell.labels)} labels, seed {cell.seed}'
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
  config = dataclasses.replace(
    config, seed=cell.seed, data=dataclasses.replace(config.data, labels=cell.labels)
  )
  if cell.pretraining:
    own = with_method(config, cell.pretraining)
    own = dataclasses.replace(own, data=dataclasses.replace(config.data, labels=0), init_from='')
    if not _finish(stages.pretrain, own, cell.pretrain_dir, data):
      return False
  tuned = with_method(config, cell.method)
  config = dataclasses.replace(config, segment=tuned.segment, transfer=tuned.transfer)
  init_from = str(cell.pretrain_dir) if cell.pretraining else ''
  if not _finish(
    stages.segment, dataclasses.replace(config, init_from=init_from), cell.segment_dir, data
  ):
    return False
  if setup.grid_classifies(config, data):
    return _finish(
      stages.classify,
      dataclasses.replace(config, init_from=str(cell.segment_dir)),
      cell.classify_dir,
      data,
    )
  return True


def _finish(stage, config: Config, workdir: Path, data: Dataset) -> bool:
  """Runs and evaluates a stage, unless that was done before.

  False where another process is at it.
  """
  rundir.check(workdir, stage.__name__, config)
  if _is_finished(workdir, config):
    return True
  with rundir.alone(workdir) as alone:
    if alone and not _is_finished(workdir, config):
      stage(config, workdir, data)
      stages.evaluate(config, workdir, data)
    return alone


def _is_finished(workdir: Path, config: Config) -> bool:
  try:
    held, own = json.loads((workdir / stages.EVALUATION).read_text()), config.evaluate
  except FileNotFoundError:
    return False
  return (held['split'], held.get('threshold', own.threshold)) == (
    own.split,
    own.threshold,
  )  # Once, there was no threshold.


def _is_done(cell: Cell, config: Config, data: Dataset) -> bool:
  """Whether all that a cell trains beside its pre-training is finished."""
  return all(
    _is_finished(directory, config)
    for directory in cell.directories(setup.grid_classifies(config, data))[1:]
  )


def _known(cells: list[Cell], elsewhere: results.Cells, config: Config) -> results.Cells:
  """What is known of each cell, in the order of `cells`."""
  known = results.Cells({}, {}, {})
  columns = results.dice_columns(config.data.mask_classes)
  for cell in cells:
    if is_own := cell.key not in elsewhere.scores:
      rows = metrics.read_per_image(cell.segment_dir / stages.PER_IMAGE)
      known.dice[cell.key] = {name: {row['image']: row[name] for row in rows} for name in columns}
      known.scores[cell.key] = _scores(cell, config.grid.classify)
    else:
      known.dice[cell.key], known.scores[cell.key] = (
        elsewhere.dice[cell.key],
        elsewhere.scores[cell.key],
      )
    agent = cell.pretraining, cell.seed
    if agent in elsewhere.agents:
      known.agents[agent] = elsewhere.agents[agent]
    elif is_own and cell.pretraining:
      found = json.loads((cell.pretrain_dir / stages.EVALUATION).read_text())
      known.agents[agent] = {name: found[name] for name in results.AGENT_METRICS}
  return known


def _report(cells: list[Cell], tree: dict, config: Config, workdir: Path, data: Dataset) -> None:
  """Writes report.html, its charts and pictures: curves and pictures of `cells`, whose runs are
  here, tables of all.
  """
  curves = {
    f'{directory.parent.relative_to(workdir).as_posix()} seed {cell.seed}': _metrics(directory)
    for cell in cells
    for directory in cell.directories(config.grid.classify)
    if directory.exists()
  }
  shown = _shown(cells, config, data)
  page.write_report(tree, curves, shown, workdir / 'report.html')
  page.write_charts(tree['summary'], workdir)
  if shown.examples:
    page.write_masks_picture(shown.examples, workdir / 'masks.png')
  for name in ('strategies', 'movement'):
    if sheet := getattr(shown, name):
      sheet.save(workdir / f'{name}.png', optimize=True)


def _metrics(directory: Path) -> list[dict]:
  return [json.loads(line) for line in (directory / metrics_log.FILE).read_text().splitlines()]


def _scores(cell: Cell, classify: bool) -> dict:
  scores = {'method': cell.method, 'labels': cell.labels, 'seed': cell.seed}
  for directory in cell.directories(classify)[1:]:
    if (directory / stages.EVALUATION).exists():
      found = json.loads((directory / stages.EVALUATION).read_text())
      scores.update({name: value for name, value in found.items() if name not in stages.CONDITIONS})
  return scores


def _shown(cells: list[Cell], config: Config, data: Dataset) -> page.Shown:
  """Held-out images through the first cell of the last method that pre-trains: by default, AHM
  with the fewest labels.
  """
  count = config.evaluate.report_images
  split = data.splits[config.evaluate.split]
  split = split.take(np.flatnonzero(split.has_mask))
  first = {cell.pretraining: cell for cell in reversed(cells) if cell.pretraining}
  first = {
    method: first[method] for method in dict.fromkeys(cell.pretraining for cell in cells) if method
  }
  viewer = _viewer(cells, config, data, split)
  if not first or not len(split) or not count:
    return page.Shown(viewer=viewer)
  cell = list(first.values())[-1]
  count = min(count, len(split))
  both = _examples(cell, config, data, split.take([*range(count), *_worst(cell, split, count)]))
  return page.Shown(
    examples=both[:count],
    failures=both[count:],
    strategies=_strategies(first, split.images[:count], data) if len(first) > 1 else None,
    movement=_movement(cell, data),
    viewer=viewer,
  )


def _viewer(
  cells: list[Cell], config: Config, data: Dataset, split: Split
) -> viewing.Viewer | None:
  """Images of `split` through cells of methods that are alike, the last one that pre-trains
  coming last.
  """
  first = _alike(cells)
  methods = sorted(first, key=lambda method: first[method].pretraining != '')
  if not methods or not len(split) or not config.evaluate.viewer_images:
    return None
  dice = {method: _dice(first[method]) for method in methods}
  chosen = viewing.chosen(
    [dice[methods[-1]][name] for name in split.ids], config.evaluate.viewer_images
  )
  seen, count = split.take(chosen), len(split)
  made = {method: _made(first[method], dice[method], config, data, seen) for method in methods}
  entries = [
    viewing.entry(
      name, seen.images[i], seen.full_mask(i), [(method, made[method](i)) for method in methods]
    )
    for i, name in enumerate(seen.ids)
  ]
  last = first[methods[-1]]
  return viewing.Viewer(methods, last.labels, last.seed, entries, count)


def _alike(cells: list[Cell]) -> dict[str, Cell]:
  """By method, cells of one number of labels and one seed: of the first for which the most
  methods have their cell.
  """
  found: dict[tuple[int, int], dict[str, Cell]] = {}
  for cell in cells:
    found.setdefault((cell.labels, cell.seed), {})[cell.method] = cell
  return max(found.values(), key=len, default={})


def _made(
  cell: Cell, dice: dict[str, float], config: Config, data: Dataset, split: Split
) -> Callable[[int], viewing.Made]:
  """What the networks of a cell make of each image of a split."""
  _, segmented = rundir.read(cell.segment_dir, ('segment',))
  probabilities = lesions.predict(segmented, cell.segment_dir, split.images)
  masking = ()
  if cell.pretraining:
    _, pretrained = rundir.read(cell.pretrain_dir, ('pretrain',))
    nets = pretraining.networks(pretrained.model, pretrained.masking, pretrained.data.channels)
    state = stages.load_pretrained(pretrained, cell.pretrain_dir, data)
    masking = hide_and_repair(
      nets, state, pretrained.masking, split.images, config.evaluate.batch_size
    )

  def made(i: int) -> viewing.Made:
    shape = split.full_mask(i).shape
    prediction = predicted_mask(probabilities[i], shape, config.evaluate.threshold)
    return viewing.Made(prediction, dice[split.ids[i]], *(part[i] for part in masking))

  return made


def _dice(cell: Cell) -> dict[str, float]:
  return {
    row['image']: row['dice'] for row in metrics.read_per_image(cell.segment_dir / stages.PER_IMAGE)
  }


def _worst(cell: Cell, split: Split, count: int) -> list[int]:
  """The images of the lowest Dice, worst first.

  Those without any lesion, and right, are not among them.
  """
  dice = _dice(cell)
  scored = [i for i, name in enumerate(split.ids) if math.isfinite(dice[name])]
  return sorted(scored, key=lambda i: dice[split.ids[i]])[:count]


def _examples(cell: Cell, config: Config, data: Dataset, split: Split) -> list[page.Example]:
  _, pretrained = rundir.read(cell.pretrain_dir, ('pretrain',))
  _, segmented = rundir.read(cell.segment_dir, ('segment',))
  nets = pretraining.networks(pretrained.model, pretrained.masking, pretrained.data.channels)
  state = stages.load_pretrained(pretrained, cell.pretrain_dir, data)
  probabilities = lesions.predict(segmented, cell.segment_dir, split.images)
  threshold, classes = config.evaluate.threshold, config.data.mask_classes
  return make_examples(nets, state, pretrained.masking, probabilities, split, threshold, classes)


def _strategies(first: dict[str, Cell], images: np.ndarray, data: Dataset) -> Image.Image:
  """Where the strategy of each method hides on the same images."""
  policies = {}
  for method, cell in first.items():
    _, config = rundir.read(cell.pretrain_dir, ('pretrain',))
    strategy = pretraining.networks(config.model, config.masking, config.data.channels).strategy
    state = stages.load_pretrained(config, cell.pretrain_dir, data)
    policies[method] = np.asarray(
      pretraining.policy_maps(strategy, state.extra, images, fully_eased(config.masking))
    )
  return pictures.policies_sheet(images, policies)


def _movement(cell: Cell, data: Dataset) -> Image.Image | None:
  """How the policy of a pre-training moved, at no more than MOVEMENT of its validations."""
  kept = snapshots.read(cell.pretrain_dir)
  if not kept:
    return None
  steps = list(kept)
  chosen = [steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(MOVEMENT, len(steps)))]
  policies = {f'step {step}': kept[step]['policy'] for step in chosen}
  count = len(next(iter(policies.values())))
  return pictures.policies_sheet(data.splits['validation'].images[:count], policies)
