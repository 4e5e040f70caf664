"""The only Orbax: a run's checkpoints, of which the last two and the best are kept."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ahm_jax.errors import UserError, full_disk, refusal
from ahm_jax.runs import checkpoint_damage as damage
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_folders as folders
from ahm_jax.runs import checkpoint_reading as reading
from ahm_jax.runs.checkpoint_files import DamagedCheckpoint
from ahm_jax.runs.progress import Progress
from ahm_jax.runtime import places, processes
from ahm_jax.runtime.signals import Stopped
from ahm_jax.task import TrainState


class Checkpoints:
  """The checkpoints of one run. A context manager: leaving it waits for the last save to be on
  disk.

  Several processes that train together all make the same calls, and one checkpoint results.

  Args:
    workdir: the run's directory.

  Raises:
    UserError: its checkpoints are not this program's, or cannot be read.
  """

  def __init__(self, workdir: Path):
    self.workdir = Path(workdir)
    with contextlib.ExitStack() as kept:
      with processes.first_alone(), self._writing():
        if processes.is_first():
          folders.tidy(self.workdir)
          self._keep(kept)
      handlers = {
        files.STATE: ocp.StandardCheckpointHandler(),
        files.METRICS: ocp.JsonCheckpointHandler(files.METRICS),
      }
      self._orbax = ocp.AsyncCheckpointer(
        ocp.CompositeCheckpointHandler(**handlers),
        # Where a folder cannot be made, threads that wait for it would keep the process from
        # ending.
        async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
      )
      self._kept = kept.pop_all()
    self._thread = ThreadPoolExecutor(1)
    self._saving: Future[None] | None = None
    self._was_read_back = False
    self._saved = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    # Closing waits for the other processes, which know nothing of an error in this one.
    together = error is None or isinstance(error, Stopped)
    try:
      if together or not processes.has_others():
        try:
          self._settle()
        finally:
          self._orbax.close()
    finally:
      self._thread.shutdown(wait=False)
      self._kept.close()

  def _keep(self, kept: contextlib.ExitStack) -> None:
    """Watches over the folders that are written into, of which none may be moved meanwhile."""
    for folder in (self.workdir, folders.directory(self.workdir)):
      with files.reading(folder):
        is_there = folder.is_dir()
      if not is_there:
        folder.mkdir(parents=True, exist_ok=True)
      kept.enter_context(places.kept(folder))

  def save(self, state: TrainState, progress: Progress) -> None:
    """Saves in the background, in place of an earlier checkpoint of that step; the next step may
    take `state` over at once.

    Args:
      state: replicated over the devices of all processes (`parallel.of_all`).

    Raises:
      UserError: the save before has failed, or the directory was moved or replaced.
    """
    self._settle()
    parts = state._asdict() if processes.is_first() else {}  # Process 0 writes the numbers.
    digests = {name: files.digest(part) for name, part in parts.items()}
    numbers = files.numbers(files.Saved(progress, digests))
    with self._writing():
      self._orbax.save(
        folders.saving(self.workdir, progress.step),
        args=ocp.args.Composite(
          **{files.STATE: ocp.args.StandardSave(state), files.METRICS: ocp.args.JsonSave(numbers)}
        ),
        custom_metadata=folders.MARK,
      )
    self._saving = self._thread.submit(self._finish, progress.step)
    self._saved = time.monotonic()

  def _finish(self, step: int) -> None:
    """Waits until a checkpoint is written, and puts it in its place."""
    with self._writing():
      self._orbax.wait_until_finished()
      if processes.is_first():
        places.check(folders.directory(self.workdir))
        if not self._was_read_back:
          self._read_back(step)
        folders.commit(self.workdir, step)
        folders.prune(self.workdir)

  def _read_back(self, step: int) -> None:
    """Whether checkpoints can be saved here at all."""
    try:
      files.arrays(folders.saving(self.workdir, step))
    except DamagedCheckpoint as problem:
      raise UserError(
        f'the checkpoint of step {step} was written into {folders.directory(self.workdir)}, but '
        f'read back it {problem}; choose another --workdir, on another disk'
      ) from problem
    self._was_read_back = True

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """What the system refuses is the user's to mend; a full disk is told apart elsewhere."""
    try:
      yield
    except (OSError, ValueError) as error:
      places.check(folders.directory(self.workdir))
      why = refusal(error)
      if why is None or full_disk(error):
        raise
      raise UserError(
        f'{folders.directory(self.workdir)} cannot be written ({why}); run the same command again '
        'when it can; it resumes'
      ) from error

  def minutes_since_save(self) -> float:
    """Since the last save, or since this was made."""
    return (time.monotonic() - self._saved) / 60

  def check(self) -> None:
    """Raises what a save in the background has failed with."""
    if self._saving is not None and self._saving.done():
      self._wait()

  def _wait(self) -> None:
    """Waits for the save in the background; raises what it has failed with."""
    saving, self._saving = self._saving, None
    if saving is not None:
      saving.result()

  def _settle(self) -> None:
    """Waits for the save in the background, in process 0 and then in the others, and makes sure
    that the directory is where it was; raises a UserError.
    """
    with processes.first_alone():
      self._wait()
      places.check(folders.directory(self.workdir))

  def progress(self) -> Progress:
    """That of the latest checkpoint, or of a run that has not begun."""
    self._settle()
    found = Progress()
    with processes.first_alone():
      if processes.is_first() and (steps := folders.steps(self.workdir)):
        home = folders.home(self.workdir, steps[-1])
        with reading.named(home):
          found = files.saved(home).progress
    since_line = found.since_line  # Process 0 alone looks at them.
    return processes.from_first(found._replace(since_line=()))._replace(since_line=since_line)

  def drop_damaged(self, best_too: bool) -> None:
    """Sets aside the latest checkpoint if it is damaged, and says so, until the latest one is
    sound.

    Args:
      best_too: where the best one is damaged, sets aside that one and what came after it: a run
        that resumes before it comes upon it again.

    Raises:
      UserError: none would be left; or one cannot be read. Nothing is moved then.
    """
    with processes.first_alone(), self._writing():
      if processes.is_first():
        for step, problem in damage.unusable(self.workdir, best_too).items():
          folders.set_aside(self.workdir, step, problem)

  def restore_latest(self, target: TrainState) -> TrainState:
    """The latest state.

    Args:
      target: shapes, dtypes and shardings that the state is to have (`parallel.abstract`); the
        devices need not be those it was saved from.

    Raises:
      UserError: what was saved has other shapes, is damaged, or cannot be read.
    """
    return self._restore(target, best=False)

  def restore_best(self, target: TrainState) -> TrainState:
    """The state with the highest score, of equal ones the latest.

    `target` as for `restore_latest`.
    """
    return self._restore(target, best=True)

  def _restore(self, target: TrainState, best: bool) -> TrainState:
    self._settle()
    step = 0
    with processes.first_alone():
      if processes.is_first():
        step = int(reading.chosen(self.workdir, best).name)
    # From process 0: a shared file system may show others an older list.
    return reading.restored(folders.home(self.workdir, processes.from_first(step)), target)


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
  except files.DamagedCheckpoint as problem:
    raise UserError(f'{path} {problem}; export it again') from problem
