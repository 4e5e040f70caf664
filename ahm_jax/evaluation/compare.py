"""Compares the cells of a grid {method} x {number of labels} x {seed}: means with 95 % intervals,
and paired differences.

Dice is known per image, so its intervals are those of `bootstrap`, over seeds and images. All other
scores are one number a cell: Student's t-interval over seeds.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ahm_jax.config import is_tuned, pretraining_of
from ahm_jax.errors import UserError
from ahm_jax.evaluation.intervals import (
  Interval,
  Resampling,
  group_indices,
  mean_over_runs,
  mean_over_seeds,
)

BASELINES = ('scratch', 'uniform', 'ahm')
# Means over seeds, with the range that clips their interval.
SCORES = {
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
# Of tables: score, title, digits.
COLUMNS = (
  ('iou', 'IoU', 3),
  ('hd95', 'HD95, px', 1),
  ('accuracy', 'accuracy', 3),
  ('balanced_accuracy', 'balanced accuracy', 3),
  ('auc', 'AUC', 3),
  ('lesion_dice', 'Dice, lesions only', 3),
  ('group_dice', 'Dice, whole groups', 3),
  ('false_alarm_rate', 'false alarms', 3),
)
Labels = (
  int | tuple[int, ...]
)  # How many; 0 for all there are; several for a mean over them, see `over_labels`.
Key = tuple[str, Labels, int]  # method, labels, seed


def summarise_grid(
  cells: Sequence[Mapping],
  per_image: Mapping[Key, Mapping[str, float]],
  samples: int = 2000,
  seed: int = 0,
  by_class: Mapping[str, Mapping[Key, Mapping[str, float]]] | None = None,
  groups: Mapping[str, int] = MappingProxyType({}),
) -> list[dict]:
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

  Returns:
    Dicts, fewest labels first and 0 (all of them) last, methods in the order of `cells`. Keys:
      'method', 'labels'; 'seeds', 'images', 'groups': how many. 'interval_covers': 'seeds and
      images', or 'images' where there is one seed, whose run-to-run spread is unknown; with fewer
        groups than images 'seeds and groups', or 'groups'.
      'dice', 'dice_ci95': mean over seeds of the mean over images.
      'vs_X', 'vs_X_ci95' for X of BASELINES: this Dice minus that method's, over the seeds and
      images that both have. Each of SCORES, and with '_ci95' its t-interval over seeds. With
      `by_class` also 'dice_by_class' and 'dice_by_class_ci95': by class, as 'dice' and 'dice_ci95'.
      'accuracy_vs_scratch', 'balanced_accuracy_vs_scratch', and with '_ci95': mean and t-interval
      of the seeds' differences.
    Intervals are [low, high]; None is what is not known.

  Raises:
    UserError: cells were scored on different images.
  """
  images = _shared_images(per_image)
  resampling = Resampling(group_indices(images, groups), samples, seed)
  group_count = len(set(resampling.groups))
  unit = 'groups' if group_count < len(images) else 'images'
  arms = {}
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
    summary.append(
      {
        'method': method,
        'labels': labels,
        'seeds': len(arm),
        'images': len(images),
        'groups': group_count,
        'interval_covers': f'seeds and {unit}' if len(arm) > 1 else unit,
        **_dice_entries(method, labels, dice, resampling),
        **_class_entries(method, labels, arm, by_class or {}, images, resampling),
        **_score_entries(arm),
        **_difference_entries('accuracy', method, arm, arms.get(('scratch', labels), {})),
        **_difference_entries('balanced_accuracy', method, arm, arms.get(('scratch', labels), {})),
      }
    )
  return summary


def over_labels(cells: Sequence[Mapping]) -> tuple[int, ...]:
  """The numbers of labels that a mean is taken over: those that every method has, all (0) left out;
  empty where there is but one.

  Each alone is noisy, since its labelled images and its training are; their mean is less so.
  """
  known = {}
  for cell in cells:
    known.setdefault(cell['method'], set()).add(cell['labels'])
  shared = set.intersection(*known.values()) - {0} if known else set()
  return tuple(sorted(shared)) if len(shared) > 1 else ()


def averaged(
  values: Mapping[Key, Mapping[str, float]], counts: tuple[int, ...]
) -> dict[Key, dict[str, float]]:
  """The numbers of cells, by name, averaged over the label counts; keys are (method, `counts`,
  seed).

  Seeds without one of the counts are left out, and so are names that one of them lacks. Nan is what
  is nan for one of them.
  """
  found = {}
  for method, seed in dict.fromkeys((method, seed) for method, _, seed in values) if counts else ():
    parts = [values.get((method, labels, seed)) for labels in counts]
    if None not in parts:
      names = [name for name in parts[0] if all(name in part for part in parts)]
      found[method, counts, seed] = {
        name: math.fsum(part[name] for part in parts) / len(parts) for name in names
      }
  return found


