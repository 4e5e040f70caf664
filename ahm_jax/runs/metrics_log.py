"""What a run tells while it trains: metrics.jsonl, and one progress bar."""

import io
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tqdm

FILE = 'metrics.jsonl'  # In a run's directory.
SKIPPED = 'skipped'  # Metric of a step: 1 where it was not taken, else 0.
QUIET_SECONDS = 30  # Between lines where standard error is not a terminal.


class Writer:
  """Writes lines of metrics.jsonl, and shows how far the run is.

  A line holds 'step' (steps done) and, of every metric, the mean over the steps since the line
  before that were taken; if some were not, how many, as SKIPPED; after a validation also its
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
    taken = [metrics for metrics in self.since_line if not metrics[SKIPPED]]
    line = {
      name: statistics.fmean(item[name] for item in taken) if taken else None
      for name in self.since_line[0]
    }
    del line[SKIPPED]
    if len(taken) < len(self.since_line):
      line[SKIPPED] = len(self.since_line) - len(taken)
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


class Silent:
  """Stands for a Writer in the processes that tell nothing."""

  since_line = ()

  def __init__(self, *_):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def add(self, *_):
    pass

  line = say = add

  def sync(self):
    pass


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
  return path.open('a')


class Bar:
  """Images done, images/s, loss, last validation and time left; on a terminal a bar, else a line
  now and then.

  The rate is the mean since the first step was done, so that it does not count the compilation.
  """

  def __init__(
    self, name: str, start: int, stop: int, batch_size: int = 1, validation: str = 'score'
  ):
    self._batch_size = batch_size
    self._validation = validation
    self._first = True
    self._terminal = sys.stderr.isatty()
    self._spoken = time.monotonic()
    self._shown: dict[str, float] = {}
    self._bar = tqdm.tqdm(
      desc=name,
      initial=start * batch_size,
      total=stop * batch_size,
      unit='images',
      smoothing=0,
      mininterval=0.1 if self._terminal else QUIET_SECONDS,
      dynamic_ncols=self._terminal,
      file=sys.stderr if self._terminal else io.StringIO(),
    )

  def show(self, scores: dict[str, float]) -> None:
    if self._validation in scores:
      self._shown[self._validation] = scores[self._validation]
      self._bar.set_postfix(self._shown, refresh=False)

  def advance(self, loss: float | None = None) -> None:
    if loss is not None:
      self._shown['loss'] = loss
    self._bar.set_postfix(self._shown, refresh=False)
    self._bar.update(self._batch_size)
    if self._first:
      self._first = False
      self._bar.initial = self._bar.n
      self._bar.start_t = self._bar.last_print_t = time.time()
    if not self._terminal and time.monotonic() - self._spoken > QUIET_SECONDS:
      self._show_line()

  def say(self, line: str) -> None:
    tqdm.tqdm.write(line, file=sys.stderr)

  def close(self) -> None:
    if not self._terminal:
      self._show_line()
    self._bar.close()

  def _show_line(self) -> None:
    self._spoken = time.monotonic()
    print(self._bar, file=sys.stderr, flush=True)
