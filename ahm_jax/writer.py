"""What a run tells while it trains: metrics.jsonl, and one progress bar."""

import io
import json
import math
import sys
import time
from pathlib import Path

import tqdm

FILE = 'metrics.jsonl'  # In a run's directory.
QUIET_SECONDS = 30  # Between lines where standard error is not a terminal.


class Writer:
  """Writes one line of metrics.jsonl every `log_every` steps and at every validation, and shows how far the run is.

  A line holds 'step' (steps done) and, of every metric, the mean over the steps since the line before; a validation's line also
  holds its scores, as 'validation/NAME'. What is not finite is written as null. A context manager.

  Args:
    workdir: the run's directory.
    name: of the task, shown at the bar.
    start: steps done when the run starts or resumes; lines of later steps, of a run that was interrupted, are cut off.
    stop: steps of the whole run.
    batch_size: images per step.
    log_every: steps between lines.
    shown: the validation metric that the bar shows.
  """

  def __init__(self, workdir: Path, name: str, start: int, stop: int, batch_size: int, log_every: int, shown: str = 'score'):
    self._file = open_at(Path(workdir) / FILE, start)
    self._log_every = log_every
    self._since_line: list[dict[str, float]] = []
    self._bar = Bar(name, start, stop, batch_size, shown)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    self._file.close()

  def add(self, step: int, metrics: dict[str, float], validation: dict[str, float] | None = None) -> None:
    """Takes the metrics of one step, in order; `validation` holds the scores after it, where there was one."""
    self._since_line.append(metrics)
    self._bar.advance(metrics['loss'], validation)
    if validation is None and step % self._log_every:
      return
    line = {name: sum(item[name] for item in self._since_line) / len(self._since_line) for name in metrics}
    line |= {f'validation/{name}': value for name, value in (validation or {}).items()}
    finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
    self._file.write(json.dumps({'step': step, **finite}) + '\n')
    self._file.flush()
    self._since_line.clear()


class Silent:
  """Stands for a Writer in the processes that tell nothing."""

  def __init__(self, *_):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def add(self, *_):
    pass


def open_at(path: Path, step: int) -> io.TextIOWrapper:
  """Opens a metrics file to append to, with whatever follows the line of `step` cut off (a half-written line too)."""
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
  """Images done, images/s, loss, last validation and time left; on a terminal a bar, else a line now and then.

  The rate is the mean since the first step was done, so that it does not count the compilation.
  """

  def __init__(self, name: str, start: int, stop: int, batch_size: int, validation: str = 'score'):
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

  def advance(self, loss: float, validation: dict[str, float] | None) -> None:
    self._shown['loss'] = loss
    if validation and self._validation in validation:
      self._shown[self._validation] = validation[self._validation]
    self._bar.set_postfix(self._shown, refresh=False)
    self._bar.update(self._batch_size)
    if self._first:
      self._first = False
      self._bar.initial = self._bar.n
      self._bar.start_t = self._bar.last_print_t = time.time()
    if not self._terminal and time.monotonic() - self._spoken > QUIET_SECONDS:
      self._say()

  def close(self) -> None:
    if not self._terminal:
      self._say()
    self._bar.close()

  def _say(self) -> None:
    self._spoken = time.monotonic()
    print(self._bar, file=sys.stderr, flush=True)
