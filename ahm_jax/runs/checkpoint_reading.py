"""What a run has saved, as it reads it itself, and as others do, maybe while it trains; changes
nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_folders as folders
from ahm_jax.runs.checkpoint_files import DamagedCheckpoint
from ahm_jax.runtime import trees
from ahm_jax.task import TrainState

_PAUSE = 0.1  # Seconds between tries.
_TRIES = 3  # At a checkpoint that is there; to prune takes less time than to read.
T = TypeVar('T')


class _Removed(UserError):
  """A checkpoint that a training removed while it was read."""


def latest_step(workdir: Path) -> int:
  """That of the latest checkpoint in a run's directory, 0 where there is none; loads nothing.

  Raises:
    UserError: they cannot be listed.
  """
  return max(folders.steps(workdir), default=0)


def saved_line(workdir: Path) -> str:
  """What to say is saved of a run that ends; '' where nothing is. Raises nothing."""
  try:
    step = latest_step(workdir)
  except UserError as error:
    return str(error)
  return f'step {step} is saved in {workdir}' if step else ''


def load_state(workdir: Path, target: TrainState) -> TrainState:
  """The latest state of another run, which may be at work meanwhile: nothing is changed there.

  Args:
    workdir: that run's directory.
    target: as for `Checkpoints.restore_latest`.

  Raises:
    UserError: there is no checkpoint, it is damaged or cannot be read, or what was saved has other
      shapes.
  """
  return _read_again(lambda: restored(chosen(workdir, best=False), target))


def load_variables(workdir: Path, best: bool) -> dict[str, Any]:
  """What another run learnt, whatever its task and optimizer.

  Args:
    workdir: that run's directory.
    best: its best checkpoint, of equal ones the latest; or its latest.

  Returns:
    {'step', 'params', 'batch_stats'} with NumPy arrays in nested dicts; without norms 'batch_stats'
    is {}.

  Raises:
    UserError: there is no checkpoint, or it is damaged or cannot be read.
  """

  def read() -> dict[str, Any]:
    home = chosen(workdir, best)
    with named(home):
      return {'batch_stats': {}, **files.arrays(home, ('step', 'params', 'batch_stats'))}

  return _read_again(read)


def _read_again(read: Callable[[], T]) -> T:
  """What `read` returns, which chooses a checkpoint and reads it; chooses again where a training
  has removed it, or put a later one of its step in its place, meanwhile.
  """
  for _ in range(_TRIES - 1):
    with contextlib.suppress(_Removed):
      return read()
    time.sleep(_PAUSE)
  return read()


def chosen(workdir: Path, best: bool) -> Path:
  """The folder of a run's best checkpoint, of equal ones the latest; or of its latest.

  Raises:
    UserError: there is none, or one is damaged or cannot be read.
  """
  homes = [folders.home(workdir, step) for step in folders.steps(workdir)]
  if not homes:
    # One that is saved again has no name for a moment.
    kind = _Removed if folders.is_at_work(workdir) else UserError
    raise kind(f'{workdir} holds no checkpoint; give the directory of a run that has saved one')
  return max(reversed(homes), key=_score_at) if best else homes[-1]


def _score_at(home: Path) -> float:
  with named(home):
    return files.saved(home).progress.score


def restored(home: Path, target: TrainState) -> TrainState:
  with named(home):
    found = files.arrays(home)
  problem = trees.shape_mismatch(found, target)
  if problem:
    raise UserError(f'{home}: {problem}; a checkpoint and run.json of one run belong together')
  flat = trees.flatten(found)
  leaves = [_placed(flat[name], leaf) for name, leaf in trees.flatten(target).items()]
  return jax.tree.unflatten(jax.tree.structure(target), leaves)


def _placed(array: np.ndarray, target: jax.ShapeDtypeStruct) -> jax.Array:
  array = np.asarray(array, target.dtype)
  return jax.make_array_from_callback(target.shape, target.sharding, lambda index: array[index])


@contextlib.contextmanager
def named(home: Path) -> Iterator[None]:
  """Says which checkpoint it is that is damaged, or was removed while it was read."""
  before = _identity(home)
  try:
    yield
  except (DamagedCheckpoint, UserError) as problem:
    if _is_other(before, _identity(home)):
      raise _Removed(
        f'{home} was removed, or replaced, while it was read; run the same command again'
      ) from problem
    if isinstance(problem, UserError):
      raise
    raise UserError(
      f"{home}: the checkpoint {problem}; run that run's own command again; "
      'it resumes from the checkpoint before'
    ) from problem


def _identity(home: Path) -> tuple[int, ...] | None:
  """What tells a folder from a later one of its name; None where there is none, () where that is
  not to be known.
  """
  try:
    found = home.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, MemoryError):
    return ()
  return found.st_dev, found.st_ino


def _is_other(before: tuple[int, ...] | None, now: tuple[int, ...] | None) -> bool:
  return before is None or now is None or (before != now and () not in (before, now))