def averaged_cells(cells: Sequence[Mapping], counts: tuple[int, ...]) -> list[dict]:
  """Cells as `summarise_grid` takes them, whose scores are averaged over the label counts."""
  scores = {
    (cell['method'], cell['labels'], cell['seed']): {
      name: cell[name] for name in SCORES if _is_known(cell.get(name))
    }
    for cell in cells
  }
  return [
    {'method': method, 'labels': counts, 'seed': seed, **mean}
    for (method, _, seed), mean in averaged(scores, counts).items()
  ]


def _shared_images(per_image: Mapping[Key, Mapping[str, float]]) -> list[str]:
  first, images = None, []
  for key, values in per_image.items():
    if first is None:
      first, images = key, sorted(values)
    elif sorted(values) != images:
      raise UserError(
        f'cells {_name(first)} and {_name(key)} were scored on different images; delete the older evaluation and run it again'
      )
  return images


def _name(key: Key) -> str:
  return f'{key[0]}/labels{key[1]}/seed{key[2]}'


def _values(dice: Mapping[str, float], images: Sequence[str]) -> np.ndarray:
  """Dice in the order of `images`, [I]."""
  return np.array([dice[image] for image in images], np.float64)


def _dice_entries(
  method: str, labels: int, dice: Mapping[tuple[str, int], Mapping], resampling: Resampling
) -> dict:
  own = dice[method, labels]
  mean, interval = mean_over_runs(np.stack(list(own.values())), resampling)
  entries = {'dice': mean, 'dice_ci95': _clip(interval, 0, 1)}
  for baseline in BASELINES:
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
  labels: int,
  arm: Mapping,
  by_class: Mapping,
  images: Sequence[str],
  resampling: Resampling,
) -> dict:
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


def _score_entries(arm: Mapping[int, Mapping]) -> dict:
  entries = {}
  for name, (low, high) in SCORES.items():
    mean, interval = mean_over_seeds(
      [cell[name] for cell in arm.values() if _is_known(cell.get(name))]
    )
    entries |= {name: mean, f'{name}_ci95': _clip(interval, low, high)}
  return entries


def _difference_entries(
  score: str, method: str, arm: Mapping[int, Mapping], scratch: Mapping[int, Mapping]
) -> dict:
  shared = [
    s
    for s in arm
    if s in scratch and _is_known(arm[s].get(score)) and _is_known(scratch[s].get(score))
  ]
  mean, interval = mean_over_seeds(
    [] if method == 'scratch' else [arm[s][score] - scratch[s][score] for s in shared]
  )
  return {f'{score}_vs_scratch': mean, f'{score}_vs_scratch_ci95': interval}


def _clip(interval: Interval, low: float, high: float) -> Interval:
  return None if interval is None else [min(max(end, low), high) for end in interval]


def _is_known(value) -> bool:
  return value is not None and math.isfinite(value)


def label_count(labels: Labels) -> str:
  """How a number of labels is written; 0 stands for all there are."""
  if isinstance(labels, tuple):
    return 'mean of ' + ', '.join(map(str, labels))
  return 'all' if labels == 0 else str(labels)


def mask_classes(summary: Sequence[Mapping]) -> list[str]:
  """The classes whose Dice the rows hold; none where masks are binary."""
  return list(summary[0].get('dice_by_class', ())) if summary else []


def baselines(summary: Sequence[Mapping]) -> list[str]:
  """Those of BASELINES that the rows are worth comparing with.

  'ahm' where there are others than itself and the other two.
  """
  baselines = {row['method'] for row in summary if pretraining_of(row['method'])} - set(BASELINES)
  known = [name for name in BASELINES if any(row[f'vs_{name}'] is not None for row in summary)]
  return [name for name in known if name != 'ahm' or baselines]


def best_rows(summary: Sequence[Mapping]) -> set[tuple[str, Labels]]:
  """(method, labels) of the highest mean Dice of each number of labels.

  None where methods have unequal numbers of seeds: a mean over other draws of labelled images is
    higher or lower for that alone.
  """
  best, seeds = {}, {}
  for row in summary:
    seeds.setdefault(row['labels'], set()).add(row['seeds'])
    if row['dice'] is not None and row['dice'] > best.get(row['labels'], (-math.inf,))[0]:
      best[row['labels']] = (row['dice'], row['method'])
  return {(method, labels) for labels, (_, method) in best.items() if len(seeds[labels]) == 1}


