"""The progress bar of whatever goes through many images."""

import io
import sys
import time

import tqdm

QUIET_SECONDS = 30  # Between lines where standard error is not a terminal.


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
