"""What a training says of itself, when it begins and when it has ended."""

import math

import jax

from ahm_jax.pipeline.setup import Plan, Run
from ahm_jax.runs import metrics_log
from ahm_jax.runtime import parallel
from ahm_jax.task import TrainState

_LARGE = 64 * 128  # Width of a U-Net times side of its images from which a CPU takes hours.


def beginning(run: Run, plan: Plan, done: int) -> list[str]:
  """Lines to begin with: what is trained, for how long and on what, or where it goes on.

  Args:
    done: steps that were done before.
  """
  if done >= plan.steps:
    return []
  if done:
    return [f'{run.stage} resumes at step {done:,} of {plan.steps:,}']
  devices, recipe = parallel.all_devices(), run.recipe
  images = recipe.batch_size + sum(beside.batch_size for beside in plan.beside)
  kind = 'GPU' if devices[0].platform == 'gpu' else devices[0].platform.upper()
  count = f'{len(devices)} {kind}s' if len(devices) > 1 else f'1 {kind}'
  steps = f'{plan.steps:,} steps{_why_so_many(run, plan)} of {images} images'
  lines = [f'{run.stage}: {steps} on {count}, {run.config.model.dtype}; the first one compiles']
  data, width = run.config.data, run.config.model.unet_width
  if kind == 'CPU' and width * data.image_size >= _LARGE:
    lines.append(
      f"no GPU is used, and {data.image_size} pixels at model.unet_width={width} are a GPU's work; "
      '--config=folder:cpu is for CPUs'
    )
  return lines


def _why_so_many(run: Run, plan: Plan) -> str:
  recipe = run.recipe
  if recipe.steps is None or recipe.steps >= plan.steps:
    return ''
  return (
    f' ({run.stage.recipe}.min_epochs={recipe.min_epochs:g} asks for more than {recipe.steps:,})'
  )


def ending(run: Run, plan: Plan, state: TrainState, trained: bool, seconds: float) -> str:
  """The line to end with: how long it took, and what came out.

  Args:
    state: that the run keeps.
    trained: whether any step was done now.
    seconds: that this took.
  """
  took = f'done in {clock(seconds)}' if trained else 'was finished already'
  return f'{run.stage}: {took}{_best(run, plan, int(jax.device_get(state.step)))}'


def _best(run: Run, plan: Plan, step: int) -> str:
  """The validation of the step that is kept."""
  name = f'validation/{plan.task.shown}'
  found = [line.get(name) for line in metrics_log.read(run.workdir) if line['step'] == step]
  value = found[-1] if found else None
  if value is None or not math.isfinite(value):
    return ''
  what = plan.task.shown.replace('_', ' ')
  best = 'best ' if plan.task.keep_best else ''
  over = f' ({len(plan.validation)} images)' if plan.task.keep_best else ''
  return f'; {best}validation {what} {value:.3f} at step {step:,}{over}'


def clock(seconds: float) -> str:
  """3:06, or 1:02:03."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
