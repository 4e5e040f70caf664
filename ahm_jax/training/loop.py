"""The one training loop: resume, dispatch, log, validate, checkpoint, stop early."""

import contextlib
import functools
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ahm_jax.config import RecipeConfig, SafetyConfig
from ahm_jax.data.batches import Source
from ahm_jax.runs import directory, snapshots
from ahm_jax.runs.checkpoint_reading import saved_line
from ahm_jax.runs.checkpoints import Checkpoints, Progress
from ahm_jax.runs.metrics_log import SKIPPED, MetricsLog, SilentLog
from ahm_jax.runtime import flops, parallel, processes, profile_report, signals
from ahm_jax.runtime.profiler import Capture, Profiler
from ahm_jax.runtime.signals import Stopped
from ahm_jax.task import Task, TrainState
from ahm_jax.training.guard import SkippedSteps
from ahm_jax.training.parallel_step import REQUEST, ParallelStep, Request, parallel_step, requests

VALIDATIONS = 10  # In a run whose recipe does not say how often.


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
  """Trains, or resumes a training that was interrupted, or returns what a finished one led to.

  A run that resumes repeats an uninterrupted one exactly: everything random is a function of `seed`
  and of the step. Several processes call this together, with a `source` over the devices of all;
  process 0 alone writes the run's files and prints.

  Args:
    task: what to train.
    source: training batches, of recipe.batch_size images.
    recipe: how often to log and validate, and when to stop early; batch size and optimizer are in
      `source` and `task`.
    workdir: the run's directory, made if it is not there; takes `metrics.jsonl`, `checkpoints/`,
      `snapshots/`, `profile/`.
    seed: of the initial state and of every step's randomness.
    total_steps: length of the training.
    safety: how often to save, and how many steps in a row may be skipped.
    profile_steps: see `Profiler`.

  Returns:
    The state, on one device, of the best validation if the task keeps the best, else the last one.

  Raises:
    UserError: safety.skipped_steps steps in a row were not finite.
    Stopped: a signal came; the state of the step it came at is saved, and the next call resumes
      there.
  """
  workdir = Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  schedule = _schedule(recipe, safety, total_steps)
  init_key, step_key = jax.random.split(jax.random.key(seed))
  saved = functools.partial(saved_line, workdir)
  with signals.at_next_step(saved) as stop, Checkpoints(workdir) as checkpoints:
    checkpoints.drop_damaged(best_too=task.keep_best)
    progress = checkpoints.progress()
    fresh = not progress.step
    state = task.init(init_key) if fresh else jax.eval_shape(task.init, init_key)
    target = parallel.abstract(state, parallel.replicated(source.devices))
    if not schedule.is_over(progress):
      state = (
        parallel.replicate(state, source.devices) if fresh else checkpoints.restore_latest(target)
      )
      key = parallel.replicate(step_key, source.devices)
      with (
        _open_log(workdir, task, source, progress, total_steps) as log,
        _open_profiler(workdir, profile_steps) as profiler,
      ):
        skipped = SkippedSteps(progress.skipped_in_row, safety.skipped_steps, source.names, log.say)
        training = _Training(task, source, schedule, checkpoints, log, skipped, stop)
        training.run(state, key, progress, profiler)
    return parallel.one_copy(
      checkpoints.restore_best(target) if task.keep_best else checkpoints.restore_latest(target)
    )


def _open_log(
  workdir: Path, task: Task, source: Source, progress: Progress, total_steps: int
) -> MetricsLog | SilentLog:
  """The log of process 0; the others write none."""
  log = MetricsLog if processes.is_first() else SilentLog
  length = progress.step, total_steps, source.batch_size
  return log(workdir, task.name, *length, task.shown, progress.since_line)


@contextlib.contextmanager
def _open_profiler(workdir: Path, steps: str) -> Iterator[Profiler]:
  """All processes trace, and wait for the traced steps, alike; only process 0 keeps its trace."""
  with contextlib.ExitStack() as stack:
    folder = workdir / directory.PROFILE
    if steps and not processes.is_first():
      folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    yield stack.enter_context(Profiler(steps, folder))


class _Schedule(NamedTuple):
  """When a run logs, validates and saves, and when it is over."""

  total_steps: int
  log_every: int
  eval_every: int
  patience: int  # Validations in a row without a better score that end the run; 0: none do.
  save_minutes: float  # Between two checkpoints, besides those at validations; 0: no others.

  def validates(self, step: int) -> bool:
    return step > 0 and (step % self.eval_every == 0 or step == self.total_steps)

  def logs(self, step: int) -> bool:
    """Whether a step has a line of its own; that of a validation comes with its scores."""
    return step % self.log_every == 0 and not self.validates(step)

  def saves(self, minutes_since_save: float) -> bool:
    return 0 < self.save_minutes <= minutes_since_save

  def is_over(self, progress: Progress) -> bool:
    out_of_patience = 0 < self.patience <= progress.validations_since_best
    return progress.validated >= self.total_steps or out_of_patience


