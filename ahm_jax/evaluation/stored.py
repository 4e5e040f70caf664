"""Scores as files hold them: what each may be, and evaluation.json, which is read with that."""

import math
from pathlib import Path
from typing import Any

from ahm_jax.evaluation.compare import SCORES
from ahm_jax.evaluation.metrics import IMAGE_COUNTS, ROUNDING
from ahm_jax.runs import directory
from ahm_jax.runtime import json_files, schema
from ahm_jax.runtime.schema import Check

AGENT_METRICS = ('difficulty_rank_correlation', 'hardness_ratio', 'border_lift', 'mask_ratio')
_BY_CLASS = '_by_class'
_RANGES = {
  **SCORES,
  'dice': (0, 1),
  'hd95_mm': (0, math.inf),
  'difficulty_rank_correlation': (-1, 1),
  'hardness_ratio': (0, math.inf),
  'border_lift': (0, math.inf),
  'mask_ratio': (0, 1),
  'confidence_rank_correlation': (-1, 1),
  'risk_coverage_area': (0, 1),
  'dice_surest_half': (0, 1),
}


def score(name: str) -> Check:
  """A score of this name, in its range, or None where it is not defined."""
  low, high = _RANGES.get(name.removesuffix(_BY_CLASS), (-math.inf, math.inf))
  return schema.optional(schema.number(low - ROUNDING, high + ROUNDING))


def scores(*others: str) -> Check:
  """An object of scores by name, some of them by class; `others` are no scores."""

  def of(name: str) -> Check:
    if name in others:
      return schema.anything
    if name in IMAGE_COUNTS:
      return schema.count()
    return schema.mapping(score(name)) if name.endswith(_BY_CLASS) else score(name)

  return schema.named(of)


_EVALUATION = schema.both(
  schema.record({'stage': schema.text, 'split': schema.text, 'threshold': schema.number(0, 1)}),
  scores(*directory.CONDITIONS),
)
AGENT = schema.record({name: score(name) for name in AGENT_METRICS})


def evaluation(workdir: Path) -> dict[str, Any] | None:
  """What evaluation.json of a run holds; None where it was not evaluated.

  Raises:
    json_files.Damaged: it does not hold what was written.
    UserError: it cannot be read.
  """
  cure = f'remove it, and score the run again: launch.evaluate --workdir={workdir}'
  return json_files.read_json(Path(workdir) / directory.EVALUATION, _EVALUATION, cure)
