"""What would make a training worthless is said before it begins."""

import dataclasses
import re

import numpy as np
import pytest

from ahm_jax.config import Config, GridConfig
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.data.mask_png import encode_mask
from ahm_jax.data.resize import squashed_mask
from ahm_jax.errors import UserError
from ahm_jax.pipeline import grid, setup, stages
from ahm_jax.runs import provenance

SIZE = 64
NAMES = ('disc', 'cup')


def mask(side, classes):
  """A square of `side` pixels in 512."""
  drawn = np.zeros((512, 512), bool)
  drawn[100 : 100 + side, 203 : 203 + side] = True
  return drawn.astype(np.uint8) * 2 if classes else drawn


def split(sides, classes=()):
  masks = [mask(side, classes) for side in sides]
  names = tuple(f'i{number}' for number in range(len(sides)))
  return Split(
    ids=names,
    images=np.zeros((len(sides), SIZE, SIZE, 3), np.uint8),
    masks=np.stack([squashed_mask(each, SIZE) for each in masks]),
    labels=np.full(len(sides), -1, np.int32),
    has_mask=np.ones(len(sides), bool),
    groups=names,
    full_masks=tuple(encode_mask(each) for each in masks),
  )


def config(classes=(), **changes):
  own = Config()
  data = dataclasses.replace(own.data, image_size=SIZE, mask_classes=classes, **changes)
  return dataclasses.replace(own, data=data, grid=GridConfig(labels=(2,), seeds=(0,)))


@pytest.mark.parametrize('classes', [(), NAMES])
@pytest.mark.parametrize(
  ('sides', 'lost'), [((5, 5), 2), ((5, 0, 5), 2), ((0, 0), None), ((5, 90), 0), ((90, 0), 0)]
)
def test_targets_without_any_lesion_are_refused(classes, sides, lost):
  held = split(sides, classes)
  if lost == 0:
    setup.check_targets(config(classes), held, range(len(sides)), 'training')
    return
  what = 'class cup' if classes else 'lesion'
  said = (
    f'no training image has a lesion to be found: in {lost} of {lost} masks the {what} vanishes at '
    f'image_size=64; from 96 on it does not; set a larger config.data.image_size'
  )
  if lost is None:
    said = 'no training image has a lesion to be found: all 2 masks are empty; look whether'
  with pytest.raises(UserError, match=f'^{re.escape(said)}'):
    setup.check_targets(config(classes), held, range(len(sides)), 'training')


@pytest.mark.parametrize('where', ['train', 'validation'])
@pytest.mark.parametrize('by', ['segment', 'grid'])
def test_a_segmentation_and_a_grid_are_refused_before_they_train(where, by, tmp_path):
  parts = {name: split((90, 90)) for name in ('train', 'validation', 'test')}
  data = Dataset('toy', (), parts | {where: split((5, 5))}, ())
  with pytest.raises(UserError, match=f'^no {where}(ing)? image has a lesion'):
    if by == 'grid':
      grid.check_grid(config(), data, ('scratch',))
    else:
      run = setup.Run(stages.SEGMENT, config(), tmp_path, data, setup.Start())
      stages.SEGMENT.plan(run)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('stage', 'seen'),
  [(stages.PRETRAIN, ('image',)), (stages.SEGMENT, ('image', 'mask')),
   (stages.CLASSIFY, ('image', 'label'))],
)  # fmt: skip
@pytest.mark.parametrize('change', ['image', 'mask', 'label'])
@pytest.mark.parametrize('where', ['train', 'validation'])
def test_a_stage_goes_on_with_what_it_learns_from(tmp_path, stage, seen, change, where):
  """Whatever the images that its network sees, as a classifier those of lesions."""
  parts = {name: split((90, 90, 90)) for name in ('train', 'validation', 'test')}
  for name, part in parts.items():
    parts[name] = dataclasses.replace(part, ids=tuple(f'{name}{i}' for i in range(3)))

  def images(parts):
    data = Dataset('toy', ('a', 'b'), parts, ())
    run = setup.Run(stage, config(), tmp_path, data, setup.Start())
    shown = dataclasses.replace(parts['train'], images=parts['train'].images + 1)
    plan = setup.Plan(None, shown, np.array([2, 1]), 1, ('validation1', 'validation2'))
    return plan.images(run)

  provenance.begin(tmp_path, images(parts), None)
  provenance.check_same(tmp_path, images(parts))
  before = parts[where]
  digests, labels = before.digests.copy(), before.labels.copy()
  if change == 'label':
    labels[1] = 1
  else:
    digests[1, ('image', 'mask').index(change)] = 7
  parts[where] = dataclasses.replace(before, digests=digests, labels=labels)
  if change not in seen:
    provenance.check_same(tmp_path, images(parts))
    return
  said = f"1 of 4 have other pixels, masks or labels under the same names, as '{where}1'; choose"
  with pytest.raises(UserError, match=said):
    provenance.check_same(tmp_path, images(parts))
