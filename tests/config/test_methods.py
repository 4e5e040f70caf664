import dataclasses
import json
import re

import ml_collections
import pytest

from ahm_jax import config
from ahm_jax.config import methods
from ahm_jax.config.methods import (
  Change,
  Method,
  is_tuned,
  parse,
  pretraining_of,
  with_method,
)
from ahm_jax.errors import UserError

TUNING = 'segment.', 'transfer.', 'data.', 'classify.', 'classifier.'
VARIANTS = {
  'ahm_r2': {'strategy': 'ahm', 'rounds': 2, 'pretrain': {'clip': 2.0}},
  'ahm_slow': {'strategy': 'ahm', 'segment': {'learning_rate': 1e-3}},
  'r2_slow': {
    'strategy': 'ahm',
    'rounds': 2,
    'pretrain': {'clip': 2.0},
    'segment': {'learning_rate': 1e-3},
  },
}


def make(**grid):
  """The default Config with two rounds, 7 labels and fields of its grid."""
  return config.from_config_dict({'masking': {'rounds': 2}, 'grid': {'labels': (7,), **grid}})


@pytest.mark.parametrize(
  ('text', 'strategy', 'changes'),
  [
    ('scratch', 'scratch', {}),
    ('ahm', 'ahm', {}),
    ('ahm:', 'ahm', {}),
    ('ahm:pretrain.clip=1e+3+rounds=2', 'ahm', {'pretrain.clip': '1e+3', 'rounds': '2'}),
    ('ahm:rounds=2', 'ahm', {'rounds': '2'}),
    ('ahm:reward=rank+pretrain.clip=2', 'ahm', {'reward': 'rank', 'pretrain.clip': '2'}),
    ('ahm:rounds=', 'ahm', {'rounds': ''}),
    ('ahm:rounds', 'ahm', {'rounds': None}),
    ('ahm:rounds=2+', 'ahm', {'rounds': '2', '': None}),
    ('', '', {}),
  ],
)
def test_the_short_form_is_taken_apart(text, strategy, changes):
  method = parse(text)
  assert method == Method(strategy, tuple(Change(*item) for item in changes.items()))
  if '' not in changes and not text.endswith(':'):
    assert str(method) == text


def test_a_method_names_a_strategy_and_what_is_changed_for_it():
  plain = make()
  one = config.with_method(plain, 'reinforce')
  assert one.masking == dataclasses.replace(plain.masking, strategy='reinforce')
  other = config.with_method(
    plain, 'ahm:mask_ratio=0.4+patch_size=8+reward=rank+restore_colour=True'
  )
  assert other.masking == dataclasses.replace(
    plain.masking, mask_ratio=0.4, patch_size=8, reward='rank', restore_colour=True
  )
  assert dataclasses.replace(other, masking=plain.masking, grid=plain.grid) == plain
  far = config.with_method(
    plain, 'uniform:model.agent_trunk=light+pretrain.learning_rate=1e-3+masking.rounds=1'
  )
  assert (far.model.agent_trunk, far.pretrain.learning_rate, far.masking.rounds) == (
    'light',
    1e-3,
    1,
  )
  joint = config.with_method(make(), 'uniform:rounds=1+pretrain.pixels=0+pretrain.features=1.0')
  assert (joint.pretrain.pixels, joint.pretrain.features, joint.pretrain.contrast) == (0, 1, 0)
  tuned = config.with_method(plain, 'ahm:transfer.encoder_rate=0.3+segment.steps=7')
  assert (tuned.transfer.encoder_rate, tuned.segment.steps) == (0.3, 7)
  assert config.with_method(plain, 'scratch:segment.steps=7').masking == plain.masking
  whole = config.with_method(plain, 'scratch:classify.input=image+classifier.steps=7')
  assert (whole.classify.input, whole.classifier.steps) == ('image', 7)
  for strategy in ('scratch', 'ahm'):
    listed = config.with_method(plain, f'{strategy}:data.labelled_from=runs/a_1/selection.csv')
    assert listed.data == dataclasses.replace(plain.data, labelled_from='runs/a_1/selection.csv')


