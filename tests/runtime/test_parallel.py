import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.runtime import parallel
from ahm_jax.task import TrainState


def test_one_copy_moves_nothing():
  state = TrainState(jnp.zeros((), jnp.int32), {'w': jnp.zeros(5)}, {}, (), ())
  state = parallel.replicate(state, jax.local_devices())
  copy = parallel.one_copy(state)
  assert copy.params['w'].devices() == {jax.local_devices()[0]}
  assert (
    copy.params['w'].unsafe_buffer_pointer()
    == state.params['w'].addressable_shards[0].data.unsafe_buffer_pointer()
  )


def test_one_copy_is_of_the_type_of_what_lies_on_the_device_so_that_nothing_compiles_again():
  over = jax.local_devices()[:1]
  mesh = jax.sharding.Mesh(np.array(over), (parallel.DEVICES,))
  spec = jax.sharding.PartitionSpec()
  step = jax.jit(jax.shard_map(lambda x: x + 1, mesh=mesh, in_specs=spec, out_specs=spec))
  stepped = parallel.one_copy(step(parallel.replicate(jnp.zeros(5), over)))
  loaded = jax.device_put(np.zeros(5, np.float32), jax.sharding.SingleDeviceSharding(over[0]))
  twice = jax.jit(lambda x: 2 * x)
  np.testing.assert_array_equal(twice(stepped), twice(loaded) + 2)
  assert twice._cache_size() == 1


def test_a_batch_that_devices_cannot_share_is_the_users_error():
  with pytest.raises(UserError, match='batch_size is 6, which 4 devices'):
    parallel.own_rows(np.zeros(6), jax.local_devices())
