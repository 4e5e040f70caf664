"""A task in training, a step at a time: for measuring, without log, validation or checkpoint."""

from typing import Any

import jax

from ahm_jax.data.batches import Source
from ahm_jax.runtime import flops, parallel
from ahm_jax.task import Task
from ahm_jax.training.parallel_step import Request, parallel_step, requests

FAR = 10**9  # More steps than anyone measures.


class Stepper:
  """Trains from a fresh state.

  Args:
    task: what is trained.
    source: what it is trained on.
    seed: as `ahm_jax.training.loop.fit` takes it.

  Attributes:
    state: what the steps so far lead to.
  """

  def __init__(self, task: Task, source: Source, seed: int = 0):
    init_key, step_key = jax.random.split(jax.random.key(seed))
    self._source = source
    self._advance = parallel_step(task.step, source.devices)
    self._request = requests(Request.NONE, source.devices)
    self._key = parallel.replicate(step_key, source.devices)
    self._inputs = iter(source.inputs(0, FAR))
    self.state = parallel.replicate(task.init(init_key), source.devices)

  def next_inputs(self) -> Any:
    """What the next step takes; waits for it where it is streamed."""
    return next(self._inputs)

  def step(self, inputs: Any) -> None:
    """Dispatches a step; returns before it is done."""
    self.state, _ = self._advance(
      self.state, self._source.resident, inputs, self._key, self._request
    )

  def __call__(self) -> None:
    """One step, done."""
    self.step(self.next_inputs())
    jax.block_until_ready(self.state)

  def lowered(self) -> jax.stages.Lowered:
    """The step's program as it is before XLA changes it."""
    return self._advance.lower(*self._arguments())

  def operations(self) -> int:
    """Of a step on one device, see `flops.count`."""
    return flops.count(self._advance, *self._arguments())

  def _arguments(self) -> tuple:
    return self.state, self._source.resident, self.next_inputs(), self._key, self._request
