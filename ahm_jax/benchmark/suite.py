"""All workloads one after another, and what they make together: benchmark.json's contents, and a
table.
"""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from ahm_jax.benchmark import growth, predicting, starting, workloads
from ahm_jax.benchmark.timing import Figure
from ahm_jax.benchmark.trainings import SIZES
from ahm_jax.benchmark.workloads import Bench, Result

WORKLOADS: dict[str, Callable[[Bench], Result]] = {
  'unet_train': workloads.unet_train,
  'unet_infer': workloads.unet_infer,
  'pretrain': workloads.pretrain,
  'unlabelled': workloads.unlabelled,
  'vgg16': workloads.vgg16,
  'public_loop': workloads.public_loop,
  'input': workloads.inputs,
  'start': starting.start,
  'predict': predicting.predicting,
  'predict_memory': predicting.memory,
  'growth': growth.growth,
  'scaling': workloads.scaling,
}
RATIOS = (
  'unet_train_vs_torch',
  'unet_infer_vs_torch',
  'ahm_light_vs_uniform_time',
  'ahm_vgg16_vs_uniform_time',
  'unlabelled_vs_labelled_time',
  'streamed_vs_resident',
  'ahm_vs_public_loop',
  'predict_vs_forward',
  'predict_vs_forward_file_bound',
  'predict_memory_10000_vs_100',
)
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch')


def measure(names: Sequence[str], say: Callable[[str], None]) -> dict:
  """Runs the workloads named, of WORKLOADS, and says each figure as soon as it is there.

  Returns:
    {'versions', 'device', 'figures', 'ratios', 'ratio_ranges'}. A figure has 'workload', 'name',
    'unit', 'median', 'low', 'high' and 'samples'. 'ratios' has all of RATIOS, medians over rounds,
    and None for what was not measured; 'ratio_ranges' has the lowest and highest of those that
    were.
  """
  device = jax.local_devices()[0]
  bench = Bench(device.platform, SIZES.get(device.platform, SIZES['gpu']))
  figures: list[Figure] = []
  ratios: dict[str, list[float]] = {}
  for name in names:
    say(f'{name}: {_first_line(WORKLOADS[name])}')
    result = WORKLOADS[name](bench)
    for item in result.figures:
      say(_row(item.name, item.median, item.low, item.high, item.unit))
    for key, values in result.ratios.items():
      say(_row(key, statistics.median(values), min(values), max(values), 'ratio'))
    figures += result.figures
    ratios |= result.ratios
  return {
    'versions': {'python': platform.python_version(), **_versions()},
    'device': {
      'platform': device.platform,
      'kind': _kind(device),
      'count': jax.local_device_count(),
      'cores': _cores(),
    },
    'figures': [item._asdict() for item in figures],
    'ratios': dict.fromkeys(RATIOS)
    | {key: statistics.median(values) for key, values in ratios.items()},
    'ratio_ranges': {key: [min(values), max(values)] for key, values in ratios.items()},
  }


def _first_line(function: Callable) -> str:
  return (function.__doc__ or '').partition('\n')[0]


def _row(name: str, median: float, low: float, high: float, unit: str) -> str:
  return f'  {name:44} {median:12.4g}   {low:10.4g} to {high:<10.4g} {unit}'


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _kind(device: jax.Device) -> str:
  """The card's name, or the processor's where Linux tells it."""
  processors = Path('/proc/cpuinfo')
  if device.platform == 'cpu' and processors.exists():
    lines = processors.read_text(encoding='utf-8', errors='replace').splitlines()
    return next(
      (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')),
      device.device_kind,
    )
  return device.device_kind


def _cores() -> int:
  return len(os.sched_getaffinity(0))
