"""How a pre-training step grows with batch, side, workers and rounds: its time, and the memory
that its program asks for.
"""

from collections.abc import Callable
from typing import Any

from ahm_jax.benchmark import trainings
from ahm_jax.benchmark.timing import Figure, alternate, figure
from ahm_jax.benchmark.trainings import Sizes
from ahm_jax.benchmark.workloads import Bench, Result, pretraining_config
from ahm_jax.report import charts
from ahm_jax.report.render import charts_page
from ahm_jax.training.stepper import Stepper

AXES = ('batch', 'side', 'workers', 'rounds')
WORKERS = ROUNDS = (1, 2, 4, 8)


def growth(bench: Bench) -> Result:
  """AHM with the light trunk: one of batch, side, workers and rounds at a time, the others at
  their smallest.
  """
  figures = []
  for axis, value, build in _points(bench.sizes):
    try:
      training = build()
      memory = training.lowered().compile().memory_analysis()
      seconds = alternate({'step': training}, bench.seconds / 20)['step']
    except RuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      continue  # What does not fit has no time.
    figures.append(figure('growth', f'{axis}={value}', 'ms', [1e3 * x for x in seconds]))
    if memory is not None:
      held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
      figures.append(figure('growth', f'{axis}={value}', 'MiB', [held / 2**20]))
  return Result(figures, {})


def _points(sizes: Sizes) -> list[tuple[str, int, Callable[[], Stepper]]]:
  smallest = {
    'batch': sizes.growth_batches[0],
    'side': sizes.growth_sides[0],
    'workers': 1,
    'rounds': 1,
  }
  ranges = {
    'batch': sizes.growth_batches,
    'side': sizes.growth_sides,
    'workers': WORKERS,
    'rounds': ROUNDS,
  }

  def build(batch: int, side: int, workers: int, rounds: int) -> Stepper:
    fields: dict[str, Any] = {
      'data__image_size': side,
      'masking__workers': workers,
      'masking__rounds': rounds,
    }
    split = trainings.random_split(2 * batch, side)
    return trainings.pretraining(pretraining_config(sizes, batch, **fields), split)

  def point(axis: str, value: int) -> tuple[str, int, Callable[[], Stepper]]:
    at = smallest | {axis: value}
    if axis == 'workers':  # At one total batch, or they would be batches.
      at['batch'] = max(WORKERS)
    return axis, value, lambda: build(**at)

  return [point(axis, value) for axis in AXES for value in ranges[axis]]


def growth_page(figures: list[Figure], device: str) -> str:
  """A page with a chart of time and one of memory over each of AXES."""
  note = f'AHM with the light trunk on {device}. What did not fit into memory has no point.'
  panels = [
    _chart(figures, axis, unit, title)
    for axis in AXES
    for unit, title in (('ms', 'Step, ms'), ('MiB', 'Memory, MiB'))
  ]
  return charts_page('Growth of a pre-training step', note, panels)


def _chart(figures: list[Figure], axis: str, unit: str, title: str) -> str:
  found = [
    item
    for item in figures
    if item.workload == 'growth' and item.unit == unit and item.name.startswith(axis + '=')
  ]
  values = [int(item.name.split('=')[1]) for item in found]
  curve = ('ahm', values, [item.median for item in found])
  return charts.curve_chart([curve], charts.style_numbers(['ahm']), title, 'Growth', over=axis)
