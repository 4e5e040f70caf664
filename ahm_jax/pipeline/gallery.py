"""The report of a grid: its curves, and held-out images through the networks of its cells."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ahm_jax.config import Config, pretraining_name, pretraining_of, with_method
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.resize import colours_of
from ahm_jax.evaluation import per_image
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.tables import label_count
from ahm_jax.masking import held_out
from ahm_jax.masking import networks as pretrained
from ahm_jax.masking.strategy import TRAINED
from ahm_jax.pipeline import lesions, pseudo_masks, scores
from ahm_jax.pipeline.cells import Cell
from ahm_jax.pipeline.setup import Run, open_trained
from ahm_jax.pipeline.stages import PRETRAIN, SEGMENT, STAGES
from ahm_jax.report import charts, failures, page, pictures
from ahm_jax.report import viewer as viewing
from ahm_jax.report.examples import first_modality, make_examples, mask_and_reconstruct
from ahm_jax.runs import directory, metrics_log, snapshots, trained
from ahm_jax.runs.stage import Stage
from ahm_jax.task import TrainState

MOVEMENT = 6  # Steps shown of how a policy moved.


def report(cells: Sequence[Cell], tree: dict, config: Config, workdir: Path, data: Dataset) -> None:
  """Writes report.html, its charts and pictures: curves and pictures of `cells`, whose runs are
  here, and tables of all.

  Args:
    tree: what results.json holds.
  """
  shown = _shown([Networks(cell, config, data) for cell in cells], config, data)
  curves = _curves(cells, config)
  page.write_report(tree, curves, shown, workdir / directory.REPORT)
  charts.write_summary_charts(tree['summary'], workdir)
  masks, strategies, movement = (workdir / name for name in directory.PICTURES)
  if shown.examples:
    pictures.write_masks_picture(shown.examples, masks)
  for path, sheet in ((strategies, shown.strategies), (movement, shown.movement)):
    if sheet:
      pictures.write_sheet(sheet, path)


def _curves(cells: Sequence[Cell], config: Config) -> list[charts.Curves]:
  """What the runs that are here have logged, by stage and number of labels, all labels last."""
  groups: dict[tuple[Stage, str], dict[Path, tuple[str, list[dict]]]] = {}
  for stage in STAGES:
    for cell in sorted(cells, key=lambda cell: (cell.labels == 0, cell.labels)):
      folder = cell.directory(stage)
      if stage in cell.stages(config.grid.classify) and folder.exists():
        shared = stage is PRETRAIN
        title = stage.title if shared else f'{stage.title}, {label_count(cell.labels)} labels'
        runs = groups.setdefault((stage, title), {})
        if folder not in runs:
          pretraining = pretraining_name(cell.pretraining, config.grid)
          runs[folder] = pretraining if shared else cell.method, metrics_log.read(folder)
  return [
    charts.Curves(title, stage.curves, list(runs.values()))
    for (stage, title), runs in groups.items()
  ]


@dataclass(frozen=True, eq=False)
class Networks:
  """What the runs of a cell have learnt, each opened once, when it is first wanted."""

  cell: Cell
  config: Config  # Of the grid.
  data: Dataset

  @functools.cached_property
  def pretraining(self) -> Run:
    return open_trained(self.config, self.cell.directory(PRETRAIN), (PRETRAIN,), self.data)

  @functools.cached_property
  def modules(self) -> pretrained.Networks:
    """The U-Net and the strategy of the pre-training."""
    return pretrained.networks(self.pretraining.config)

  @functools.cached_property
  def state(self) -> TrainState:
    """The pre-training's last."""
    return scores.pretrained_state(self.pretraining)

  @functools.cached_property
  def segmenter(self) -> trained.Trained:
    folder = self.cell.directory(SEGMENT)
    return trained.load(folder, (SEGMENT,))

  @functools.cached_property
  def dice(self) -> dict[str, float]:
    """Of each scored image, by name."""
    rows = per_image.read(self.cell.directory(SEGMENT) / directory.PER_IMAGE)
    return {row['image']: row['dice'] for row in rows}


def _shown(cells: Sequence[Networks], config: Config, data: Dataset) -> page.Shown:
  """Held-out images through the first cell of the last method that pre-trains: by default, AHM with
  the fewest labels.
  """
  count = config.evaluate.report_images
  split = data.splits[config.evaluate.split]
  split = split.take(np.flatnonzero(split.has_mask))
  first: dict[str, Networks] = {}
  for networks in cells:
    if networks.cell.pretraining:
      first.setdefault(pretraining_name(networks.cell.pretraining, config.grid), networks)
  viewer = _viewer(cells, config, split)
  if not len(split) or not count:
    return page.Shown(viewer=viewer, colours=_colours(config))
  others = {**_alike(cells)}
  always = page.Shown(
    courses=pseudo_masks.courses([networks.cell for networks in cells], config, data),
    viewer=viewer,
    colours=_colours(config),
  )
  if not first:
    return always._replace(others=_failures(others, config, split))
  last = list(first.values())[-1]
  others.pop(last.cell.method, None)
  count = min(count, len(split))
  both = _examples(last, config, split.take([*range(count), *_worst(last, split, count)]))
  return always._replace(
    examples=both[:count],
    failures=both[count:],
    strategies=_strategies(first, split.images[:count]) if len(first) > 1 else None,
    movement=_movement(last),
    others=_failures(others, config, split),
  )


