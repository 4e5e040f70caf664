"""What would stop a grid after hours is said before it begins."""

import dataclasses
import re

import numpy as np
import pytest

from ahm_jax.config import REPRODUCE, Config, GridConfig, from_config_dict
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.errors import UserError
from ahm_jax.pipeline import grid as grids
from ahm_jax.runs import directory


def split(count, masks, labels):
  """So many images, the first `masks` of them with a mask, and the last `labels` of them with a
  label.
  """
  names = tuple(f'i{number}' for number in range(count))
  return Split(
    ids=names,
    images=np.zeros((count, 16, 16, 3), np.uint8),
    masks=np.ones((count, 16, 16), np.uint8),
    labels=np.where(np.arange(count) < count - labels, -1, np.arange(count) % 2).astype(np.int32),
    has_mask=np.arange(count) < masks,
    groups=names,
    full_masks=(b'',) * count,
  )


def check(train, labels=(4,), held_out=None, **changes):
  """Checks a grid of two seeds on these training images, and some that are held out, all of them
  with mask and label where it is not told.
  """
  held_out = held_out or split(4, 4, 4)
  names = changes.pop('names', ('a', 'b'))
  data = Dataset('toy', names, {'train': train, 'validation': held_out, 'test': held_out}, ())
  grid = GridConfig(
    methods=changes.pop('methods', GridConfig().methods),
    labels=labels,
    seeds=(0, 1),
    classify=changes.pop('classifies', True),
  )
  classify = dataclasses.replace(Config().classify, labels=changes.pop('classify_labels', 0))
  config = dataclasses.replace(Config(), grid=grid, classify=classify, **changes)
  grids.check_grid(config, data, config.grid.methods)


def test_what_can_be_run_passes():
  check(split(12, 8, 12))
  check(split(12, 8, 4), classify_labels=4)
  check(split(12, 8, 4), labels=(0, 4), classify_labels=4)
  check(split(12, 8, 4), labels=(0,))
  check(split(12, 8, 0), classifies=False)
  check(split(12, 8, 4), methods=('scratch:classify.labels=4',))


@pytest.mark.parametrize(
  ('train', 'options', 'said'),
  [
    (
      split(12, 8, 4),
      {},
      '^none of the 4 training images that a segmentation learns from has a label to classify by; '
      'say how',
    ),
    (split(12, 8, 4), {'labels': (0, 4)}, '^none of the 4 training images'),
    (
      split(12, 8, 4),
      {'classify_labels': 5},
      '^5 labelled training images are asked for, but only 4 of 12 have a label',
    ),
    (
      split(12, 8, 4),
      {'classify_labels': 4, 'methods': ('scratch', 'scratch:classify.labels=5')},
      '^5 labelled training images are asked for, but only 4 of 12 have a label',
    ),
    (
      split(12, 8, 0),
      {'labels': (0,)},
      '^no training image has a label; see the column label and the column split',
    ),
    (
      split(12, 0, 12),
      {'labels': (0,)},
      '^no training image has a mask; see the folder masks/ and the column split',
    ),
    (split(0, 0, 0), {'labels': (0,)}, '^no training image has a mask'),
  ],
)
def test_a_grid_without_images_to_learn_from_is_refused(train, options, said):
  with pytest.raises(UserError, match=said):
    check(train, **options)


TELLING = 'scratch:segment.diagnosis.batch_size=4'


@pytest.mark.parametrize(
  ('train', 'options', 'said'),
  [
    (split(12, 8, 0), {'names': ()}, '^there are fewer than two classes'),
    (split(12, 8, 12), {'held_out': split(4, 4, 0)}, '^no validation image has a label'),
    (
      split(12, 8, 4),
      {'methods': (f'{TELLING}+segment.diagnosis.labels=5',)},
      'only 4 of 12 have a label; lower config.segment.diagnosis.labels$',
    ),
  ],
)
def test_diagnoses_beside_masks_are_looked_at_before_anything_is_trained(train, options, said):
  check(split(12, 8, 12), methods=('scratch', TELLING))
  with pytest.raises(UserError, match=said):
    check(train, **{'classifies': False, 'methods': ('scratch', TELLING), **options})


def test_where_every_method_tells_diagnoses_no_classifier_needs_images():
  check(split(12, 8, 4), methods=(TELLING,))
  with pytest.raises(UserError, match=r'^none of the 4 training images'):
    check(split(12, 8, 4), methods=('scratch', TELLING))