def _schedule(recipe: RecipeConfig, safety: SafetyConfig, total_steps: int) -> _Schedule:
  eval_every = recipe.eval_every or math.ceil(total_steps / VALIDATIONS)
  return _Schedule(total_steps, recipe.log_every, eval_every, recipe.patience, safety.save_minutes)


@dataclass
class _Training:
  """A run at work: its loop, and what the loop does at a step."""

  task: Task
  source: Source
  schedule: _Schedule
  checkpoints: Checkpoints
  log: MetricsLog | SilentLog
  skipped: SkippedSteps
  stop: signals.StopRequest

  def run(self, state: TrainState, key: jax.Array, progress: Progress, profiler: Profiler) -> None:
    """Trains from `progress.step` until the run is over; its last state, and its best, are then in
    `checkpoints`.

    Raises:
      as `fit`.
    """
    if self.schedule.validates(progress.step) and progress.validated < progress.step:
      # It was stopped before the validation that is due there.
      progress = self._validate_and_save(state, progress, Request.NONE)
    if self.schedule.is_over(progress):
      return
    advance = parallel_step(self.task.step, self.source.devices)
    batches = self.source.inputs(progress.step, self.schedule.total_steps)
    unread = None  # The step before, with its metrics.
    for step, inputs in enumerate(batches, progress.step + 1):
      arguments = self.source.resident, inputs, key, self._request()
      profiler.before(step - 1, state)
      state, metrics = advance(state, *arguments)
      if capture := profiler.after(step - 1, state):
        _print_profile(capture, advance, (state, *arguments), self.source.batch_size)

      # To read the metrics of this step would wait for it, so those of the one before come first.
      request = self._log(*unread) if unread else Request.NONE
      unread = step, metrics
      if request == Request.NONE and not self.schedule.validates(step):
        continue
      request = max(request, self._log(*unread))
      unread = None

      progress = self._validate_and_save(state, progress.at(step), request)
      if self.schedule.is_over(progress):
        return

  def _request(self) -> np.ndarray:
    """What this process requests with the next step; process 0 alone watches the clock."""
    if self.stop.made:
      request = Request.STOP
    elif processes.is_first() and self.schedule.saves(self.checkpoints.minutes_since_save()):
      request = Request.SAVE
    else:
      request = Request.NONE
    return requests(request, self.source.devices)

  def _log(self, step: int, metrics: dict[str, jax.Array]) -> Request:
    """Logs a step, when it is done; returns what the processes requested with it."""
    values = parallel.fetch(metrics)
    request = Request(int(values.pop(REQUEST)))
    self.skipped.count(step, bool(values[SKIPPED]))
    self.log.add(values)
    if self.schedule.logs(step):
      self.log.line(step)
      self.checkpoints.check()
    return request

  def _validate_and_save(self, state: TrainState, progress: Progress, request: Request) -> Progress:
    """Validates where that is due and no process requests a stop, and saves.

    Raises:
      Stopped: a stop was requested, now or during the validation.
    """
    due = self.schedule.validates(progress.step)
    scores = self._validate(state, progress.step) if due and request != Request.STOP else None
    if scores:
      progress = progress.after(progress.step, scores['score'])
      self.log.line(progress.step, scores)
    progress = progress._replace(
      skipped_in_row=self.skipped.in_a_row, since_line=tuple(self.log.since_line)
    )
    self.log.sync()
    self.checkpoints.save(parallel.of_all(state, self.source.devices), progress)
    if request == Request.STOP or (due and not scores):
      raise Stopped
    return progress

  def _validate(self, state: TrainState, step: int) -> dict[str, float] | None:
    """The scores; None where a stop request broke it off, which it does in a run of one process."""
    try:
      with self.stop.interrupts(not processes.has_others()):
        state = parallel.one_copy(state)
        scores = processes.from_first(self.task.evaluate(state))
        if self.task.snapshot:
          with processes.first_alone():
            if processes.is_first():
              snapshots.write(self.checkpoints.workdir, step, self.task.snapshot(state))
        return scores
    except Stopped:
      return None


def _print_profile(
  capture: Capture, advance: ParallelStep, arguments: tuple, batch_size: int
) -> None:
  program, operations = advance.lower(*arguments), flops.count(advance, *arguments)
  summary = profile_report.summarise(capture, program, operations, batch_size)
  print(profile_report.table(summary), flush=True)
