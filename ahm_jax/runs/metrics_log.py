"""What a training shows while it runs: lines of metrics.jsonl, and a progress bar."""

import io
import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from ahm_jax.runtime.progress import Bar

FILE = 'metrics.jsonl'  # In a run's directory.
SKIPPED = 'skipped'  # Metric of a step: 1 where it was skipped, else 0.


class MetricsLog:
  """Writes lines of metrics.jsonl, and shows how far the run is.

  A line holds 'step' (steps done) and, of every metric, the mean over the steps since the line
  before that were not skipped; if some were, how many, as SKIPPED; after a validation also its
  scores, as 'validation/NAME'. What is not finite becomes null. A context manager.

  Args:
    workdir: the run's directory.
    name: of the task, shown at the bar.
    start: steps done when the run starts or resumes; lines of later steps, of a run that was
      interrupted, are cut off.
    stop: steps of the whole run.
    batch_size: images per step.
    shown: the validation metric that the bar shows.
    since_line: metrics of the steps up to `start` that no line holds yet, as `since_line` had them.

  Attributes:
    since_line: metrics of the steps since the last line.
  """

  def __init__(
    self,
    workdir: Path,
    name: str,
    start: int,
    stop: int,
    batch_size: int,
    shown: str = 'score',
    since_line: Sequence[dict[str, float]] = (),
  ):
    self.since_line = list(since_line)
    self._file = open_at(Path(workdir) / FILE, start)
    self._bar = Bar(name, start, stop, batch_size, shown)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    self._file.close()

  def add(self, metrics: dict[str, float]) -> None:
    """Takes the metrics of one step, in order."""
    self.since_line.append(metrics)
    self._bar.advance(metrics['loss'])

  def line(self, step: int, scores: dict[str, float] | None = None) -> None:
    """Writes the line of a step.

    `scores` are those of the validation after it, where there was one.
    """
    line = _means(self.since_line)
    if scores:
      self._bar.show(scores)
      line |= {f'validation/{name}': value for name, value in scores.items()}
    finite = {
      name: None if value is None or not math.isfinite(value) else value
      for name, value in line.items()
    }
    self._file.write(json.dumps({'step': step, **finite}) + '\n')
    self._file.flush()
    self.since_line.clear()

  def sync(self) -> None:
    """Returns when the lines are on disk."""
    os.fsync(self._file.fileno())

  def say(self, line: str) -> None:
    """Prints a line on standard error, clear of the bar."""
    self._bar.say(line)


class SilentLog:
  """In place of a MetricsLog, in the processes that write nothing."""

  def __init__(self, *_):
    self.since_line: list[dict[str, float]] = []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def add(self, *_) -> None:
    pass

  line = say = sync = add


def _means(steps: Sequence[dict[str, float]]) -> dict[str, float | None]:
  """Of each metric over the steps that were not skipped, and how many were skipped, if any."""
  taken = [metrics for metrics in steps if not metrics[SKIPPED]]
  line: dict[str, float | None] = {
    name: statistics.fmean(metrics[name] for metrics in taken) if taken else None
    for name in steps[0]
    if name != SKIPPED
  }
  if len(taken) < len(steps):
    line[SKIPPED] = len(steps) - len(taken)
  return line


def open_at(path: Path, step: int) -> io.TextIOWrapper:
  """Opens a metrics file to append to, with whatever follows the line of `step` cut off (a
  half-written line too).
  """
  path.touch()
  keep = 0
  with path.open('rb+') as file:
    for line in file:
      if not line.endswith(b'\n') or json.loads(line)['step'] > step:
        break
      keep += len(line)
    file.truncate(keep)
  return path.open('a', encoding='utf-8')
