"""Lesions that vanish at the size that networks see."""

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset, vanishing
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
  assert (found.held, found.lost) == ({1, 2, 4}, {2, 4})
  assert found.shares == {2: 25 / 512**2, 4: 4 / 512**2}
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
  assert size_that_keeps([encode_mask(mask)], 1, above=16) == (None, 1)
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


def test_a_size_is_held_against_all_masks_and_not_only_those_it_was_searched_with(monkeypatch):
  """The first has least of the lesion; that of the second, two pixels by 40, needs more."""
  masks = [np.zeros((512, 512), bool) for _ in range(3)]
  masks[0][8:16, 8:16] = True
  masks[1][255:257, 100:140] = True
  masks[2][100:120, 100:120] = True
  encoded = [encode_mask(mask) for mask in masks]
  every = size_that_keeps(encoded, 1, above=16)
  kept = {
    size: all(squashed_mask(mask, size).any() for mask in masks) for size in range(32, 513, 32)
  }
  right = next(size for size in kept if all(kept[more] for more in kept if size <= more))
  assert every == (right, 3)
  alone = size_that_keeps(encoded[:1], 1, above=16)
  assert alone < every
  monkeypatch.setattr(vanishing, 'SEARCH_PIXELS', 512**2)
  assert size_that_keeps(encoded, 1, above=16) == every
  monkeypatch.setattr(vanishing, 'CHECKED_PIXELS', 512**2)
  assert size_that_keeps(encoded, 1, above=16) == alone
  vanished = Vanished(16)
  for mask, data in zip(masks, encoded, strict=True):
    vanished.add(fate(mask, squashed_mask(mask, 16)), data)
  assert vanished.lines()[0].endswith('in the 1 of them that have the least of it')
