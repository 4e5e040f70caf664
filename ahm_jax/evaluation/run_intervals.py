"""95 % intervals of the scores of one run, over its images, or groups of them.

Of means over images as `intervals.mean_over_images` has them. Balanced accuracy and AUC are no
means: groups of images are drawn with replacement, and the interval is the estimate -+ t * standard
deviation of what they become.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ahm_jax.evaluation.compare import SCORES
from ahm_jax.evaluation.intervals import Interval, group_indices, mean_over_images
from ahm_jax.evaluation.per_image import Row

# Means over images of numbers that rows have under the same name.
MEANS = ('dice', 'iou', 'precision', 'recall', 'hd95')
_RANGES = {'dice': (0.0, 1.0), **SCORES}
_PROBABILITY = 'probability_'


def intervals(
  scores: Mapping[str, Any], rows: Sequence[Row], samples: int
) -> dict[str, list[float]]:
  """Those that are known.

  Args:
    scores: of a run, by name.
    rows: of its images, as `per_image.read` gives them or `per_image.write` takes them.
    samples: of the bootstrap.
  """
  groups = group_indices(
    [row['image'] for row in rows], {row['image']: row['group'] for row in rows if 'group' in row}
  )
  found: dict[str, Interval] = {}
  for name, values in _per_image(rows).items():
    mean, interval = mean_over_images(values, samples, groups)
    # Rows are of images with a mask, and diagnoses are scored on others too.
    if mean is not None and _is_same(scores.get(name), mean):
      found[name] = interval
  if 'accuracy' in found:
    found |= _of_diagnoses(rows, groups, samples)
  return {name: _clip(name, ends) for name, ends in found.items() if ends is not None}


def _per_image(rows: Sequence[Row]) -> dict[str, np.ndarray]:
  """Of diagnoses, of masks, or of both."""
  values = {}
  if any(row.get('predicted') for row in rows):
    right = [
      float(row['label'] == row['predicted']) if row.get('label') else np.nan for row in rows
    ]
    values['accuracy'] = np.array(right)
  known = [name for name in MEANS if rows and name in rows[0]]
  return values | {name: np.array([row[name] for row in rows], float) for name in known}


def _of_diagnoses(rows: Sequence[Row], groups: Sequence[int], samples: int) -> dict[str, Interval]:
  """Of 'balanced_accuracy' and 'auc', as `metrics.classification_scores` defines them."""
  told = [k for k, row in enumerate(rows) if row.get('label')]
  drawn = np.array(group_indices([groups[k] for k in told], {}))
  count = int(drawn.max()) + 1
  if count == 1:
    return {}
  draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=samples)
  weights = draws[:, drawn].astype(np.float64)  # Of images, [samples, I]; all 1 is the estimate.
  weights = np.concatenate([np.ones((1, len(told))), weights])
  labels = np.array([rows[k]['label'] for k in told])
  right = np.array([rows[k]['predicted'] for k in told]) == labels
  present = np.unique(labels)
  values = {'balanced_accuracy': [_share(weights, labels == name, right) for name in present]}
  classes = [
    key.removeprefix(_PROBABILITY) for key in rows[told[0]] if key.startswith(_PROBABILITY)
  ]
  if len(present) > 1 and set(present) <= set(classes):
    values['auc'] = [
      _area(weights, labels == name, _numbers(rows, told, f'{_PROBABILITY}{name}'))
      for name in (classes[1:] if len(classes) == 2 else present)
    ]
  return {name: _interval(np.mean(parts, 0), count) for name, parts in values.items()}


def _numbers(rows: Sequence[Row], chosen: Sequence[int], column: str) -> np.ndarray:
  return np.array([rows[k][column] for k in chosen], float)


def _share(weights: np.ndarray, among: np.ndarray, of: np.ndarray) -> np.ndarray:
  """The share of images `among` that are `of` something, by sample; nan where none was drawn."""
  with np.errstate(invalid='ignore'):
    return weights @ (among & of) / (weights @ among)


def _area(weights: np.ndarray, positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Under the ROC curve, by sample: the share of pairs in which the positive has the higher score,
  ties by half.
  """
  high, low = scores[positive][:, None], scores[~positive][None]
  won = (high > low) + 0.5 * (high == low)
  with np.errstate(invalid='ignore'):
    total = weights[:, positive].sum(1) * weights[:, ~positive].sum(1)
    return ((weights[:, positive] @ won) * weights[:, ~positive]).sum(1) / total


def _interval(values: np.ndarray, groups: int) -> Interval:
  """Of an estimate, which comes first, and what it is in samples."""
  estimate, resampled = values[0], values[1:][np.isfinite(values[1:])]
  if not np.isfinite(estimate) or len(resampled) < 2:
    return None
  spread = resampled.std(ddof=1) * math.sqrt(groups / (groups - 1))
  margin = float(stats.t.ppf(0.975, groups - 1) * spread)
  return [float(estimate) - margin, float(estimate) + margin]


def _clip(name: str, ends: list[float]) -> list[float]:
  low, high = _RANGES[name]
  return [min(max(end, low), high) for end in ends]


def _is_same(score: Any, mean: float) -> bool:
  return isinstance(score, float) and math.isclose(score, mean, rel_tol=1e-6, abs_tol=1e-9)