def test_foreign_weights_are_looked_at_for_every_agent_that_takes_them(tmp_path):
  model = dataclasses.replace(Config().model, vgg_weights=str(tmp_path / 'vgg16.npz'))
  with pytest.raises(UserError, match='there is no such file'):
    check(split(12, 8, 12), model=model, classifies=False)
  light = dataclasses.replace(model, agent_trunk='light')
  check(split(12, 8, 12), model=light, classifies=False)


def test_a_method_that_is_no_strategy_is_refused_with_the_nearest():
  data = Dataset('toy', (), {}, ())
  with pytest.raises(UserError, match=r"'unifrom' is no masking strategy; .*did you mean uniform?"):
    grids.check_grid(Config(), data, ('scratch', 'unifrom'))


@pytest.mark.parametrize(
  ('grid', 'message'),
  [
    (
      {'methods': ('scratch', 'imagenet')},
      "config.grid.methods holds 'imagenet': 'imagenet' is no masking strategy; there are uniform",
    ),
    ({'methods': ('amh',)}, 'did you mean ahm?'),
    ({'methods': ('scratch', '')}, "config.grid.methods holds '': '' is no masking strategy"),
    ({'methods': ('ahm', 'ahm')}, "holds 'ahm' and 'ahm', which are the same; leave out one"),
    ({'methods': ('ahm', 'ahm:')}, "holds 'ahm' and 'ahm:', which are the same; leave out one"),
    (
      {'methods': ('ahm:rounds=2', 'r2'), 'variants': {'r2': {'strategy': 'ahm', 'rounds': 2}}},
      "holds 'ahm:rounds=2' and 'r2', which are the same; leave out one",
    ),
    (
      {'methods': ('ahm', 'uniform'), 'all_labels': ('ahm', 'scratch')},
      "config.grid.all_labels holds 'scratch', which is none of config.grid.methods",
    ),
    ({'variants': {'r2': {'strategy': 'ham'}}}, "'ham' is no masking strategy"),
    (
      {'baselines': ('scratch', 'scratch_contrl')},
      "config.grid.baselines holds 'scratch_contrl': 'scratch_contrl' is no masking strategy",
    ),
    ({'baselines': ('ahm:round=2',)}, 'did you mean masking.rounds?'),
    ({'variants': {'r2': {'strategy': 'ahm', 'round': 2}}}, 'did you mean masking.rounds?'),
    (
      {'methods': ('r2',), 'variants': {'r2': {'strategy': 'reinforced'}}},
      "config.grid.methods holds 'r2': 'reinforced' is no masking strategy",
    ),
    (
      {'variants': {'hpm': {'strategy': 'ahm'}}},
      "config.grid.variants holds 'hpm', which is a masking strategy",
    ),
    ({'methods': ('ahm:rounds=0',)}, 'config.masking.rounds is 0; it must be at least 1'),
  ],
)
def test_a_method_that_is_none_is_refused_before_anything_is_written(grid, message, tmp_path):
  config = from_config_dict({'grid': grid})
  with pytest.raises(UserError, match=re.escape(message)):
    grids.reproduce(config, tmp_path / 'grid')
  assert not list(tmp_path.iterdir())


def test_methods_are_strategies_with_changes_and_names_for_them():
  methods = ('scratch', 'scratch:segment.steps=7', 'uniform', 'ahm:rounds=3', 'r2')
  variants = {'r2': {'strategy': 'ahm', 'rounds': 2}}
  grids.check_methods(from_config_dict({'grid': {'methods': methods, 'variants': variants}}))


def test_a_name_keeps_its_meaning_over_all_grids_of_a_directory(tmp_path):
  def grid(rounds, **methods):
    variants = {'soft': {'strategy': 'ahm', 'rounds': rounds}} if rounds else {}
    return from_config_dict({'grid': {'variants': variants, **methods}})

  first = grids._with_known_variants(grid(2, methods=('soft',)), tmp_path)
  directory.claim(tmp_path, REPRODUCE, first)
  assert not grids._with_known_variants(grid(2), tmp_path / 'other').grid.variants
  later = grids._with_known_variants(grid(0), tmp_path)
  assert later.grid.variants == first.grid.variants == grid(2).grid.variants
  directory.claim(tmp_path, REPRODUCE, later)
  with pytest.raises(UserError, match=r'with config.grid.variants.soft = .*2.*, and this .*3'):
    directory.check(tmp_path, REPRODUCE, grid(3, methods=('soft',)))
