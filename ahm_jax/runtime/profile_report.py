"""What a profile of some steps says: times, rates and memory, as numbers and for a terminal."""

from typing import NamedTuple

import jax

from ahm_jax.runtime import hlo, trace
from ahm_jax.runtime.profiler import Capture
from ahm_jax.runtime.trace import Operation

# Dense bfloat16 rate in TFLOP/s, by what the device's name contains (the makers' data sheets).
PEAK_TFLOPS = {
  'B200': 2250.0,
  'H200': 989.0,
  'H100 PCIe': 756.0,
  'H100 NVL': 835.0,
  'H100': 989.0,
  'A100': 312.0,
  'L40S': 362.0,
  'L40': 181.0,
  'L4': 121.0,
}


class Summary(NamedTuple):
  step_milliseconds: float
  images_per_second: float
  by_kind: dict[str, float]  # Milliseconds a step, of `trace.KINDS`; their sum is the step.
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
    operations: of a step on one device, see `flops.count`.
    batch_size: images per step, over all devices.
  """
  compiled = lowered.compile()
  devices = jax.local_devices()
  program = hlo.describe(compiled.as_text() or '')
  seconds = capture.seconds / capture.steps
  events = trace.read(capture.directory)
  count = len({event.device for event in events}) or 1
  total = operations * count
  peak = next((rate for name, rate in PEAK_TFLOPS.items() if name in devices[0].device_kind), None)
  tflops = total / seconds / 1e12
  by_kind, costliest = trace.divide(events, program, capture.steps, 1e3 * seconds)
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
