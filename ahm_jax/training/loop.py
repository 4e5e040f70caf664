"""The one training loop: dispatch, log, validate, checkpoint, stop early, resume."""

import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax

from ahm_jax.config import RecipeConfig, SafetyConfig
from ahm_jax.data.batches import Source
from ahm_jax.errors import UserError
from ahm_jax.runs import snapshots
from ahm_jax.runs.checkpoints import Checkpoints, Progress
from ahm_jax.runs.metrics_log import SKIPPED, Silent, Writer
from ahm_jax.runtime import flops, parallel, processes, signals, trace
from ahm_jax.runtime.parallel import REQUEST
from ahm_jax.runtime.profiler import Profiler
from ahm_jax.runtime.signals import Stopped
from ahm_jax.task import Task, TrainState
from ahm_jax.training.guard import guarded

VALIDATIONS = 10  # In a run whose recipe does not say how often.
IMAGES_NAMED = 12  # At most so many, where a step is not taken.
NOTHING, SAVE, STOP = range(3)  # What a process may request; where they differ, the most is done.


def fit(
  task: Task,
  source: Source,
  recipe: RecipeConfig,
  workdir: Path,
  seed: int,
  total_steps: int,
  safety: SafetyConfig = SafetyConfig(),  # noqa: B008
  profile_steps: str = '',
) -> TrainState:
  """Trains, or goes on with a training that was interrupted, or returns what a finished one led to.

  A run that resumes repeats an uninterrupted one exactly: everything random is a function of `seed`
  and of the step. Several processes call this together, with a `source` over the devices of all;
  process 0 alone writes what the run tells.

  Args:
    task: what to train.
    source: training batches, of recipe.batch_size images.
    recipe: how often to log and validate, and when to stop early; batch size and optimizer are in
      `source` and `task`.
    workdir: the run's directory, made if it is not there; takes `metrics.jsonl`, `checkpoints/`,
      `snapshots/`, `profile/`.
    seed: of the initial state and of every step's randomness.
    total_steps: length of the training.
    safety: how often to save, and how many steps in a row may fail.
    profile_steps: see `Profiler`.

  Returns:
    The state, on one device, of the best validation if the task keeps the best, else the last one.

  Raises:
    UserError: safety.skipped_steps steps in a row were not finite.
    Stopped: SIGINT or SIGTERM came; the state of the step it came at is saved, and the next call
      goes on from there.
  """
  workdir = Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  init_key, step_key = jax.random.split(jax.random.key(seed))
  with signals.at_next_step() as user, Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too=task.keep_best)
    progress = checkpoints.progress()
    fresh = not progress.step
    state = task.init(init_key) if fresh else jax.eval_shape(task.init, init_key)
    target = parallel.abstract(state, parallel.replicated(source.devices))
    if not _over(progress, recipe, total_steps):
      state = (
        parallel.replicate(state, source.devices) if fresh else checkpoints.restore_latest(target)
      )
      key = parallel.replicate(step_key, source.devices)
      first = processes.is_first()
      open_writer = Writer if first else Silent
      about = (progress.step, total_steps, source.batch_size, task.shown, progress.since_line)
      with (
        open_writer(workdir, task.name, *about) as writer,
        tempfile.TemporaryDirectory() as scratch,
        Profiler(profile_steps, workdir / 'profile' if first else Path(scratch)) as profiler,
      ):
        _Training(
          task, source, recipe, total_steps, safety, key, checkpoints, writer, profiler, user
        ).run(state, progress)
    return parallel.one_copy(
      checkpoints.restore_best(target) if task.keep_best else checkpoints.restore_latest(target)
    )


