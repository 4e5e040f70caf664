"""The only profiler: traces some whole steps of a run, for XProf, TensorBoard or Perfetto."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ahm_jax.errors import UserError


class Capture(NamedTuple):
  """A trace that was taken."""

  directory: Path
  steps: int
  seconds: float  # From the first step's start to the last one's end.


class Profiler:
  """Traces steps a to b - 1, counted from 0, into a folder.

  Args:
    steps: 'a:b', or '' for no trace.
    directory: where the trace goes.

  Raises:
    UserError: `steps` is not of that form.
  """

  def __init__(self, steps: str, directory: Path):
    self._first, self._end = parse(steps)
    self._directory = directory
    self._started: float | None = None
    self._from = 0

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._started is not None:
      self._stop()

  def before(self, step: int, state: Any) -> None:
    """To be called before every step, with the arrays that the steps so far lead to."""
    if self._started is None and self._first <= step < self._end:
      jax.block_until_ready(state)
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # It would slow the host down, and fill the trace.
      jax.profiler.start_trace(self._directory, profiler_options=options)
      self._started, self._from = time.perf_counter(), step

  def after(self, step: int, state: Any) -> Capture | None:
    """To be called after every step, with the arrays it leads to.

    The capture, when its last step was traced.
    """
    if self._started is None or step + 1 < self._end:
      return None
    jax.block_until_ready(state)
    seconds = time.perf_counter() - self._started
    self._stop()
    return Capture(self._directory, step + 1 - self._from, seconds)

  def _stop(self):
    self._started = None
    jax.profiler.stop_trace()


def parse(steps: str) -> tuple[int, int]:
  """(a, b) of 'a:b', (0, 0) of ''; raises a UserError for anything else."""
  if not steps:
    return 0, 0
  first, colon, end = steps.partition(':')
  if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
    raise UserError(
      f"config.profile.steps is {steps!r}; give 'a:b' with a < b, such as '10:15', "
      'to trace steps a to b - 1'
    )
  return int(first), int(end)
