"""Lesions that vanish at the size that networks see."""

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.mask_png import encode_mask
from ahm_jax.data.resize import squashed_mask
from ahm_jax.data.vanishing import Vanished, _wins_at, fate, size_that_keeps


def spots(side, number, size=512):
  """A mask with three squares of `side` pixels, bool [size, size]."""
  rng = np.random.default_rng(number)
  mask = np.zeros((size, size), bool)
  for row, column in rng.integers(8, size - 8 - side, (3, 2)):
    mask[row : row + side, column : column + side] = True
  return mask


def lines(masks, size, names=()):
  vanished = Vanished(size, names)
  for mask in masks:
    vanished.add(fate(mask, squashed_mask(mask, size)), encode_mask(mask))
  return vanished.lines()


@pytest.mark.parametrize('side', [2, 3, 5, 6, 8])
@pytest.mark.parametrize('size', [32, 64, 96])
def test_from_the_size_that_is_named_on_all_are_kept(side, size):
  masks = [spots(side, number) for number in range(4)]
  lost = [mask for mask in masks if not squashed_mask(mask, size).any()]
  kept = (
    max(
      (
        larger
        for larger in range(32, 544, 32)
        if not all(squashed_mask(m, larger).any() for m in lost)
      ),
      default=0,
    )
    + 32
  )
  assert lines(masks, size) == (
    [
      f'in {len(lost)} of 4 masks the lesion vanishes at image_size={size}; from {kept} on it does '
      'not'
    ]
    if lost
    else []
  )


def test_the_known_case():
  """Lesions of 5 px in 512 px cover less than half of any pixel at 64 px."""
  assert lines([spots(5, number) for number in range(20)], 64) == [
    'in 20 of 20 masks the lesion vanishes at image_size=64; from 128 on it does not'
  ]


def test_masks_that_are_empty_do_not_count():
  empty, large, small = np.zeros((512, 512), bool), spots(60, 0), spots(5, 1)
  assert lines([empty, large], 64) == []
  assert lines([empty, large, empty, small], 64)[0].startswith('in 1 of 2 masks the lesion')


def test_classes_vanish_one_by_one():
  mask = spots(60, 0).astype(np.uint8)
  mask[100:105, 100:105], mask[300:302, 300:302] = 2, 4
  found = fate(mask, squashed_mask(mask, 64))
  assert found == ({1, 2, 4}, {2, 4})
  both = lines([mask, np.minimum(mask, 2)], 64, ('disc', 'cup', 'vessel', 'bleeding'))
  assert [line.split(' vanishes')[0] for line in both] == [
    'in 2 of 2 masks the class cup',
    'in 1 of 1 masks the class bleeding',
  ]


@pytest.mark.parametrize('seed', range(8))
def test_one_pixel_is_told_as_the_whole_mask_is(seed):
  rng = np.random.default_rng(seed)
  shape, size = rng.integers(5, 60, 2), int(rng.integers(3, 50))
  mask = rng.integers(0, 4, shape).astype(np.uint8)
  whole = squashed_mask(mask, size)
  for row, column in np.ndindex(size, size):
    winner = [_wins_at(mask, index, size, (row, column)) for index in range(4)]
    assert winner == [index == whole[row, column] for index in range(4)]


def test_a_lesion_that_no_size_keeps():
  mask = np.zeros((31, 31), np.uint8)
  mask[12, 14] = 1
  assert size_that_keeps([encode_mask(mask)], 1, above=16) is None
  assert lines([mask], 16, ('cup',)) == [
    'in 1 of 1 masks the class cup vanishes at image_size=16; it does at any size up to their own'
  ]


@pytest.mark.parametrize(('classes', 'what'), [((), 'the lesion'), (('spot',), 'the class spot')])
def test_preparation_says_it(tmp_path, classes, what):
  for part in ('images', 'masks'):
    (tmp_path / 'set' / part).mkdir(parents=True)
  for number, side in enumerate((5, 5, 100, 0)):
    mask = spots(side, number)
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / 'set/images' / f'{number}.png')
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / 'set/masks' / f'{number}.png')
  config = DataConfig(
    name='folder', root=str(tmp_path / 'set'), image_size=64, mask_classes=classes
  )
  notes = dataset.load(config, tmp_path / 'work').notes
  told = [note.split('; from')[0] for note in notes if 'vanishes' in note]
  assert told == [f'in 2 of 3 masks {what} vanishes at image_size=64']