@pytest.mark.parametrize(
  ('method', 'pretraining'),
  [
    ('scratch', ''),
    ('scratch:segment.steps=7', ''),
    ('ahm', 'ahm'),
    ('ahm:segment.steps=7', 'ahm'),
    ('ahm:rounds=2+data.labelled_from=a/b.csv', 'ahm:rounds=2'),
    ('ahm:pretrain.learning_rate=1e-3', 'ahm:pretrain.learning_rate=1e-3'),
    ('uniform:pretrain.features=1.0+segment.steps=7', 'uniform:pretrain.features=1.0'),
    ('ahm:rounds=2+transfer.encoder_rate=0.3+pretrain.clip=2', 'ahm:rounds=2+pretrain.clip=2'),
    ('ahm:classify.labels=9+rounds=2+classifier.steps=7', 'ahm:rounds=2'),
  ],
)
def test_fine_tuning_is_no_part_of_a_pretraining(method, pretraining):
  assert config.pretraining_of(method) == pretraining
  assert is_tuned(method) == any(name in method for name in TUNING)


@pytest.mark.parametrize(
  ('method', 'message'),
  [
    ('ahm:mask_ratio', "where 'mask_ratio' is not FIELD=VALUE"),
    ('ahm:rounds=2+', "where '' is not FIELD=VALUE"),
    ('ahm:mask_ration=0.5', 'did you mean masking.mask_ratio?'),
    ('ahm:mask_ratio=2', 'config.masking.mask_ratio is 2.0'),
    ('ahm:patch_size=5', 'config.masking.patch_size is 5'),
    ('ahm:patch_size=big', "config.masking.patch_size must be of type int, not 'big'"),
    ('ahm:model.unet_width=8', "where 'model.unet_width=8' is not FIELD=VALUE"),
    ('ahm:strategy=uniform', "where 'strategy=uniform' is not FIELD=VALUE"),
    ('scratch:mask_ratio=0.5', "where 'mask_ratio=0.5' is not segment.FIELD=VALUE"),
    ('scratch:transfer.encoder_rate=0.5', 'is not segment.FIELD=VALUE'),
    ('scratch:segment.step=5', 'did you mean segment.steps?'),
    ('ahm:data.image_size=64', "where 'data.image_size=64' is not FIELD=VALUE"),
    ('scratch:data.labels=5', "where 'data.labels=5' is not segment.FIELD=VALUE, data.labelled"),
    ('ahm:data.labelled_from=5', 'config.data.labelled_from must be of type str, not 5'),
    ('ahm:pretrain.pixels=0', 'config.pretrain.contrast are all 0'),
    ('ahm:pretrain.feature=1', 'did you mean pretrain.features?'),
    ('ahm:pretrain.augment.hues=0', 'did you mean pretrain.augment.hue?'),
    ('ahm:pretrain.steps.hue=0', 'config has no field pretrain.steps.hue: steps is no section'),
    ('scratch:segment.unlabelled.size=8', 'did you mean segment.unlabelled.'),
    ('scratch:classify.inputs=image', 'did you mean classify.input?'),
    (
      'ahm:segment.diagnosis.batch_size=8+classify.labels=9',
      "classify.labels=9', whose segmentation tells the diagnosis itself; leave out",
    ),
  ],
)
def test_a_method_that_names_nothing_is_refused(method, message):
  with pytest.raises(UserError, match=re.escape(message)):
    config.with_method(make(), method)


def test_a_variant_is_another_name_of_a_short_form():
  plain = make(methods=('scratch', *VARIANTS), variants=VARIANTS)
  for name, text in (
    ('ahm_r2', 'ahm:pretrain.clip=2.0+rounds=2'),
    ('ahm_slow', 'ahm:segment.learning_rate=0.001'),
    ('r2_slow', 'ahm:pretrain.clip=2.0+rounds=2+segment.learning_rate=0.001'),
  ):
    assert str(parse(name, plain.grid.variants)) == text
    assert config.with_method(plain, name) == config.with_method(plain, text)


