"""The only Orbax: a run's checkpoints, of which the latest and the best are kept."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from ahm_jax import interruption, processes
from ahm_jax.errors import UserError
from ahm_jax.training.state import TrainState

FOLDER = 'checkpoints'  # In a run's directory.


class Progress(NamedTuple):
  """How far a run is; what a checkpoint holds beside the tensors."""

  step: int = 0
  score: float = -math.inf  # Of the validation at this step; larger is better.
  best_score: float = -math.inf
  validations_since_best: int = 0

  def after(self, step: int, score: float) -> 'Progress':
    """The progress after one more validation. A score that is not a number counts as the lowest."""
    score = -math.inf if math.isnan(score) else score
    if score > self.best_score:
      return Progress(step, score, score, 0)
    return Progress(step, score, self.best_score, self.validations_since_best + 1)


def _score(progress: dict[str, float]) -> float:
  return progress['score']


class Checkpoints:
  """The checkpoints of one run. A context manager: leaving it waits for the last save to be on disk.

  Several processes that train together all make the same calls, and one checkpoint results.

  Args:
    workdir: the run's directory.
  """

  def __init__(self, workdir: Path):
    self.workdir = Path(workdir)
    # A run killed while it deletes leaves a checkpoint without metrics: that one is to go.
    best = BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
      best_fn=_score,
      preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(_directory(workdir), options=options)

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if error is None or not processes.has_others():  # Closing waits for the others, who know nothing of the error.
      self._manager.close()

  def save(self, state: TrainState, progress: Progress) -> None:
    """Saves in the background; the next step may take `state` over at once.

    Args:
      state: replicated over the devices of all processes (`parallel.of_all`).
    """
    with interruption.waits():  # Interrupted half-way, Orbax would leave a thread behind that complains when Python ends.
      self._manager.save(progress.step, args=ocp.args.StandardSave(state), metrics=progress._asdict())

  def progress(self) -> Progress:
    """That of the latest checkpoint, or of a run that has not begun."""
    step = self._manager.latest_step()
    return processes.from_first(Progress() if step is None else Progress(**self._manager.metrics(step)))

  def restore_latest(self, target: TrainState) -> TrainState:
    """The latest state.

    Args:
      target: shapes, dtypes and shardings that the state is to have (`parallel.abstract`); the devices need not be those it was
        saved from.
    """
    return self._restore(self._manager.latest_step(), target)

  def restore_best(self, target: TrainState) -> TrainState:
    """The state with the highest score, of equal ones the latest. `target` as for `restore_latest`."""
    return self._restore(self._manager.best_step(), target)

  def _restore(self, step: int | None, target: TrainState) -> TrainState:
    self._manager.wait_until_finished()
    step = processes.from_first(0 if step is None else step)  # A shared file system may show others an older list.
    return self._manager.restore(step, args=ocp.args.StandardRestore(target))


def latest_step(workdir: Path) -> int:
  """That of the latest checkpoint in a run's directory, 0 where there is none; for a message, since it loads nothing."""
  steps = [int(path.name) for path in _directory(workdir).glob('*') if path.name.isdecimal()]
  return max(steps, default=0)


def _directory(workdir: Path) -> Path:
  return Path(workdir).absolute() / FOLDER


def load_variables(workdir: Path, best: bool) -> dict[str, Any]:
  """What another run learnt, whatever its task and optimizer.

  Args:
    workdir: that run's directory.
    best: its best checkpoint, or its latest.

  Returns:
    {'step', 'params', 'batch_stats'} with NumPy arrays in nested dicts.

  Raises:
    UserError: there is no checkpoint.
  """
  directory = _directory(workdir)
  if not directory.is_dir():
    raise _nothing_in(workdir)
  options = ocp.CheckpointManagerOptions(best_fn=_score, create=False)
  with ocp.CheckpointManager(directory, options=options, item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
    step = manager.best_step() if best else manager.latest_step()
    if step is None:
      raise _nothing_in(workdir)
    saved = manager.item_metadata(step).tree
    target = {name: jax.tree.map(_shape, saved[name]) for name in ('step', 'params', 'batch_stats')}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    restore = ocp.args.PyTreeRestore(item=target, restore_args=as_numpy, partial_restore=True)
    return manager.restore(step, args=restore)


def _shape(array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _nothing_in(workdir: Path) -> UserError:
  return UserError(f'{workdir} holds no checkpoint; give the directory of a run that has saved one')
