import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.runtime import flops, profile_report, trace
from ahm_jax.runtime.profiler import Profiler


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
  summary = profile_report.summarise(
    capture, step.lower(x, kernel), flops.count(step, x, kernel), batch_size=4
  )
  assert list(summary.by_kind) == list(trace.KINDS)
  assert sum(summary.by_kind.values()) == pytest.approx(summary.step_milliseconds)
  assert summary.by_kind['convolution'] > 0
  assert summary.images_per_second == pytest.approx(4e3 / summary.step_milliseconds)
  # The border's padding is not counted.
  assert summary.operations == 4 * 8 * 8 * 2 * (3 * 64 - 2) ** 2
  assert summary.peak_mebibytes >= (x.nbytes + kernel.nbytes) / 2**20
  text = profile_report.table(summary)
  assert 'where a step goes' in text and 'MFU' not in text
  assert 'MFU' in profile_report.table(summary._replace(mfu=0.5))


@pytest.mark.parametrize('name', profile_report.PEAK_TFLOPS)
def test_no_device_is_taken_for_another_whose_name_begins_alike(name):
  assert (
    next(other for other in profile_report.PEAK_TFLOPS if other in f'NVIDIA {name} 80GB') == name
  )
