"""Which pseudo-masks of a grid its report shows."""

import dataclasses

import numpy as np
import pytest

from ahm_jax.config import Config, GridConfig, UnlabelledConfig
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.pipeline import pseudo_masks, stages
from ahm_jax.pipeline.cells import cell_of
from ahm_jax.pipeline.setup import Run, Start
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs import snapshots

SIDE = 16
NAMES = tuple(f'i{number}' for number in range(8))
MASKED = 5  # The first five have a mask.


@pytest.fixture
def data():
  masks = np.zeros((8, SIDE, SIDE), np.uint8)
  masks[:, :8] = 1
  train = Split(
    *(NAMES, np.zeros((8, SIDE, SIDE, 3), np.uint8), masks, np.zeros(8, np.int32)),
    *(np.arange(8) < MASKED, NAMES, (b'',) * 8),
  )
  return Dataset('toy', (), {'train': train, 'validation': train.take(range(4))}, ())


def cells(home, *methods, seeds=(0,)):
  return [cell_of(home, method, 20, seed, GridConfig()) for seed in seeds for method in methods]


def keep(cell, steps, indices=(3, 6), dtype=np.int32, side=SIDE):
  folder = cell.directory(SEGMENT)
  folder.mkdir(parents=True, exist_ok=True)
  for step in steps:
    found = np.full((len(indices), side, side), step % 256, np.uint8)
    arrays = {'indices': np.array(indices, dtype), 'pseudo_masks': found}
    snapshots.write(folder, step, arrays)


def test_the_first_run_of_each_method_that_kept_any(tmp_path, data):
  other = 'scratch:segment.unlabelled.teacher=runs/x'
  config = Config(grid=GridConfig(methods=('scratch', 'a', other)))
  every = cells(tmp_path, 'scratch', 'scratch:segment.ema_decay=0.9', other, seeds=(0, 1))
  assert pseudo_masks.courses(every, config, data) == []
  keep(every[1], range(10, 201, 10))
  for cell in (every[2], every[5]):
    keep(cell, (51, 102))
  one, two = pseudo_masks.courses(every, config, data)
  assert (one.method, two.method) == ('scratch:segment.ema_decay=0.9', other)
  assert (one.labels, one.seed, one.own_teacher, two.own_teacher) == (20, 0, True, False)
  # Five of twenty steps, evenly spread; the truth only where there is one.
  assert [list(image.found) for image in one.images] == [[10, 60, 110, 150, 200]] * 2
  assert [image.id for image in one.images] == ['i3', 'i6']
  assert one.images[0].truth.dtype == bool and one.images[0].truth.sum() == 8 * SIDE
  assert one.images[1].truth is None
  np.testing.assert_allclose(two.images[0].found[51], 0.2)


def test_classes_are_kept_as_they_are(tmp_path, data):
  (cell,) = cells(tmp_path, 'scratch')
  keep(cell, (1, 2))
  (course,) = pseudo_masks.courses(
    [cell], Config(), dataclasses.replace(data, mask_classes=('disc', 'cup'))
  )
  image = course.images[0]
  assert course.mask_classes == ('disc', 'cup') and image.truth.dtype == np.uint8
  assert (image.found[2].dtype, image.found[2].max()) == (np.uint8, 2)


@pytest.mark.parametrize(
  'change',
  [{'indices': (3, 8)}, {'indices': (-1, 2)}, {'indices': ()}, {'dtype': np.int64}, {'side': 8}],
)
def test_what_is_no_snapshot_of_these_images_is_left_out(tmp_path, data, change):
  (cell,) = cells(tmp_path, 'scratch')
  keep(cell, (1, 2))
  keep(cell, (3, 4), **change)
  snapshots.write(cell.directory(SEGMENT), 5, {'policy': np.zeros((2, 4, 4))})
  (course,) = pseudo_masks.courses([cell], Config(), data)
  assert list(course.images[0].found) == [1, 2]
  keep(cell, (5,), indices=(2, 6))  # Of other images: the last are shown.
  (course,) = pseudo_masks.courses([cell], Config(), data)
  assert [list(image.found) for image in course.images] == [[5]] * 2


@pytest.mark.parametrize(
  ('batch_size', 'labels', 'kept'), [(2, 3, True), (0, 3, False), (2, 0, True)]
)
def test_a_plan_keeps_them_where_unlabelled_images_are_used(
  tmp_path, data, batch_size, labels, kept
):
  """With all labels too, as some images have none."""
  own = dataclasses.replace(
    Config().segment, ema_decay=0.9, unlabelled=UnlabelledConfig(batch_size=batch_size)
  )
  config = Config(segment=own, data=dataclasses.replace(Config().data, labels=labels))
  plan = stages.SEGMENT.plan(Run(SEGMENT, config, tmp_path, data, Start()))
  assert (plan.task.snapshot is not None) == kept