def seed_counts(summary: Sequence[Mapping]) -> tuple[int, int]:
  """The lowest and the highest number of seeds of a row; 0 and 0 without rows."""
  counts = [row['seeds'] for row in summary] or [0]
  return min(counts), max(counts)


def table(summary: Sequence[Mapping], over: Sequence[Mapping] = ()) -> str:
  """`summarise_grid`'s result for a terminal: Dice and its differences, Dice of each class, the
  means of the other scores.

  Rows of means over label counts, `over`, come last. One line an method; the highest Dice of each
  label count is starred, see `best_rows`. Numbers of seeds stand there where they are unequal.
  Scores that no cell has are left out.
  """
  summary = [*summary, *over]
  fewest, most = seed_counts(summary)
  dice = [('seeds', lambda row: '-' if fewest == most else str(row['seeds']))]
  dice += [('Dice', lambda row: interval_text(row['dice'], row['dice_ci95']))]
  for baseline in baselines(summary):
    name = f'vs_{baseline}'
    dice.append(
      (f'vs {baseline}', lambda row, name=name: interval_text(row[name], row[f'{name}_ci95'], '+'))
    )
  others = [
    (title, lambda row, name=name, digits=digits: _number(row.get(name), digits))
    for name, title, digits in COLUMNS
  ]
  gain = 'balanced_accuracy_vs_scratch'
  others.append(
    (
      'balanced accuracy vs scratch',
      lambda row: interval_text(row.get(gain), row.get(f'{gain}_ci95'), '+'),
    )
  )
  classes = [
    (
      f'Dice {name}',
      lambda row, name=name: interval_text(
        row['dice_by_class'][name], row['dice_by_class_ci95'][name]
      ),
    )
    for name in mask_classes(summary)
  ]
  by_class = ['', *_block(summary, classes)] if classes else []
  note = ['95 % interval over seeds.'] if any(row.get(f'{gain}_ci95') for row in summary) else []
  return '\n'.join(
    [*_block(summary, dice), _footnote(summary), *by_class, '', *_block(summary, others), *note]
  )


def _block(summary: Sequence[Mapping], columns: Sequence[tuple]) -> list[str]:
  """Lines of one table: `columns` are pairs of a title and a function from a row to its text."""
  best = best_rows(summary)
  lines = [['labels', 'method', *(title for title, _ in columns)]]
  for row in summary:
    star = ' *' if (row['method'], row['labels']) in best else ''
    lines.append(
      [label_count(row['labels']), row['method'] + star, *(show(row) for _, show in columns)]
    )
  kept = [k for k in range(len(lines[0])) if k < 2 or any(line[k] != '-' for line in lines[1:])]
  if len(kept) == 2:
    return []
  widths = {k: max(len(line[k]) for line in lines) for k in kept}
  text = [
    '  '.join(line[k].ljust(widths[k]) if k == 1 else line[k].rjust(widths[k]) for k in kept)
    for line in lines
  ]
  rule = '-' * len(text[0])
  body = []
  for row, line, before in zip(summary, text[1:], [None, *summary], strict=False):
    if before is None or before['labels'] != row['labels']:
      body.append(rule)
    body.append(line)
  return [line.rstrip() for line in [text[0], *body, rule]]


def _footnote(summary: Sequence[Mapping]) -> str:
  fewest, most = seed_counts(summary)
  images, groups = summary[0]['images'], summary[0]['groups']
  unit = f'{groups} groups of images' if groups < images else 'images'
  covered = f'cover {unit} only (one seed)' if most == 1 else f'cover seeds and {unit}'
  if fewest == 1 < most:
    covered += f' ({unit} only where there is one seed)'
  note = '* highest. ' if best_rows(summary) else ''
  note += f'Mean over images, then over seeds, with 95 % intervals that {covered}.'
  if fewest < most:
    note += '\nWhere methods have unequal numbers of seeds none is starred: compare differences, over the seeds that both have.'
  if any(row.get('false_alarm_rate') is not None for row in summary):
    note += '\nDifferences leave out images that one side does not score: no lesion is there, and it finds none.'
  if any(is_tuned(row['method']) for row in summary):
    note += f'\n{", ".join(BASELINES)} in a difference are those that the config itself fine-tunes.'
  return note


def interval_text(value: float | None, interval: Interval, sign: str = '') -> str:
  """A score with its interval, as tables have it; with `sign` '+' a difference."""
  if value is None:
    return '-'
  ends = '' if interval is None else f' [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]'
  return f'{value:{sign}.3f}{ends}'


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'
