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


def test_a_batch_that_devices_cannot_share_is_the_users_error():
  with pytest.raises(UserError, match='batch_size is 6, which 4 devices'):
    parallel.own_rows(np.zeros(6), jax.local_devices())
