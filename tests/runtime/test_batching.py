import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.runtime.batching import in_batches


@pytest.mark.parametrize('count', [1, 3, 4, 5, 8, 9])
def test_all_images_once_in_order_through_batches_of_one_size(count):
  images, shapes = np.arange(count * 6.0).reshape(count, 2, 3), []

  def function(batch):
    shapes.append(batch.shape)
    return {'sum': batch.sum((1, 2)), 'both': (batch, -batch)}

  result = in_batches(function, images, 4)
  assert shapes == [(4, 2, 3)] * -(-count // 4)
  np.testing.assert_array_equal(result['sum'], images.sum((1, 2)))
  np.testing.assert_array_equal(result['both'][0], images)
  np.testing.assert_array_equal(result['both'][1], -images)


def test_one_compiled_program_and_numpy_back():
  traces = []

  @jax.jit
  def function(batch):
    traces.append(batch.shape)
    return jnp.square(batch)

  result = in_batches(function, np.arange(7.0), 3)
  assert type(result) is np.ndarray
  assert len(traces) == 1
  np.testing.assert_array_equal(result, np.arange(7.0) ** 2)
