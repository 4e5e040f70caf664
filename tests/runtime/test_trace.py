"""What a trace says, of events made by hand; of a real one, see test_profile_report.py."""

import numpy as np
import pytest

from ahm_jax.runtime import trace
from ahm_jax.runtime.trace import Event

NAMES = {'conv': ('convolution', 'c'), 'add': ('elementwise', 'a')}


def test_a_step_is_divided_among_kinds_and_the_host():
  """Two steps of 10 ms: 8 ms of convolution and 2 ms of addition in all, the rest is the host's."""
  events = [
    Event('conv', 0, 0.0, 4e6),
    Event('add', 0, 5e6, 2e6),
    Event('conv', 0, 10e6, 4e6),
    Event('loop', 0, 0.0, 20e6),
  ]
  by_kind, costliest = trace.divide(events, NAMES, steps=2, step_milliseconds=10.0)
  assert by_kind == dict.fromkeys(trace.KINDS, 0.0) | {
    'convolution': 4.0,
    'elementwise': 1.0,
    'host': 5.0,
  }
  assert [(item.name, item.milliseconds) for item in costliest] == [('conv', 4.0), ('add', 1.0)]


def test_what_runs_side_by_side_shares_the_time():
  """On two threads, 6 ms of convolution and 2 ms of addition cover 6 ms together.

  Copies from the host are input.
  """
  events = [Event('conv', 0, 0.0, 6e6), Event('add', 0, 1e6, 2e6), Event('input', 0, 8e6, 1e6)]
  by_kind, _ = trace.divide(events, NAMES, steps=1, step_milliseconds=10.0)
  share = 7 / 9
  assert by_kind['convolution'] == pytest.approx(6 * share) and by_kind[
    'elementwise'
  ] == pytest.approx(2 * share)
  assert by_kind['input'] == pytest.approx(share) and by_kind['host'] == pytest.approx(3.0)


def test_devices_are_averaged():
  events = [Event('conv', 0, 0.0, 4e6), Event('conv', 1, 0.0, 8e6)]
  by_kind, _ = trace.divide(events, NAMES, steps=1, step_milliseconds=10.0)
  assert by_kind['convolution'] == pytest.approx(6.0) and by_kind['host'] == pytest.approx(4.0)


def test_kernels_of_a_cuda_graph_are_told_apart_by_their_names():
  """A trace names the graph only.

  Kernels have the names of the program's fusions, or those of the libraries they are from.
  """
  kernels = {
    'loop_add_fusion_3': 4e6,
    'sm90_xmma_wgrad_implicit_gemm_bf16_nhwc': 1e6,
    'void cutlass__5x_cudnn::Kernel<gemm>(int)': 1e6,
    'nvjet_tst_64x8': 2e6,
    'Memset 3': 1e6,
    'loop_convert_fusion': 1e6,
  }
  starts = np.cumsum([0, *kernels.values()])
  events = [
    Event('command_buffer_7', 0, start, spent, name)
    for start, (name, spent) in zip(starts[:-1], kernels.items(), strict=True)
  ]
  program = {'loop_add_fusion.3': ('elementwise', 'decoder1/norm/add')}
  by_kind, costliest = trace.divide(events, program, steps=1, step_milliseconds=12.0)
  found = {'convolution': 2.0, 'matrix': 2.0, 'elementwise': 5.0, 'copy': 1.0, 'host': 2.0}
  assert by_kind == pytest.approx(dict.fromkeys(trace.KINDS, 0.0) | found)
  assert costliest[0][:3] == ('loop_add_fusion.3', 'elementwise', 'decoder1/norm/add')
  assert [item[:3] for item in costliest if 'cutlass' in item.name] == [
    ('cutlass__5x_cudnn::Kernel', 'convolution', 'in a CUDA graph')
  ]


def test_no_events_leave_the_step_to_the_host():
  by_kind, costliest = trace.divide([], NAMES, steps=1, step_milliseconds=3.0)
  assert by_kind['host'] == 3.0 and costliest == []
