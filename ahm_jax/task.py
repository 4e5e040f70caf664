"""The three things that flow through a training: batches, the state, and the task that turns one
into the next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Batch(NamedTuple):
  """Training images as a task's step gets them; b per device."""

  images: Any  # uint8 [b, S, S, C].
  masks: Any  # uint8 [b, S, S].
  labels: Any  # int32 [b].
  positions: Any  # int32 [b], position in the global batch.


class TrainState(NamedTuple):
  """Everything that a checkpoint holds of a run's tensors."""

  step: jax.Array  # int32 scalar: steps done so far.
  params: Any
  batch_stats: Any
  opt_state: Any
  extra: Any  # A pytree of the task's own, such as a masking strategy's state; () if there is none.


class Task(NamedTuple):
  """What the training loop drives.

  `step` is a frozen dataclass of configs and numbers, compares by them, and is the key by which
  compiled programs are kept: runs in one process whose steps are equal, such as those of a grid
  that differ in their seeds alone, share one program.
  """

  name: str  # 'pretrain', 'segment' or 'classify'.
  init: Callable[[jax.Array], TrainState]  # From a random key.
  step: Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]
  """Pure.

  Sees one device's share of the batch, under the axis of devices. Metrics are reduced scalars; one
  is 'loss'.
  """
  evaluate: Callable[[TrainState], dict[str, float]]
  """Over the validation split, from a state on one device.

  Has the key 'score'; larger is better.
  """
  keep_best: bool  # Whether a run ends with the state of the best validation, or with the last.
  shown: str = 'score'  # Which validation metric the progress bar shows.
  snapshot: Callable[[TrainState], dict[str, Any]] | None = (
    None  # Small arrays that are kept of the state at each validation.
  )
