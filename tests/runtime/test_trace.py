"""What a trace says: of events made by hand, and of a real one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.runtime import flops, trace
from ahm_jax.runtime.profiler import Profiler
from ahm_jax.runtime.trace import Event

PROGRAM = """HloModule jit_step

%fused_move (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  %t = f32[8,4]{0,1} transpose(%p), dimensions={1,0}
  ROOT %c = f32[8,4]{1,0} copy(%t)
}

%fused_norm (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  %q = f32[4,8]{1,0} multiply(%p, %p)
  ROOT %c.1 = f32[8,4]{1,0} transpose(%q), dimensions={1,0}
}

%fused_conv (p: f32[4,8,8,1], k: f32[3,3,1,1]) -> f32[4,8,8,1] {
  %p = f32[4,8,8,1]{3,2,1,0} parameter(0)
  %k = f32[3,3,1,1]{3,2,1,0} parameter(1)
  ROOT %conv = f32[4,8,8,1]{3,2,1,0} convolution(%p, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
}

ENTRY %main (a: f32[4,8]) -> f32[8,4] {
  %a = f32[4,8]{1,0} parameter(0)
  %move = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused_move
  %norm = f32[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused_norm, metadata={op_name="jit(step)/jvp(UNet)/encoder1/norm/mul"}
  %conv.1 = f32[4,8,8,1]{3,2,1,0} fusion(%a, %a), calls=%fused_conv, metadata={op_name="jit(s)/transpose(jvp(U))/a/b/conv"}
  %cudnn = (f32[4,8]{1,0}, u8[0]{0}) custom-call(%a, %a), custom_call_target="__cudnn$convForward"
  %gemm = (f32[4,4]{1,0}, s8[0]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  %dot.2 = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %sum = f32[4,8]{1,0} all-reduce(%a), to_apply=%add
  %loop = f32[4,8]{1,0} while(%a), condition=%cond, body=%body
  %bits = u32[4,8]{1,0} bitcast-convert(%a)
  ROOT %narrow = bf16[4,8]{1,0} convert(%a)
}
"""


def test_operations_have_their_kind_and_source():
  described = trace.describe(PROGRAM)
  kinds = {
    name: described[name][0]
    for name in ('move', 'norm', 'conv.1', 'cudnn', 'gemm', 'dot.2', 'sum', 'bits', 'narrow')
  }
  assert kinds == {
    'move': 'copy',
    'norm': 'elementwise',
    'conv.1': 'convolution',
    'cudnn': 'convolution',
    'gemm': 'matrix',
    'dot.2': 'matrix',
    'sum': 'communication',
    'bits': 'elementwise',
    'narrow': 'elementwise',
  }
  assert 'loop' not in described
  assert described['conv.1'][1] == 'backward a/b/conv'
  assert described['norm'][1] == 'encoder1/norm/mul'


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


def test_a_real_capture_is_read(tmp_path):
  """Its kinds make up the step, its convolution is seen, and its operations are 2 * 9 * 8 * 8 a
  pixel.
  """

  @jax.jit
  def step(x, kernel):
    return jnp.tanh(
      lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )
    )

  x, kernel = np.ones((4, 64, 64, 8), np.float32), np.ones((3, 3, 8, 8), np.float32)
  with Profiler('1:4', tmp_path) as profiler:
    for number in range(4):
      profiler.before(number, x)
      x = step(x, kernel)
      capture = profiler.after(number, x)
  assert (capture.directory, capture.steps) == (tmp_path, 3)
  summary = trace.summarise(
    capture, step.lower(x, kernel), flops.count(step, x, kernel), batch_size=4
  )
  assert list(summary.by_kind) == list(trace.KINDS)
  assert sum(summary.by_kind.values()) == pytest.approx(summary.step_milliseconds)
  assert summary.by_kind['convolution'] > 0
  assert summary.images_per_second == pytest.approx(4e3 / summary.step_milliseconds)
  assert (
    summary.operations == 4 * 8 * 8 * 2 * (3 * 64 - 2) ** 2
  )  # The border's padding is not counted.
  assert summary.peak_mebibytes >= (x.nbytes + kernel.nbytes) / 2**20
  text = trace.table(summary)
  assert 'where a step goes' in text and 'MFU' not in text
  assert 'MFU' in trace.table(summary._replace(mfu=0.5))


@pytest.mark.parametrize('name', trace.PEAK_TFLOPS)
def test_no_device_is_taken_for_another_whose_name_begins_alike(name):
  assert next(other for other in trace.PEAK_TFLOPS if other in f'NVIDIA {name} 80GB') == name
