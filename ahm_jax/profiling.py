"""The only profiler: traces some steps of a run, for TensorBoard or Perfetto."""

from pathlib import Path
from typing import Any

import jax

from ahm_jax.errors import UserError


class Profiler:
  """Traces steps a to b - 1, counted from 0, into a folder.

  Args:
    steps: 'a:b', or '' for no trace.
    directory: where the trace goes.

  Raises:
    UserError: `steps` is not of that form.
  """

  def __init__(self, steps: str, directory: Path):
    self._first, self._end = _parse(steps)
    self._directory = directory
    self._tracing = False

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stop()

  def before(self, step: int, state: Any) -> None:
    """To be called before every step, with the arrays that the steps so far lead to."""
    inside = self._first <= step < self._end
    if inside and not self._tracing:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._directory)
      self._tracing = True
    if self._tracing and not inside:
      jax.block_until_ready(state)
      self._stop()

  def _stop(self):
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing = False


def _parse(steps: str) -> tuple[int, int]:
  if not steps:
    return 0, 0
  first, colon, end = steps.partition(':')
  if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
    raise UserError(f"config.profile.steps is {steps!r}; give 'a:b' with a < b, such as '10:15', to trace steps a to b - 1")
  return int(first), int(end)
