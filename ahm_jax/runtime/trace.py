"""Reading a trace: how the time of a step divides among kinds of operation, and which operations
cost most.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData

KINDS = ('convolution', 'matrix', 'elementwise', 'copy', 'communication', 'input', 'host')
COSTLIEST = 5

_KERNELS = {  # The first pattern that is found in a kernel's name says its kind.
  '^mem': 'copy',
  'nccl': 'communication',
  'conv(?!ert)|cudnn|[fdw](prop|grad)': 'convolution',
  'gemm|cublas|cutlass|nvjet': 'matrix',
  'transpose|concatenate|slice': 'copy',
}
_LONGEST = 48  # Characters of a kernel's name that are shown.


class Event(NamedTuple):
  """One operation, once, on one device."""

  # As in the program; 'input' for a copy from the host; 'command_buffer...' for all that is in a
  # CUDA graph.
  name: str
  device: int
  start: float  # Nanoseconds.
  duration: float
  kernel: str = ''  # On a GPU: what ran.


class Operation(NamedTuple):
  name: str
  kind: str
  source: str  # Which layer or function it comes from.
  milliseconds: float  # A step.


def read(directory: Path) -> list[Event]:
  """The operations in the newest trace below a directory: those of a device's streams, or of the
  host's threads.
  """
  files = sorted(
    Path(directory).glob('plugins/profile/*/*.xplane.pb'), key=lambda path: path.stat().st_mtime
  )
  planes = list(ProfileData.from_file(str(files[-1])).planes)
  on_devices = [plane for plane in planes if plane.name.startswith('/device:GPU')]
  events = []
  for number, plane in enumerate(on_devices or planes):
    for line in plane.lines:
      if on_devices and not line.name.startswith('Stream'):
        continue
      for event in line.events:
        stats = dict(event.stats)
        if event.name.startswith('MemcpyH2D'):
          events.append(Event('input', number, event.start_ns, event.duration_ns))
        elif 'hlo_op' in stats:
          device = number if on_devices else stats.get('device_ordinal', 0)
          kernel = event.name if on_devices else ''
          events.append(Event(stats['hlo_op'], device, event.start_ns, event.duration_ns, kernel))
  return events


def divide(
  events: Iterable[Event],
  program: Mapping[str, tuple[str, str]],
  steps: int,
  step_milliseconds: float,
) -> tuple[dict[str, float], list[Operation]]:
  """Divides a step among kinds, in milliseconds, and finds the costliest operations.

  Where operations run side by side, each counts for its share of the time in which any runs. What
  no operation covers is the host's. Devices are averaged.

  Args:
    program: kind and source of every operation, see `hlo.describe`; events of others (containers,
      other programs) are left out, but for kernels of a GPU.
  """
  program = {**program, 'input': ('input', 'from the host')}
  by_kernel = {re.sub(r'[.\-]', '_', name): name for name in program}
  by_device = collections.defaultdict(list)
  for event in events:
    if event.name not in program and event.kernel:
      event = event._replace(name=by_kernel.get(event.kernel) or _short_kernel(event.kernel))
      program.setdefault(event.name, (_kernel_kind(event.kernel), 'in a CUDA graph'))
    if event.name in program:
      by_device[event.device].append(event)
  milliseconds: dict[str, float] = collections.defaultdict(float)
  for own in by_device.values():
    total = sum(event.duration for event in own)
    share = _covered(own) / total / len(by_device) / steps / 1e6 if total else 0.0
    for event in own:
      milliseconds[event.name] += event.duration * share
  by_kind = dict.fromkeys(KINDS, 0.0)
  for name, spent in milliseconds.items():
    by_kind[program[name][0]] += spent
  by_kind['host'] = max(0.0, step_milliseconds - sum(by_kind.values()))
  costliest = sorted(milliseconds.items(), key=lambda item: -item[1])[:COSTLIEST]
  return by_kind, [Operation(name, *program[name], spent) for name, spent in costliest]


def _kernel_kind(kernel: str) -> str:
  """By the name of a kernel that is none of the program's own fusions: those of cuDNN, cuBLAS
  and NCCL, and copies.
  """
  return next(
    (kind for pattern, kind in _KERNELS.items() if re.search(pattern, kernel, re.IGNORECASE)),
    'elementwise',
  )


def _short_kernel(kernel: str) -> str:
  """Without the types it is made for: void nhwcAddPaddingKernel<float>(int) ->
  nhwcAddPaddingKernel.
  """
  return re.split(r'[<(]', kernel.removeprefix('void '))[0][:_LONGEST]


def _covered(events: Iterable[Event]) -> float:
  """Nanoseconds in which at least one event runs."""
  covered = end = 0.0
  for event in sorted(events, key=lambda event: event.start):
    stop = event.start + event.duration
    covered += max(0.0, stop - max(end, event.start))
    end = max(end, stop)
  return covered
