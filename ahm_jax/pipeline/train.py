"""How a run of any stage is trained."""

import contextlib
import sys
import time
from pathlib import Path

from ahm_jax.config import Config
from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError, printable
from ahm_jax.pipeline import announcements
from ahm_jax.pipeline.setup import Plan, Run, data_summary, open_run
from ahm_jax.runs import checkpoint_reading, directory, provenance
from ahm_jax.runs.stage import Stage
from ahm_jax.runtime import json_files, processes
from ahm_jax.task import TrainState
from ahm_jax.training.loop import fit
from ahm_jax.weights import loading


def train(stage: Stage, config: Config, workdir: Path, data: Dataset | None = None) -> TrainState:
  """Trains a stage in `workdir`, or resumes, or returns what a finished training led to.

  Args:
    data: where it is loaded already.

  Raises:
    UserError: something would stop it, see `open_run` and the plan of the stage; nothing is trained
      then.
  """
  return train_run(open_run(stage, config, workdir, data))


def train_run(run: Run) -> TrainState:
  """`train`, of a run that was opened."""
  plan = run.stage.plan(run)
  assert (plan.task.name, plan.task.keep_best) == (run.stage.name, run.stage.keeps_best)
  batches = plan.source(run)
  with contextlib.ExitStack() as stack:
    with processes.first_alone():
      if processes.is_first():
        stack.enter_context(directory.owned(run.workdir))
      provenance.check_same(run.workdir, plan.images(run))
      if processes.is_first():
        begin(run, plan)
      else:
        directory.check(run.workdir, run.stage.name, run.config)
    before, start = checkpoint_reading.latest_step(run.workdir), time.monotonic()
    _say(*announcements.beginning(run, plan, before))
    state = fit(
      plan.task,
      batches,
      run.recipe,
      run.workdir,
      seed=run.config.seed,
      total_steps=plan.steps,
      safety=run.config.safety,
      profile_steps=run.config.profile.steps,
    )
    after = checkpoint_reading.latest_step(run.workdir)
    seconds = time.monotonic() - start
    _say(announcements.ending(run, plan, state, after > before, seconds))
    return state


def _say(*lines: str) -> None:
  for line in lines if processes.is_first() else ():
    print(printable(line), file=sys.stderr, flush=True)


def begin(run: Run, plan: Plan) -> None:
  """Claims the directory, and writes down what the run learns from and what it took over."""
  _check_classes(run, plan)
  directory.claim(run.workdir, run.stage.name, run.config)
  summary = data_summary(run.data, len(plan.indices))
  json_files.write_json(run.workdir / directory.DATA, summary)
  provenance.begin(run.workdir, plan.images(run), run.start.run)
  if plan.class_names:
    json_files.write_json(run.workdir / directory.CLASSES, plan.class_names)
  if plan.imported:
    json_files.write_json(run.workdir / directory.IMPORTED, plan.imported)
    print('\n'.join(map(printable, loading.lines(plan.imported))))


def _check_classes(run: Run, plan: Plan) -> None:
  held = directory.class_names(run.workdir)
  if held and held != tuple(plan.class_names):
    raise UserError(
      f'{run.workdir} holds a run that began with the classes {held}, and they are '
      f'{tuple(plan.class_names)} now; choose another --workdir, or restore the labels'
    )
