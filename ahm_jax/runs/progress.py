"""How far a run is: what a checkpoint holds beside the tensors."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Progress(NamedTuple):
  """Of a run that has not begun, or that was saved at a step."""

  step: int = 0
  # Of the validation at this step; larger is better. Without a validation, the lowest.
  score: float = -math.inf
  best_score: float = -math.inf
  validations_since_best: int = 0
  validated: int = 0  # Step of the last validation.
  skipped_in_row: int = 0  # The last so many steps were skipped.
  since_line: Sequence[dict[str, float]] = ()  # Metrics of steps that metrics.jsonl lacks yet.

  def at(self, step: int) -> 'Progress':
    """The progress at a later step, without a validation."""
    return self._replace(step=step, score=-math.inf)

  def after(self, step: int, score: float) -> 'Progress':
    """The progress after one more validation. A score that is not a number counts as the lowest."""
    score = -math.inf if math.isnan(score) else score
    better = score > self.best_score
    return self._replace(
      step=step,
      score=score,
      best_score=score if better else self.best_score,
      validations_since_best=0 if better else self.validations_since_best + 1,
      validated=step,
    )