@dataclass
class _Training:
  """A training at work."""

  task: Task
  source: Source
  recipe: RecipeConfig
  total_steps: int
  safety: SafetyConfig
  key: jax.Array
  checkpoints: Checkpoints
  writer: Writer | Silent
  profiler: Profiler
  user: signals.StopRequest
  skipped: int = 0  # Steps in a row that were not taken.
  saved: float = field(default_factory=time.monotonic)

  def run(self, state: TrainState, progress: Progress) -> None:
    """Trains from `progress.step` until the run is over; its last state, and its best, are then in
    `checkpoints`.

    Raises:
      as `fit`.
    """
    self.skipped = progress.skipped_in_row
    if (
      self._validates(progress.step) and progress.validated < progress.step
    ):  # It was stopped before it could.
      progress = self._validate_and_save(state, progress, NOTHING)
      if _over(progress, self.recipe, self.total_steps):
        return
    advance = parallel.over_all(guarded(self.task.step), self.source.devices)
    in_flight = None
    for step, inputs in enumerate(
      self.source.inputs(progress.step, self.total_steps), progress.step + 1
    ):
      arguments = (self.source.resident, inputs, self.key, self._request())
      self.profiler.before(step - 1, state)
      state, metrics = advance(state, *arguments)
      if capture := self.profiler.after(step - 1, state):
        program = advance.lower(state, *arguments), flops.count(advance, state, *arguments)
        print(trace.table(trace.summarise(capture, *program, self.source.batch_size)), flush=True)
      request = self._record(*in_flight) if in_flight else NOTHING
      in_flight = step, metrics
      if request == NOTHING and not self._validates(step):
        continue
      request = max(request, self._record(*in_flight))
      in_flight = None
      progress = self._validate_and_save(state, progress.at(step), request)
      if _over(progress, self.recipe, self.total_steps):
        return

  def _validates(self, step: int) -> bool:
    eval_every = self.recipe.eval_every or math.ceil(self.total_steps / VALIDATIONS)
    return step > 0 and (step % eval_every == 0 or step == self.total_steps)

  def _request(self) -> jax.Array:
    due = 0 < self.safety.save_minutes * 60 <= time.monotonic() - self.saved
    request = STOP if self.user.stop else SAVE if due and processes.is_first() else NOTHING
    return parallel.requests(request, self.source.devices)

  def _record(self, step: int, metrics: dict[str, jax.Array]) -> int:
    """Takes down the metrics of a step; returns the request of all processes."""
    values = parallel.fetch(metrics)
    request = int(values.pop(REQUEST))
    self.skipped = self.skipped + 1 if values[SKIPPED] else 0
    if self.skipped:
      self._say_skipped(step)
    self.writer.add(values)
    if step % self.recipe.log_every == 0 and not self._validates(step):
      self.writer.line(step)
      self.checkpoints.check()
    return request

  def _say_skipped(self, step: int) -> None:
    names = self.source.names(step - 1)
    images = ', '.join(names[:IMAGES_NAMED]) + (', ...' if len(names) > IMAGES_NAMED else '')
    if self.skipped == 1:
      self.writer.say(
        f'step {step} is not taken: its loss or its gradient is not finite; its images are {images}'
      )
    if self.skipped >= self.safety.skipped_steps:
      raise UserError(
        f'no step from {step - self.skipped + 1} to {step} could be taken: the loss or the gradient was not finite; the images '
        f'of the last are {images}; lower the learning rate of its recipe in a new --workdir'
      )

  def _validate_and_save(self, state: TrainState, progress: Progress, request: int) -> Progress:
    """Validates where that is due and nobody requests a stop, and saves.

    Raises:
      Stopped: somebody requested a stop, or did so while it was validated.
    """
    due = self._validates(progress.step)
    scores = self._scores(state, progress.step) if due and request < STOP else None
    if scores:
      progress = progress.after(progress.step, scores['score'])
      self.writer.line(progress.step, scores)
    progress = progress._replace(
      skipped_in_row=self.skipped, since_line=tuple(self.writer.since_line)
    )
    self.writer.sync()
    self.checkpoints.save(parallel.of_all(state, self.source.devices), progress)
    self.saved = time.monotonic()
    if request == STOP or (due and not scores):
      raise Stopped
    return progress

  def _scores(self, state: TrainState, step: int) -> dict[str, float] | None:
    """Those of a validation; None where the user stopped it, for which several processes do not."""
    try:
      with self.user.interrupts(not processes.has_others()):
        state = parallel.one_copy(state)
        scores = processes.from_first(self.task.evaluate(state))
        if self.task.snapshot and processes.is_first():
          snapshots.write(self.checkpoints.workdir, step, self.task.snapshot(state))
        return scores
    except Stopped:
      return None


def _over(progress: Progress, recipe: RecipeConfig, total_steps: int) -> bool:
  out_of_patience = 0 < recipe.patience <= progress.validations_since_best
  return progress.validated >= total_steps or out_of_patience