def _colours(config: Config) -> str:
  """What pictures show of images with modalities."""
  told, variants = colours_of(config.data.modalities), config.grid.variants
  pretraining = [method for method in config.grid.methods if pretraining_of(method, variants)]
  if not any(with_method(config, method).masking.per_modality for method in pretraining):
    return told
  first = config.data.modalities[0]
  return f'{told} Of patches that are masked per modality, those of {first} are shown.'


def _viewer(cells: Sequence[Networks], config: Config, split: Split) -> viewing.Viewer | None:
  """Images of `split` through cells of methods that are alike, the last one that pre-trains coming
  last.
  """
  first = _alike(cells)
  methods = sorted(first, key=lambda method: pretraining_of(method) != '')
  if not methods or not len(split) or not config.evaluate.viewer_images:
    return None
  last = first[methods[-1]]
  chosen = viewing.chosen([last.dice[name] for name in split.ids], config.evaluate.viewer_images)
  seen, count = split.take(chosen), len(split)
  made = {method: _made(first[method], config, seen) for method in methods}
  entries = [
    viewing.entry(
      name,
      seen.images[i],
      seen.full_mask(i),
      [(method, made[method](i)) for method in methods],
      config.data.modalities,
    )
    for i, name in enumerate(seen.ids)
  ]
  return viewing.Viewer(
    methods, last.cell.labels, last.cell.seed, entries, count, config.data.modalities
  )


def _alike(cells: Sequence[Networks]) -> dict[str, Networks]:
  """By method, cells of one number of labels and one seed: of the first for which the most methods
  have their cell.
  """
  found: dict[tuple[int, int], dict[str, Networks]] = {}
  for networks in cells:
    cell = networks.cell
    found.setdefault((cell.labels, cell.seed), {})[cell.method] = networks
  return max(found.values(), key=len, default={})


def _made(networks: Networks, config: Config, split: Split) -> Callable[[int], viewing.Made]:
  """What the networks of a cell make of each image of a split."""
  segmented = _segmented(networks, config, split)
  masked = None
  if networks.cell.pretraining:
    masked = mask_and_reconstruct(networks.modules, networks.state, split.images)

  def made(i: int) -> viewing.Made:
    masking = None if masked is None else viewing.Masking(*(part[i] for part in masked))
    return viewing.Made(segmented(i), networks.dice[split.ids[i]], masking)

  return made


def _worst(networks: Networks, split: Split, count: int) -> list[int]:
  return failures.worst([networks.dice[name] for name in split.ids], count)


def _failures(
  cells: Mapping[str, Networks], config: Config, split: Split
) -> list[failures.Failures]:
  """Of each method, those of its cell; of a method that segmented no lesion, none."""
  found = []
  for method, networks in cells.items():
    seen = split.take(_worst(networks, split, failures.COUNT))
    if len(seen):
      made = _segmented(networks, config, seen)
      images = [
        failures.Failure(seen.images[i], seen.full_mask(i), made(i), name, networks.dice[name])
        for i, name in enumerate(seen.ids)
      ]
      found.append(failures.Failures(method, networks.cell.labels, networks.cell.seed, images))
  return found


def _segmented(networks: Networks, config: Config, split: Split) -> Callable[[int], np.ndarray]:
  """What a cell finds in each image of a split, at the image's own resolution."""
  probabilities = lesions.probabilities(networks.segmenter, split.images)

  def found(i: int) -> np.ndarray:
    return predicted_mask(probabilities[i], split.full_mask(i).shape, config.evaluate.threshold)

  return found


def _examples(networks: Networks, config: Config, split: Split) -> list[pictures.Example]:
  return make_examples(
    networks.modules,
    networks.state,
    lesions.probabilities(networks.segmenter, split.images),
    split,
    config.evaluate.threshold,
    config.data.mask_classes,
  )


def _strategies(first: dict[str, Networks], images: np.ndarray) -> Image.Image:
  """Where the strategy of each method masks the same images."""
  policies: dict[str, Any] = {}
  for method, networks in first.items():
    own = pretrained.strategy_state(networks.state)
    found = held_out.policy_maps(networks.modules, own, images, TRAINED)
    policies[method] = first_modality(found)
  return pictures.policies_sheet(images, policies)


def _movement(networks: Networks) -> Image.Image | None:
  """How the policy of a pre-training moved, at no more than MOVEMENT of its validations."""
  kept = {
    step: first_modality(arrays['policy'])
    for step, arrays in snapshots.read(networks.cell.directory(PRETRAIN)).items()
    if 'policy' in arrays and arrays['policy'].ndim == 3
  }
  if not kept:
    return None
  policies = {f'step {step}': kept[step] for step in snapshots.spread(kept, MOVEMENT)}
  count = len(next(iter(policies.values())))
  images = networks.data.splits['validation'].images[:count]
  return pictures.policies_sheet(images, policies)
