import itertools

import jax
import numpy as np
import pytest

from ahm_jax.config import DataConfig
from ahm_jax.data import batches as source_module
from ahm_jax.data.batches import Beside, source
from ahm_jax.data.dataset import Split
from ahm_jax.data.sampling import UNLABELLED, batch_indices
from ahm_jax.errors import UserError
from ahm_jax.task import Batch

COUNT, BATCH = 10, 4
INDICES = np.array([9, 1, 4, 0, 7, 3])


@pytest.fixture
def split():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
  masks = rng.integers(0, 2, (COUNT, 4, 4), np.uint8)
  names = tuple(map(str, range(COUNT)))
  return Split(
    names,
    images,
    masks,
    np.arange(COUNT, dtype=np.int32),
    np.ones(COUNT, bool),
    names,
    (b'',) * COUNT,
  )


def make(split, share, devices=1, **fields):
  arguments = {
    'indices': INDICES,
    'batch_size': BATCH,
    'seed': 3,
    'devices': jax.local_devices()[:devices],
    **fields,
  }
  return source(split, DataConfig(resident_share=share), **arguments)


def batches(item, start, stop):
  """The batches [D, b, ...], however they come."""
  for inputs in item.inputs(start, stop):
    if item.resident is None:
      yield inputs
    else:
      yield Batch(*(np.asarray(array)[inputs.indices] for array in item.resident), inputs.positions)


@pytest.mark.parametrize('devices', [1, 2])
def test_streamed_equals_resident_from_any_step(split, devices):
  resident, streamed = make(split, 1.0, devices), make(split, 0.0, devices)
  assert resident.resident is not None and streamed.resident is None
  for start, stop in ((0, 7), (5, 30)):
    for step, one, other in itertools.zip_longest(
      range(start, stop), batches(resident, start, stop), batches(streamed, start, stop)
    ):
      for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype and a.shape[:2] == (devices, BATCH // devices)
        np.testing.assert_array_equal(a, b)
      chosen = INDICES[batch_indices(3, step, len(INDICES), BATCH)]
      np.testing.assert_array_equal(one.images.reshape(BATCH, 4, 4, 3), split.images[chosen])
      np.testing.assert_array_equal(one.masks.reshape(BATCH, 4, 4), split.masks[chosen])
      np.testing.assert_array_equal(one.labels.reshape(BATCH), chosen)
      np.testing.assert_array_equal(one.positions.reshape(BATCH), np.arange(BATCH))


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_each_device_s_batch_ends_with_its_unlabelled_images(split, share):
  unlabelled = 8
  one, two = (
    list(
      batches(make(split, share, devices, beside=(Beside.unlabelled(split, unlabelled),)), 0, 30)
    )
    for devices in (1, 2)
  )
  for step, (whole, halves) in enumerate(zip(one, two, strict=True)):
    labelled = INDICES[batch_indices(3, step, len(INDICES), BATCH)]
    others = batch_indices(3, step, COUNT, unlabelled, UNLABELLED)
    assert whole.labels[0].tolist() == [*labelled, *others]
    assert whole.positions[0].tolist() == [*range(BATCH + unlabelled)]
    np.testing.assert_array_equal(whole.images[0], split.images[whole.labels[0]])
    for device in (0, 1):
      own = slice(2 * device, 2 * device + 2), slice(4 * device, 4 * device + 4)
      assert halves.labels[device].tolist() == [*labelled[own[0]], *others[own[1]]]
  # Every image serves, in an order of its own, and none before all have.
  shown = np.concatenate([batch.labels[0, BATCH:] for batch in one])
  assert all(sorted(epoch) == [*range(COUNT)] for epoch in shown.reshape(-1, COUNT))
  item = make(split, share, beside=(Beside.unlabelled(split, unlabelled),))
  assert item.names(0) == [split.ids[i] for i in one[0].labels[0]]


@pytest.mark.parametrize('unlabelled', [1, 6])
def test_pairs_that_devices_cannot_share_are_the_users_error(split, unlabelled):
  with pytest.raises(UserError, match=rf'unlabelled.batch_size is {unlabelled}.* multiple of 4'):
    make(split, 1.0, devices=2, beside=(Beside.unlabelled(split, unlabelled),))


def test_resident_images_are_on_every_device_and_sent_once(split):
  first = make(split, 1.0, devices=4)
  assert {shard.device for shard in first.resident.images.addressable_shards} == set(
    jax.local_devices()
  )
  assert all(
    shard.data.shape == split.images.shape for shard in first.resident.images.addressable_shards
  )
  assert make(split, 1.0, devices=4, indices=np.array([2]), seed=8).resident is first.resident
  assert make(split.take(range(COUNT)), 1.0, devices=4).resident is not first.resident


def test_residence_is_decided_by_the_smallest_devices_memory(split, monkeypatch):
  size = split.images.nbytes + split.masks.nbytes + split.labels.nbytes

  class Device:
    process_index = 0

    def __init__(self, limit):
      self.limit = limit

    def memory_stats(self):
      return {'bytes_limit': self.limit}

  monkeypatch.setattr(source_module, '_resident', lambda *_: 'resident')
  for limit, expected in ((2 * size, 'resident'), (2 * size - 2, None)):
    item = source(
      split,
      DataConfig(resident_share=0.5),
      INDICES,
      BATCH,
      3,
      devices=[Device(limit), Device(10 * size)],
    )
    assert item.resident == expected


def test_devices_that_cannot_share_the_batch_are_the_users_error(split):
  with pytest.raises(UserError, match='batch_size is 6, which 4 devices'):
    make(split, 1.0, devices=4, batch_size=6)
