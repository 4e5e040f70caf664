"""The only Orbax: a run's checkpoints, of which the last two and the best are kept."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runtime import processes, trees
from ahm_jax.runtime.signals import Stopped
from ahm_jax.task import TrainState


class Progress(NamedTuple):
  """How far a run is; what a checkpoint holds beside the tensors."""

  step: int = 0
  # Of the validation at this step; larger is better. Without a validation, the lowest.
  score: float = -math.inf
  best_score: float = -math.inf
  validations_since_best: int = 0
  validated: int = 0  # Step of the last validation.
  skipped_in_row: int = 0  # The last so many steps were skipped.
  since_line: Sequence[dict[str, float]] = ()  # Metrics of steps that metrics.jsonl lacks yet.

  def at(self, step: int) -> 'Progress':
    """The progress at a later step, without a validation."""
    return self._replace(step=step, score=-math.inf)

  def after(self, step: int, score: float) -> 'Progress':
    """The progress after one more validation. A score that is not a number counts as the lowest."""
    score = -math.inf if math.isnan(score) else score
    better = score > self.best_score
    return self._replace(
      step=step,
      score=score,
      best_score=score if better else self.best_score,
      validations_since_best=0 if better else self.validations_since_best + 1,
      validated=step,
    )


def _score(numbers: dict[str, float]) -> float:
  return numbers['score']


class Checkpoints:
  """The checkpoints of one run. A context manager: leaving it waits for the last save to be on
  disk.

  Several processes that train together all make the same calls, and one checkpoint results.

  Args:
    workdir: the run's directory.
  """

  def __init__(self, workdir: Path):
    self.workdir = Path(workdir)
    with processes.first_alone():
      if processes.is_first():
        files.tidy(self.workdir)
    options = ocp.CheckpointManagerOptions(
      best_fn=_score,
      preservation_policy=AnyPreservationPolicy([LatestN(2), BestN(get_metric_fn=_score, n=1)]),
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(files.directory(self.workdir), options=options)
    self._saved = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    # Closing waits for the other processes, which know nothing of an error in this one.
    together = error is None or isinstance(error, Stopped)
    if together or not processes.has_others():
      self._manager.close()

  def save(self, state: TrainState, progress: Progress) -> None:
    """Saves in the background, in place of an earlier checkpoint of that step; the next step may
    take `state` over at once.

    Args:
      state: replicated over the devices of all processes (`parallel.of_all`).
    """
    if progress.step in self._manager.all_steps():
      self._manager.wait_until_finished()
      self._manager.delete(progress.step)
    parts = state._asdict() if processes.is_first() else {}  # Process 0 writes the numbers.
    digests = {name: files.digest(part) for name, part in parts.items()}
    numbers = {**progress._asdict(), files.DIGESTS: digests}
    self._manager.save(progress.step, args=ocp.args.StandardSave(state), metrics=numbers)
    self._saved = time.monotonic()

  def minutes_since_save(self) -> float:
    """Since the last save, or since this was made."""
    return (time.monotonic() - self._saved) / 60

  def check(self) -> None:
    """Raises what a save in the background has failed with."""
    self._manager.check_for_errors()

  def progress(self) -> Progress:
    """That of the latest checkpoint, or of a run that has not begun."""
    step = self._manager.latest_step()
    saved = {} if step is None else self._manager.metrics(step)
    found = Progress(**{name: saved[name] for name in Progress._fields if name in saved})
    since_line = tuple(found.since_line)  # Process 0 alone looks at them.
    return processes.from_first(found._replace(since_line=()))._replace(since_line=since_line)

  def drop_damaged(self, best_too: bool) -> None:
    """Sets aside the latest checkpoint if it is damaged, and says so, until the latest one is
    sound.

    Args:
      best_too: where the best one is damaged, sets aside that one and what came after it: a run
        that resumes before it comes upon it again.
    """
    dropped = True
    while dropped:
      with processes.first_alone():
        dropped = processes.is_first() and self._drop(best_too)
      dropped = processes.from_first(dropped)
      if dropped:
        self._manager.reload()

  def _drop(self, best_too: bool) -> bool:
    """Whether a checkpoint was damaged; it is set aside then, and so is what came after it."""
    needed = {self._manager.latest_step()} | ({self._manager.best_step()} if best_too else set())
    for step in sorted(needed - {None}):
      try:
        files.arrays(files.directory(self.workdir) / str(step))
      except files.Damaged as problem:
        for later in sorted(self._manager.all_steps()):
          if later >= step:
            files.set_aside(
              self.workdir,
              later,
              str(problem) if later == step else f'followed on that of step {step}',
            )
        return True
    return False

  def restore_latest(self, target: TrainState) -> TrainState:
    """The latest state.

    Args:
      target: shapes, dtypes and shardings that the state is to have (`parallel.abstract`); the
        devices need not be those it was saved from.

    Raises:
      UserError: what was saved has other shapes.
    """
    return self._restore(self._manager.latest_step(), target)

  def restore_best(self, target: TrainState) -> TrainState:
    """The state with the highest score, of equal ones the latest.

    `target` as for `restore_latest`.
    """
    return self._restore(self._manager.best_step(), target)

  def _restore(self, step: int | None, target: TrainState) -> TrainState:
    self._manager.wait_until_finished()
    # From process 0: a shared file system may show others an older list.
    step = processes.from_first(0 if step is None else step)
    _check_fits(files.directory(self.workdir) / str(step), target)
    return self._manager.restore(step, args=ocp.args.StandardRestore(target))


def _check_fits(home: Path, target: TrainState) -> None:
  with _named(home):
    problem = trees.shape_mismatch(files.shapes(home), target)
  if problem:
    raise UserError(f'{home}: {problem}; a checkpoint and run.json of one run belong together')


@contextlib.contextmanager
def _named(home: Path) -> Iterator[None]:
  """Says which checkpoint it is that is damaged."""
  try:
    yield
  except files.Damaged as problem:
    raise UserError(
      f"{home}: the checkpoint {problem}; run that run's own command again; "
      'it resumes from the checkpoint before'
    ) from problem


def latest_step(workdir: Path) -> int:
  """That of the latest checkpoint in a run's directory, 0 where there is none.

  For a message, since it loads nothing.
  """
  return max(files.steps(workdir), default=0)


def load_state(workdir: Path, target: TrainState) -> TrainState:
  """The latest state of another run, which may be at work meanwhile: nothing is changed there.

  Args:
    workdir: that run's directory.
    target: as for `Checkpoints.restore_latest`.

  Raises:
    UserError: there is no checkpoint, it is damaged, or what was saved has other shapes.
  """
  home = _saved(workdir)[-1]
  _check_fits(home, target)
  with _named(home):
    files.arrays(home)  # Which tells damage.
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(home / files.STATE, target)


def load_variables(workdir: Path, best: bool) -> dict[str, Any]:
  """What another run learnt, whatever its task and optimizer.

  Args:
    workdir: that run's directory.
    best: its best checkpoint, of equal ones the latest; or its latest.

  Returns:
    {'step', 'params', 'batch_stats'} with NumPy arrays in nested dicts; without norms 'batch_stats'
    is {}.

  Raises:
    UserError: there is no checkpoint, or it is damaged.
  """
  homes = _saved(workdir)
  home = max(reversed(homes), key=_score_at) if best else homes[-1]
  with _named(home):
    return {'batch_stats': {}, **files.arrays(home, ('step', 'params', 'batch_stats'))}


def _saved(workdir: Path) -> list[Path]:
  """The folders of a run's checkpoints, the latest last; raises a UserError where there is none."""
  homes = [files.directory(workdir) / str(step) for step in files.steps(workdir)]
  # One without metrics is being deleted.
  homes = [home for home in homes if (home / files.METRICS).is_dir()]
  if not homes:
    raise UserError(
      f'{workdir} holds no checkpoint; give the directory of a run that has saved one'
    )
  return homes


def _score_at(home: Path) -> float:
  with _named(home):
    return _score(files.numbers(home))


def write_variables(path: Path, variables: Any) -> None:
  """Writes arrays in nested dicts to a new folder, by themselves, as Orbax's
  StandardCheckpointer has them.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(Path(path).absolute(), variables)


def read_variables(path: Path) -> dict[str, Any]:
  """NumPy arrays in nested dicts, 'params' and 'batch_stats', from what `write_variables` wrote.

  Raises:
    UserError: they cannot be read.
  """
  try:
    return files.stored(Path(path).absolute(), ('params', 'batch_stats'))
  except files.Damaged as problem:
    raise UserError(f'{path} {problem}; export it again') from problem
