"""A task's step on all devices at once, compiled: the only pmap."""

import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ahm_jax.runs.metrics_log import SKIPPED
from ahm_jax.runtime import parallel
from ahm_jax.runtime.parallel import DEVICES, Picks, Resident
from ahm_jax.task import Batch, TrainState
from ahm_jax.training import guard

REQUEST = 'request'  # Metric of a step: the largest of the processes' requests.


class Request(enum.IntEnum):
  """What a process requests of all with a step; of different requests, the largest is met."""

  NONE = 0
  SAVE = 1
  STOP = 2


Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


class ParallelStep(Protocol):
  """See `parallel_step`."""

  def __call__(
    self,
    state: TrainState,
    resident: Resident | None,
    inputs: Picks | Batch,
    key: jax.Array,
    request: np.ndarray,
  ) -> tuple[TrainState, dict[str, jax.Array]]: ...

  def lower(self, *arguments: Any) -> jax.stages.Lowered: ...


@functools.cache
def parallel_step(step: Step, devices: tuple[jax.Device, ...]) -> ParallelStep:
  """A task's step, guarded and compiled for the devices; equal steps give the same program.

  Args:
    step: see `Task`.

  Returns:
    advance(state, resident, inputs, key, request) -> state, metrics. `inputs` are Picks, which each
    device gathers from its resident images, or a Batch of arrays [d, b, ...] with `resident` None.
    `state`, `resident` and `key` are replicated, and `state` is given up. The step's key is
    fold_in(key, state.step). Metrics are [d]; `parallel.fetch` reads them. `request`, see
    `requests`, comes back as the metric REQUEST, the largest of all processes, so that they can
    agree; SKIPPED is 1 where the guard kept the old state, else 0. advance.lower gives the program.
  """

  def advance(state, resident, inputs, key, request):
    batch = inputs if resident is None else _gather(resident, inputs)
    new, metrics = step(state, batch, jax.random.fold_in(key, state.step))
    state, skipped = guard.keep_finite(state, new, metrics['loss'])
    return state, {**metrics, SKIPPED: skipped, REQUEST: lax.pmax(request, DEVICES)}

  compiled = jax.pmap(
    advance,
    axis_name=DEVICES,
    in_axes=(None, None, 0, None, 0),
    out_axes=(None, 0),
    donate_argnums=0,
    devices=devices,
  )
  several_on_host = len(devices) > 1 and devices[0].platform == 'cpu'
  return _OneAtATime(compiled) if several_on_host else compiled


class _OneAtATime:
  """A parallel step that waits for the one before.

  Host devices share one pool of threads, and several steps in flight can each wait for a thread
  that another one holds.
  """

  def __init__(self, compiled: ParallelStep):
    self._compiled = compiled
    self.lower = compiled.lower

  def __call__(self, state, resident, inputs, key, request):
    return self._compiled(jax.block_until_ready(state), resident, inputs, key, request)


def _gather(resident: Resident, picks: Picks) -> Batch:
  images, masks, labels = (jnp.take(array, picks.indices, axis=0) for array in resident)
  return Batch(images, masks, labels, picks.positions)


def requests(request: Request, devices: Sequence[jax.Device]) -> np.ndarray:
  """What this process gives a step as its request, int32 [d]."""
  return np.full(len(parallel.own(devices)), request, np.int32)
