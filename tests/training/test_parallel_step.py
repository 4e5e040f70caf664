import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.runtime import parallel
from ahm_jax.runtime.parallel import DEVICES, Picks, Resident
from ahm_jax.task import Batch, TrainState
from ahm_jax.training.parallel_step import REQUEST, Request, parallel_step, requests

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
RESIDENT = Resident(IMAGES, np.zeros((12, 4, 4), np.uint8), np.arange(12, dtype=np.int32))


def step(state, batch, key):
  """Moves `w` by the mean over the global batch of image mean, label, and a draw of each image's
  own.
  """
  noise = jax.vmap(lambda position: jax.random.uniform(jax.random.fold_in(key, position)))(
    batch.positions
  )
  local = jnp.mean(batch.images.mean((1, 2, 3)) / 255 + batch.labels + noise)
  mean = lax.pmean(local, DEVICES)
  params = {'w': state.params['w'] + mean}
  return TrainState(state.step + 1, params, {}, (), ()), {
    'loss': mean,
    'noise': lax.pmean(noise.mean(), DEVICES),
  }


def fresh(devices):
  return parallel.replicate(
    TrainState(jnp.zeros((), jnp.int32), {'w': jnp.zeros(5)}, {}, (), ()), devices
  )


def run(count, steps=3, streamed=False):
  devices = tuple(jax.local_devices()[:count])
  advance = parallel_step(step, devices)
  state, key = fresh(devices), parallel.replicate(jax.random.key(1), devices)
  resident = None if streamed else parallel.replicate(RESIDENT, devices)
  history = []
  for number in range(steps):
    chosen = (np.arange(8, dtype=np.int32) * 5 + number) % 12
    picks = Picks(
      *(parallel.own_rows(array, devices) for array in (chosen, np.arange(8, dtype=np.int32)))
    )
    batch = Batch(*(array[picks.indices] for array in RESIDENT), picks.positions)
    state, metrics = advance(
      state, resident, batch if streamed else picks, key, requests(Request.NONE, devices)
    )
    history.append(parallel.fetch(metrics))
  return parallel.one_copy(state), history


def test_the_step_sees_the_chosen_images_and_a_key_of_its_own():
  state, history = run(1)
  assert int(state.step) == 3
  draws = [item['noise'] for item in history]
  assert len(set(draws)) == 3
  for number, metrics in enumerate(history):
    chosen = (np.arange(8) * 5 + number) % 12
    key = jax.random.fold_in(jax.random.key(1), number)
    noise = np.mean(
      [jax.random.uniform(jax.random.fold_in(key, position)) for position in range(8)]
    )
    expected = IMAGES[chosen].mean() / 255 + chosen.mean() + noise
    assert metrics['loss'] == pytest.approx(expected, rel=1e-5)
    assert metrics['noise'] == pytest.approx(noise, rel=1e-5)


@pytest.mark.parametrize('streamed', [False, True])
def test_four_devices_equal_one(streamed):
  one, one_history = run(1)
  four, four_history = run(4, streamed=streamed)
  np.testing.assert_allclose(one.params['w'], four.params['w'], rtol=1e-6)
  assert [item['loss'] for item in one_history] == pytest.approx(
    [item['loss'] for item in four_history], rel=1e-6
  )


def placed(devices):
  """What a step takes besides the state: the resident images, the first eight of them, a key."""
  resident, key = parallel.replicate((RESIDENT, jax.random.key(1)), devices)
  rows = parallel.own_rows(np.arange(8, dtype=np.int32), devices)
  return resident, Picks(rows, rows), key


def test_state_stays_replicated_and_is_donated_and_nothing_resident_is_copied():
  devices = tuple(jax.local_devices())
  advance, (resident, picks, key) = parallel_step(step, devices), placed(devices)
  before = fresh(devices)
  with jax.transfer_guard_device_to_device('disallow'):
    after, _ = advance(before, resident, picks, key, requests(Request.NONE, devices))
    again, _ = advance(after, resident, picks, key, requests(Request.NONE, devices))
  assert before.params['w'].is_deleted() and after.params['w'].is_deleted()
  assert again.params['w'].shape == (5,)
  assert again.params['w'].sharding == parallel.replicated(devices)
  assert again.params['w'].sharding.is_fully_replicated


def test_the_largest_request_comes_back():
  devices = tuple(jax.local_devices())
  advance, (resident, picks, key) = parallel_step(step, devices), placed(devices)
  given = requests(Request.NONE, devices)
  given[2] = Request.STOP  # As of another process.
  _, metrics = advance(fresh(devices), resident, picks, key, given)
  assert np.asarray(metrics[REQUEST]).tolist() == [2, 2, 2, 2]


def test_the_same_step_gives_the_same_program():
  devices = tuple(jax.local_devices()[:1])
  assert parallel_step(step, devices) is parallel_step(step, devices)
  assert parallel_step(step, devices) is not parallel_step(step, tuple(jax.local_devices()[:2]))
