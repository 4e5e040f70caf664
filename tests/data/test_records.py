"""What a record holds, and the phantoms as records."""

import numpy as np
import pytest

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import dataset, mask_png
from ahm_jax.data.sets import phantom


@pytest.mark.parametrize(
  'mask',
  [np.eye(5, 7, dtype=bool), np.arange(35, dtype=np.uint8).reshape(5, 7)],
  ids=['bool', 'uint8'],
)
def test_masks_keep_their_type_as_bytes(mask):
  back = mask_png.decode_mask(mask_png.encode_mask(mask))
  assert back.dtype == mask.dtype
  np.testing.assert_array_equal(back, mask)


def test_binary_masks_take_a_bit_a_pixel():
  noise = np.random.default_rng(0).random((200, 200)) < 0.5
  assert len(mask_png.encode_mask(noise)) < 200 * 200 / 8 * 1.1


def test_phantoms_are_those_that_are_drawn(tmp_path):
  config = DataConfig(
    image_size=32, split_seed=7, phantom=PhantomConfig(train=5, validation=2, test=3)
  )
  data = dataset.load(config, tmp_path)
  assert data.name == 'phantom'
  assert data.class_names == phantom.CLASS_NAMES
  assert {name: len(split) for name, split in data.splits.items()} == {
    'train': 5,
    'validation': 2,
    'test': 3,
  }
  for name, split in data.splits.items():
    for index in range(len(split)):
      image, mask, label = phantom.draw(phantom.generator(7, name, index), 32)
      np.testing.assert_array_equal(split.images[index], image)
      np.testing.assert_array_equal(split.masks[index], mask)
      np.testing.assert_array_equal(split.full_mask(index), mask > 0)
      assert split.labels[index] == label
  ids = sum((split.ids for split in data.splits.values()), ())
  assert len(set(ids)) == 10


def test_more_phantoms_leave_the_first_ones_as_they_are(tmp_path):
  few = DataConfig(image_size=16, channels=1, phantom=PhantomConfig(train=2, validation=1, test=1))
  more = DataConfig(
    image_size=16, channels=1, phantom=PhantomConfig(train=70, validation=1, test=1)
  )
  first, second = (dataset.load(config, tmp_path).splits['train'] for config in (few, more))
  assert second.images.shape == (70, 16, 16, 1)
  np.testing.assert_array_equal(second.images[:2], first.images)
  assert second.ids[:2] == first.ids
