"""Compares the cells of a grid {method} x {number of labels} x {seed}: means with 95 % intervals,
and paired differences.

Dice is known per image, so its intervals are those of `bootstrap`, over seeds and images. All other
scores are one number a cell: Student's t-interval over seeds.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ahm_jax.config import BASELINES, pretraining_of
from ahm_jax.errors import UserError
from ahm_jax.evaluation.intervals import (
  Interval,
  Resampling,
  group_indices,
  mean_over_runs,
  mean_over_seeds,
)

# Means over seeds, with the range that clips their interval.
SCORES: dict[str, tuple[float, float]] = {
  'iou': (0, 1),
  'hd95': (0, math.inf),
  'precision': (0, 1),
  'recall': (0, 1),
  'pooled_dice': (0, 1),
  'accuracy': (0, 1),
  'balanced_accuracy': (0, 1),
  'auc': (0, 1),
  'lesion_dice': (0, 1),
  'false_alarm_rate': (0, 1),
  'group_dice': (0, 1),
}
# How many; 0 for all there are; several for a mean over them, see `over_labels`.
Labels = int | tuple[int, ...]
Key = tuple[str, Labels, int]  # Method, labels, seed.
Cell = Mapping[str, Any]  # 'method', 'labels', 'seed' and scores.
Arm = Mapping[int, Cell]  # The cells of one method and number of labels, by seed.
ByImage = Mapping[str, float]
Row = dict[str, Any]  # Of a summary, see `summarise_grid`.


def summarise_grid(
  cells: Sequence[Cell],
  per_image: Mapping[Key, ByImage],
  samples: int = 2000,
  seed: int = 0,
  by_class: Mapping[str, Mapping[Key, ByImage]] = MappingProxyType({}),
  groups: Mapping[str, int] = MappingProxyType({}),
  baselines: Sequence[str] = BASELINES,
) -> list[Row]:
  """One summary for each method and number of labels.

  Args:
    cells: one dict for each trained cell: 'method', 'labels', 'seed', and scores; a score may be
      missing, None or nan.
    per_image: for each cell, by (method, labels, seed), the Dice of each image; nan where
      prediction and truth are both empty.
    samples: bootstrap samples.
    seed: of the bootstrap.
    by_class: where masks have classes, for each class what `per_image` is for their mean.
    groups: the group of each image; one that is not named is a group of its own.
    baselines: methods that all are compared with.

  Returns:
    Rows, fewest labels first and 0 (all of them) last, methods in the order of `cells`. Keys:
    'method', 'labels'.
    'seeds', 'images', 'groups': how many.
    'interval_covers': 'seeds and images', or 'images' where there is one seed, whose run-to-run
      spread is unknown; with fewer groups than images 'seeds and groups', or 'groups'.
    'dice', 'dice_ci95': mean over seeds of the mean over images.
    'vs_X', 'vs_X_ci95' for each baseline X: this Dice minus that method's, over the seeds and
      images that both have.
    Each of SCORES, and with '_ci95' its t-interval over seeds.
    'dice_by_class', 'dice_by_class_ci95', with `by_class`: by class, as 'dice' and 'dice_ci95'.
    'accuracy_vs_scratch', 'balanced_accuracy_vs_scratch', and with '_ci95': mean and t-interval of
      the seeds' differences.
    Intervals are [low, high]; None is what is not known.

  Raises:
    UserError: cells were scored on different images.
  """
  images = _shared_images(per_image)
  resampling = Resampling(group_indices(images, groups), samples, seed)
  group_count = len(set(resampling.groups))
  unit = 'groups' if group_count < len(images) else 'images'
  arms: dict[tuple[str, Labels], dict[int, Cell]] = {}
  for cell in cells:
    arms.setdefault((cell['method'], cell['labels']), {})[cell['seed']] = cell
  dice = {
    (method, labels): {
      seed: _values(per_image[method, labels, seed], images) for seed in sorted(arm)
    }
    for (method, labels), arm in arms.items()
  }
  summary = []
  for (method, labels), arm in sorted(arms.items(), key=lambda item: (item[0][1] == 0, item[0][1])):
    scratch = {} if method == 'scratch' else arms.get(('scratch', labels), {})
    summary.append(
      {
        'method': method,
        'labels': labels,
        'seeds': len(arm),
        'images': len(images),
        'groups': group_count,
        'interval_covers': f'seeds and {unit}' if len(arm) > 1 else unit,
        **_dice_entries(method, labels, dice, resampling, baselines),
        **_class_entries(method, labels, arm, by_class, images, resampling),
        **_score_entries(arm),
        **_difference_entries('accuracy', arm, scratch),
        **_difference_entries('balanced_accuracy', arm, scratch),
      }
    )
  return summary


def over_labels(cells: Sequence[Cell]) -> tuple[int, ...]:
  """The numbers of labels that a mean is taken over: those that every method has, all (0) left out;
  empty where there is but one.

  Each alone is noisy, since its labelled images and its training are; their mean is less so.
  """
  known: dict[str, set[int]] = {}
  for cell in cells:
    known.setdefault(cell['method'], set()).add(cell['labels'])
  shared = set.intersection(*known.values()) - {0} if known else set()
  return tuple(sorted(shared)) if len(shared) > 1 else ()


def averaged(values: Mapping[Key, ByImage], counts: tuple[int, ...]) -> dict[Key, dict[str, float]]:
  """The numbers of cells, by name, averaged over the label counts; keys are (method, `counts`,
  seed).

  Seeds without one of the counts are left out, and so are names that one of them lacks. Nan is what
  is nan for one of them.
  """
  found: dict[Key, dict[str, float]] = {}
  for method, seed in dict.fromkeys((method, seed) for method, _, seed in values) if counts else ():
    keys: list[Key] = [(method, labels, seed) for labels in counts]
    if all(key in values for key in keys):
      parts = [values[key] for key in keys]
      found[method, counts, seed] = {
        name: math.fsum(part[name] for part in parts) / len(parts)
        for name in parts[0]
        if all(name in part for part in parts)
      }
  return found


def averaged_cells(cells: Sequence[Cell], counts: tuple[int, ...]) -> list[Cell]:
  """Cells as `summarise_grid` takes them, whose scores are averaged over the label counts."""
  scores: dict[Key, ByImage] = {
    (cell['method'], cell['labels'], cell['seed']): {
      name: cell[name] for name in SCORES if _is_known(cell.get(name))
    }
    for cell in cells
  }
  return [
    {'method': method, 'labels': counts, 'seed': seed, **mean}
    for (method, _, seed), mean in averaged(scores, counts).items()
  ]


def _shared_images(per_image: Mapping[Key, ByImage]) -> list[str]:
  if not per_image:
    return []
  first, images = next((key, sorted(values)) for key, values in per_image.items())
  for key, values in per_image.items():
    if sorted(values) != images:
      raise UserError(
        f'cells {_name(first)} and {_name(key)} were scored on different images; '
        'delete the older evaluation and run it again'
      )
  return images


def _name(key: Key) -> str:
  return f'{key[0]}/labels{key[1]}/seed{key[2]}'


def _values(dice: ByImage, images: Sequence[str]) -> np.ndarray:
  """Dice in the order of `images`, [I]."""
  return np.array([dice[image] for image in images], np.float64)


def _dice_entries(
  method: str,
  labels: Labels,
  dice: Mapping[tuple[str, Labels], Mapping[int, np.ndarray]],
  resampling: Resampling,
  baselines: Sequence[str],
) -> Row:
  own = dice[method, labels]
  mean, interval = mean_over_runs(np.stack(list(own.values())), resampling)
  entries: Row = {'dice': mean, 'dice_ci95': _clip(interval, 0, 1)}
  for baseline in baselines:
    other = dice.get((baseline, labels), {})
    shared = [s for s in own if s in other]
    difference, interval = None, None
    if baseline != method and shared:
      difference, interval = mean_over_runs(
        np.stack([own[s] - other[s] for s in shared]), resampling
      )
    entries |= {f'vs_{baseline}': difference, f'vs_{baseline}_ci95': interval}
  return entries


def _class_entries(
  method: str,
  labels: Labels,
  arm: Arm,
  by_class: Mapping[str, Mapping[Key, ByImage]],
  images: Sequence[str],
  resampling: Resampling,
) -> Row:
  if not by_class:
    return {}
  found = {}
  for name, per_image in by_class.items():
    values = np.stack([_values(per_image[method, labels, s], images) for s in sorted(arm)])
    found[name] = mean_over_runs(values, resampling)
  return {
    'dice_by_class': {name: mean for name, (mean, _) in found.items()},
    'dice_by_class_ci95': {name: _clip(interval, 0, 1) for name, (_, interval) in found.items()},
  }


def _score_entries(arm: Arm) -> Row:
  entries: Row = {}
  for name, (low, high) in SCORES.items():
    mean, interval = mean_over_seeds(
      [cell[name] for cell in arm.values() if _is_known(cell.get(name))]
    )
    entries |= {name: mean, f'{name}_ci95': _clip(interval, low, high)}
  return entries


def _difference_entries(score: str, arm: Arm, scratch: Arm) -> Row:
  differences = [
    cell[score] - scratch[seed][score]
    for seed, cell in arm.items()
    if seed in scratch and _is_known(cell.get(score)) and _is_known(scratch[seed].get(score))
  ]
  mean, interval = mean_over_seeds(differences)
  return {f'{score}_vs_scratch': mean, f'{score}_vs_scratch_ci95': interval}


def _clip(interval: Interval, low: float, high: float) -> Interval:
  return None if interval is None else [min(max(end, low), high) for end in interval]


def _is_known(value: float | None) -> bool:
  return value is not None and math.isfinite(value)


def mask_classes(summary: Sequence[Row]) -> list[str]:
  """The classes whose Dice the rows hold; none where masks are binary."""
  return list(summary[0].get('dice_by_class', ())) if summary else []


def compared_with(summary: Sequence[Row]) -> list[str]:
  """The baselines of a summary, whether or not it has them."""
  keys = summary[0] if summary else ()
  return [key[3:] for key in keys if key.startswith('vs_') and f'{key}_ci95' in keys]


def baselines(summary: Sequence[Row]) -> list[str]:
  """Those that the rows are compared with, and worth it.

  'ahm' only where another method pre-trains that is none of them.
  """
  named = compared_with(summary)
  others = {row['method'] for row in summary if pretraining_of(row['method'])} - set(named)
  known = [name for name in named if any(row[f'vs_{name}'] is not None for row in summary)]
  return [name for name in known if name != 'ahm' or others]


def best_rows(summary: Sequence[Row]) -> set[tuple[str, Labels]]:
  """(method, labels) of the highest mean Dice of each number of labels.

  None where there is but one method, or methods have unequal numbers of seeds: a mean over other
  draws of labelled images is higher or lower for that alone.
  """
  best: dict[Labels, tuple[float, str]] = {}
  seeds: dict[Labels, list[int]] = {}
  for row in summary:
    seeds.setdefault(row['labels'], []).append(row['seeds'])
    if row['dice'] is not None and row['dice'] > best.get(row['labels'], (-math.inf,))[0]:
      best[row['labels']] = (row['dice'], row['method'])
  return {
    (method, labels)
    for labels, (_, method) in best.items()
    if len(seeds[labels]) > 1 and len(set(seeds[labels])) == 1
  }


def seed_counts(summary: Sequence[Row]) -> tuple[int, int]:
  """The lowest and the highest number of seeds of a row; 0 and 0 without rows."""
  counts = [row['seeds'] for row in summary] or [0]
  return min(counts), max(counts)
