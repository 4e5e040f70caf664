"""Reading a trace: how the time of a step divides among kinds of operation, and which operations
cost most.
"""

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from ahm_jax.runtime.profiler import Capture

KINDS = ('convolution', 'matrix', 'elementwise', 'copy', 'communication', 'input', 'host')
COSTLIEST = 5

# Dense bfloat16 rate in TFLOP/s, by what the device's name contains (the makers' data sheets).
PEAK_TFLOPS = {
  **{
    'B200': 2250.0,
    'H200': 989.0,
    'H100 PCIe': 756.0,
    'H100 NVL': 835.0,
    'H100': 989.0,
    'A100': 312.0,
  },
  **{'L40S': 362.0, 'L40': 181.0, 'L4': 121.0},
}

_CONTAINERS = {'while', 'call', 'conditional'}  # Their time is that of the operations inside.
_MOVES = {
  'copy',
  'transpose',
  'bitcast',
  'reshape',
  'slice',
  'concatenate',
  'pad',
  'broadcast',
  'reverse',
  'dynamic-slice',
}
_NOTHING = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'iota'}
_COMMUNICATION = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')
_KERNELS = {  # The first pattern that is found in a kernel's name says its kind.
  '^mem': 'copy',
  'nccl': 'communication',
  'conv(?!ert)|cudnn|[fdw](prop|grad)': 'convolution',
  'gemm|cublas|cutlass|nvjet': 'matrix',
  'transpose|concatenate|slice': 'copy',
}
_LONGEST = 48  # Characters of a kernel's name that are shown.
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?[\])}] ([a-z][\w\-]*)\(')


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


class Summary(NamedTuple):
  step_milliseconds: float
  images_per_second: float
  by_kind: dict[str, float]  # Milliseconds a step, of KINDS; their sum is the step.
  costliest: list[Operation]
  operations: int  # Floating point operations of a step, on all devices.
  tflops: float  # A second, on all devices.
  mfu: float | None  # Share of the devices' peak matrix rate, where that is known.
  peak_mebibytes: float | None  # Of one device.


def summarise(
  capture: Capture, lowered: jax.stages.Lowered, operations: int, batch_size: int
) -> Summary:
  """What a capture says.

  Args:
    capture: of steps of one program.
    lowered: that program.
    operations: of a step on one device, see `operations.count`.
    batch_size: images per step, over all devices.
  """
  compiled = lowered.compile()
  devices = jax.local_devices()
  program = describe(compiled.as_text())
  seconds = capture.seconds / capture.steps
  events = read(capture.directory)
  count = len({event.device for event in events}) or 1
  total = operations * count
  peak = next((rate for name, rate in PEAK_TFLOPS.items() if name in devices[0].device_kind), None)
  tflops = total / seconds / 1e12
  by_kind, costliest = divide(events, program, capture.steps, 1e3 * seconds)
  return Summary(
    step_milliseconds=1e3 * seconds,
    images_per_second=batch_size / seconds,
    by_kind=by_kind,
    costliest=costliest,
    operations=total,
    tflops=tflops,
    mfu=tflops / (peak * count) if peak else None,
    peak_mebibytes=_peak_memory(devices[0], compiled),
  )


def describe(program: str) -> dict[str, tuple[str, str]]:
  """Kind and source of every operation of a compiled program, given as HLO text.

  Containers are left out.
  """
  inside = collections.defaultdict(set)
  lines = []
  computation = ''
  for line in program.splitlines():
    if header := _COMPUTATION.match(line):
      computation = header[1]
    elif found := _INSTRUCTION.match(line):
      inside[computation].add(_opcode(line, found[2]))
      lines.append((found[1], found[2], line))
  described = {}
  for name, opcode, line in lines:
    called = re.search(r'calls=%?([\w.\-]+)', line)
    opcodes = inside[called[1]] if called and opcode == 'fusion' else {_opcode(line, opcode)}
    source = re.search(r'op_name="([^"]*)"', line)
    if opcode not in _CONTAINERS:
      described[name] = _kind(opcodes), _short(source[1]) if source else ''
  return described


def _opcode(line: str, opcode: str) -> str:
  """A custom call goes by what it calls."""
  target = re.search(r'custom_call_target="([^"]*)"', line)
  return target[1].lower() if target and opcode == 'custom-call' else opcode


def _kind(opcodes: Iterable[str]) -> str:
  opcodes = set(opcodes) - _NOTHING
  if any('conv' in opcode and 'convert' not in opcode for opcode in opcodes):
    return 'convolution'
  if any(opcode == 'dot' or 'gemm' in opcode or 'matmul' in opcode for opcode in opcodes):
    return 'matrix'
  if any(opcode.startswith(_COMMUNICATION) for opcode in opcodes):
    return 'communication'
  return 'copy' if opcodes <= _MOVES else 'elementwise'


def _short(source: str) -> str:
  """The last parts of a path such as
  jit(step)/transpose(jvp(UNet))/encoder1/first/convolution/conv_general_dilated.
  """
  backward = 'backward ' if 'transpose(' in source else ''
  return backward + '/'.join(re.sub(r'\w+\(.*\)/', '', source).split('/')[-4:])


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
    program: kind and source of every operation, see `describe`; events of others (containers, other
      programs) are left out, but for kernels of a GPU.
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
  milliseconds = collections.Counter()
  for own in by_device.values():
    total = sum(event.duration for event in own)
    share = _covered(own) / total / len(by_device) / steps / 1e6 if total else 0.0
    for event in own:
      milliseconds[event.name] += event.duration * share
  by_kind = dict.fromkeys(KINDS, 0.0)
  for name, spent in milliseconds.items():
    by_kind[program[name][0]] += spent
  by_kind['host'] = max(0.0, step_milliseconds - sum(by_kind.values()))
  costliest = [
    Operation(name, *program[name], spent) for name, spent in milliseconds.most_common(COSTLIEST)
  ]
  return by_kind, costliest


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


def _peak_memory(device: jax.Device, compiled: jax.stages.Compiled) -> float | None:
  """What the device says, or where it says nothing what the program asks for."""
  peak = (device.memory_stats() or {}).get('peak_bytes_in_use')
  if peak is None and (asked := compiled.memory_analysis()) is not None:
    peak = asked.argument_size_in_bytes + asked.temp_size_in_bytes
  return None if peak is None else peak / 2**20


def table(summary: Summary) -> str:
  """The summary for a terminal."""
  step = summary.step_milliseconds
  lines = [f'{step:.1f} ms a step, {summary.images_per_second:.1f} images/s']
  rate = f'{summary.operations / 1e9:.1f} GFLOP a step, {summary.tflops:.3f} TFLOP/s'
  lines.append(
    rate if summary.mfu is None else f'{rate}, {100 * summary.mfu:.1f} % of the matrix peak (MFU)'
  )
  if summary.peak_mebibytes is not None:
    lines.append(f'{summary.peak_mebibytes:.0f} MiB of memory at most')
  lines += ['', 'where a step goes']
  lines += [
    f'  {kind:14} {spent:9.2f} ms  {100 * spent / step:5.1f} %'
    for kind, spent in summary.by_kind.items()
  ]
  lines += ['', 'costliest operations']
  lines += [
    f'  {item.milliseconds:9.2f} ms  {item.kind:13} {item.name:28} {item.source}'
    for item in summary.costliest
  ]
  return '\n'.join(lines)