def test_variants_that_differ_in_fine_tuning_share_a_pretraining():
  variants = make(variants=VARIANTS).grid.variants
  pretrainings = [pretraining_of(name, variants) for name in ('ahm_slow', 'ahm_r2', 'r2_slow')]
  assert pretrainings == ['ahm', *['ahm:pretrain.clip=2.0+rounds=2'] * 2]
  named = [
    methods.pretraining_name(pretrainings[1], make(variants=VARIANTS, methods=used).grid)
    for used in (('ahm', 'ahm_r2', 'r2_slow'), ('ahm', 'r2_slow'))
  ]
  assert named == ['ahm_r2', pretrainings[1]]
  assert [is_tuned(name, variants) for name in VARIANTS] == [False, True, True]
  assert pretraining_of('ahm_r2')  # Of its name alone can be told that it pre-trains.


def test_variants_come_from_a_config_file_and_survive_json():
  tree = config.default()
  tree.grid.methods, tree.grid.variants = ('scratch', 'ahm_r2'), VARIANTS
  built = config.from_config_dict(tree)
  assert built.grid.variants == VARIANTS and hash(built) == hash(config.from_config_dict(tree))
  assert config.from_config_dict(json.loads(json.dumps(config.to_dict(built)))) == built
  assert config.from_config_dict(ml_collections.ConfigDict(config.to_dict(built))) == built


@pytest.mark.parametrize(
  ('variants', 'message'),
  [
    *(
      ({name: {'strategy': 'ahm'}}, f'holds {name!r}; a name may have up to 100 letters')
      for name in ('a/b', 'ahm:r2', 'a.b', '', 'x' * 101, 1)
    ),
    ({'.ahm': {'strategy': 'ahm'}}, "holds '.ahm'"),
    ({'scratch': {'strategy': 'ahm'}}, "holds 'scratch'"),
    ({'r2': {'rounds': 2}}, "holds 'r2', which has no strategy"),
    ({'r2': 'ahm:rounds=2'}, "holds 'r2', which has no strategy"),
    ({'slow': {'strategy': 'scratch'}}, 'are those of methods without pre-training'),
    ({'scratch_x': {'strategy': 'ahm'}}, 'are those of methods without pre-training'),
  ],
)
def test_a_variant_without_name_or_strategy_is_refused(variants, message):
  with pytest.raises(UserError, match=re.escape(message)):
    make(variants=variants)


def test_a_variant_may_go_without_pre_training():
  slow = {'strategy': 'scratch', 'segment': {'learning_rate': 1e-4, 'unlabelled': {'weight': 0.5}}}
  variants = make(variants={'scratch_slow': slow}).grid.variants
  changed = with_method(make(variants=variants), 'scratch_slow')
  assert changed.segment.learning_rate == 1e-4
  assert changed.segment.unlabelled.weight == 0.5
  assert pretraining_of('scratch_slow', variants) == pretraining_of('scratch_slow') == ''
  assert is_tuned('scratch_slow', variants)
  wrong = make(variants={'scratch_x': {'strategy': 'scratch', 'rounds': 2}})
  with pytest.raises(UserError, match=r"'rounds=2' is not segment\.FIELD=VALUE"):
    with_method(wrong, 'scratch_x')


@pytest.mark.parametrize('value', [1e22, 1e-22, 3, True, 'rank', (0.1, 0.2)])
def test_values_of_variants_come_back_as_they_are(value):
  variants = make(variants={'own': {'strategy': 'ahm', 'entropy_weight': value}}).grid.variants
  (change,) = parse(str(parse('own', variants))).changes
  assert methods._literal(change.value) == value


def test_a_variant_changes_what_a_method_may():
  grid = make(variants={'large': {'strategy': 'ahm', 'data': {'image_size': 64}}})
  with pytest.raises(UserError, match=r"holds 'large', where 'data.image_size=64' is not FIELD="):
    config.with_method(grid, 'large')


@pytest.mark.parametrize(
  ('method', 'segmentation'),
  [
    ('scratch', 'scratch'),
    ('ahm_slow', 'ahm_slow'),
    ('ahm:segment.learning_rate=0.001+classify.labels=9', 'ahm_slow'),
    ('scratch:classify.input=image', 'scratch'),
    ('ahm:classifier.steps=7+segment.steps=9', 'ahm:segment.steps=9'),
  ],
)
def test_how_it_classifies_is_no_part_of_a_segmentation(method, segmentation):
  grid = make(variants=VARIANTS, methods=(method, 'ahm_slow')).grid
  assert config.segmentation_of(method, grid) == segmentation
