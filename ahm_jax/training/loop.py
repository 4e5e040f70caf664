"""The one training loop: dispatch, log, validate, checkpoint, stop early, resume."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

from ahm_jax import interruption, parallel, processes, snapshots, trace
from ahm_jax.checkpoint import Checkpoints, Progress
from ahm_jax.config import RecipeConfig
from ahm_jax.data.source import Source
from ahm_jax.errors import UserError
from ahm_jax.profiling import Profiler
from ahm_jax.training.state import Task, TrainState
from ahm_jax.writer import Silent, Writer

VALIDATIONS = 10  # In a run whose recipe does not say how often.


def fit(
  task: Task, source: Source, recipe: RecipeConfig, workdir: Path, seed: int, total_steps: int, profile_steps: str = ''
) -> TrainState:
  """Trains, or goes on with a training that was interrupted, or returns what a finished one led to.

  A run that resumes repeats an uninterrupted one exactly: everything random is a function of `seed` and of the step. Several
  processes call this together, with a `source` over the devices of all; process 0 alone writes what the run tells.

  Args:
    task: what to train.
    source: training batches, of recipe.batch_size images.
    recipe: how often to log and validate, and when to stop early; batch size and optimizer are in `source` and `task`.
    workdir: the run's directory, made if it is not there; takes `metrics.jsonl`, `checkpoints/`, `snapshots/`, `profile/`.
    seed: of the initial state and of every step's randomness.
    total_steps: length of the training.
    profile_steps: see `Profiler`.

  Returns:
    The state, on one device, of the best validation if the task keeps the best, else the last one.

  Raises:
    UserError: the loss is not finite any more.
  """
  workdir = Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  init_key, step_key = jax.random.split(jax.random.key(seed))
  with Checkpoints(workdir) as checkpoints:
    progress = checkpoints.progress()
    fresh = not progress.step
    state = task.init(init_key) if fresh else jax.eval_shape(task.init, init_key)
    target = parallel.abstract(state, parallel.replicated(source.devices))
    if not _over(progress, recipe, total_steps):
      state = parallel.replicate(state, source.devices) if fresh else checkpoints.restore_latest(target)
      key = parallel.replicate(step_key, source.devices)
      open_writer = Writer if processes.is_first() else Silent
      with (
        open_writer(workdir, task.name, progress.step, total_steps, source.batch_size, recipe.log_every, task.shown) as writer,
        tempfile.TemporaryDirectory() as scratch,
        Profiler(profile_steps, workdir / 'profile' if processes.is_first() else Path(scratch)) as profiler,
        interruption.not_lost() as check_ctrl_c,
      ):
        _train(task, source, recipe, total_steps, state, key, progress, checkpoints, writer, profiler, check_ctrl_c)
    return parallel.one_copy(checkpoints.restore_best(target) if task.keep_best else checkpoints.restore_latest(target))


def _train(
  task: Task,
  source: Source,
  recipe: RecipeConfig,
  total_steps: int,
  state: TrainState,
  key: jax.Array,
  progress: Progress,
  checkpoints: Checkpoints,
  writer: Writer,
  profiler: Profiler,
  check_ctrl_c: Callable[[], None],
) -> None:
  """Trains from `progress.step` until the run is over; its last state, and its best, are then in `checkpoints`."""
  advance = parallel.over_all(task.step, source.devices)
  eval_every = recipe.eval_every or math.ceil(total_steps / VALIDATIONS)
  in_flight = None
  for step, inputs in enumerate(source.inputs(progress.step, total_steps), progress.step + 1):
    check_ctrl_c()
    profiler.before(step - 1, state)
    state, metrics = advance(state, source.resident, inputs, key)
    if capture := profiler.after(step - 1, state):
      lowered = advance.lower(state, source.resident, inputs, key)
      print(trace.table(trace.summarise(capture, lowered, source.batch_size)), flush=True)
    if in_flight:
      _record(writer, *in_flight)
    in_flight = step, metrics
    if step % eval_every and step < total_steps:
      continue
    scores = processes.from_first(task.evaluate(parallel.one_copy(state)))
    if task.snapshot and processes.is_first():
      snapshots.write(checkpoints.workdir, step, task.snapshot(parallel.one_copy(state)))
    _record(writer, *in_flight, scores)
    in_flight = None
    progress = progress.after(step, scores['score'])
    checkpoints.save(parallel.of_all(state, source.devices), progress)
    if _over(progress, recipe, total_steps):
      return


def _over(progress: Progress, recipe: RecipeConfig, total_steps: int) -> bool:
  out_of_patience = 0 < recipe.patience <= progress.validations_since_best
  return progress.step >= total_steps or out_of_patience


def _record(writer: Writer, step: int, metrics: dict[str, jax.Array], scores: dict[str, float] | None = None) -> None:
  values = parallel.fetch(metrics)
  if not math.isfinite(values['loss']):
    raise UserError(
      f'the loss is {values["loss"]} at step {step}; lower the learning rate (config.train.learning_rate) in a new --workdir'
    )
  writer.add(step, values, scores)
