import dataclasses
import json
import re

import ml_collections
import pytest
from ml_collections.config_flags import tuple_parser

from ahm_jax import config
from ahm_jax.errors import UserError

RECIPES = ('pretrain', 'segment', 'classifier')


def changed(**fields):
  """The default Config with fields changed as a command line changes them:
  changed(**{'masking.workers': 3}).
  """
  tree = config.default().to_dict()
  for name, value in fields.items():
    *rooms, leaf = name.split('.')
    branch = tree
    for room in rooms:
      branch = branch[room]
    branch[leaf] = value
  return config.from_config_dict(tree)


def paths(cls, prefix=''):
  for item in dataclasses.fields(cls):
    value = getattr(cls, item.name)
    if dataclasses.is_dataclass(value):
      yield from paths(value, f'{prefix}{item.name}.')
    else:
      yield prefix + item.name


def test_defaults_are_valid_and_are_the_papers():
  default = config.from_config_dict({})
  assert default == config.Config()
  assert (default.pretrain.learning_rate, default.pretrain.batch_size) == (2e-4, 12)
  segment = default.segment
  assert (segment.learning_rate, segment.batch_size, segment.decay_rate, segment.decay_epochs) == (
    3e-4,
    4,
    0.9,
    3,
  )
  assert (default.data.image_size, default.masking.rounds, default.masking.strategy) == (
    224,
    1,
    'ahm',
  )


def test_defaults_survive_json_and_a_config_dict():
  default = config.Config()
  assert config.from_config_dict(config.default()) == default
  assert config.from_config_dict(json.loads(json.dumps(config.to_dict(default)))) == default
  assert config.from_config_dict(ml_collections.ConfigDict(config.to_dict(default))) == default


def test_changes_survive_json():
  fields = {
    'grid.seeds': (4, 5),
    'grid.methods': ('uniform',),
    'segment.steps': 7,
    'data.split_fractions': [0.5, 0.25, 0.25],
  }
  one = changed(
    **fields,
    **{'data.root': 'somewhere', 'masking.restore_colour': True, 'pretrain.augment.flip': False},
  )
  assert (
    one.grid.seeds == (4, 5)
    and one.data.split_fractions == (0.5, 0.25, 0.25)
    and not one.pretrain.augment.flip
  )
  assert config.from_config_dict(json.loads(json.dumps(config.to_dict(one)))) == one
  assert hash(one) == hash(config.from_config_dict(config.to_dict(one)))


def test_missing_fields_take_the_defaults_of_their_place():
  """A recipe's defaults differ from stage to stage."""
  default = config.Config()
  built = config.from_config_dict({'segment': {'clip': 0.5}, 'masking': {'workers': 2}})
  assert built.segment == dataclasses.replace(default.segment, clip=0.5)
  assert built.masking == dataclasses.replace(default.masking, workers=2)
  assert built.pretrain == default.pretrain


def test_the_config_dict_has_every_field_and_takes_overrides():
  tree = config.default()
  for path in paths(config.Config()):
    branch = tree
    for name in path.split('.'):
      assert name in branch, path
      branch = branch[name]
  tree.pretrain.steps = 5  # A field that holds None by default.
  tree.pretrain.epochs = None
  tree.masking.mask_ratio = 0.75
  built = config.from_config_dict(tree)
  assert (built.pretrain.steps, built.pretrain.epochs, built.masking.mask_ratio) == (5, None, 0.75)
  with pytest.raises(TypeError):
    tree.pretrain.steps = 'many'


def test_whole_numbers_are_taken_for_real_ones_and_single_values_for_lists():
  built = changed(**{'pretrain.epochs': 3, 'grid.seeds': 1})
  assert built.pretrain.epochs == 3.0 and isinstance(built.pretrain.epochs, float)
  assert built.grid.seeds == (1,)


@pytest.mark.parametrize(
  ('field', 'suggestion'),
  [
    ('masking.mask_ration', 'masking.mask_ratio'),
    ('masking.polarities', 'masking.polarity'),
    ('data.phantom.trian', 'data.phantom.train'),
    ('pretrain.learning_rat', 'pretrain.learning_rate'),
    ('segment.augment.flips', 'segment.augment.flip'),
    ('maskin', 'masking'),
  ],
)
def test_an_unknown_field_names_the_nearest(field, suggestion):
  with pytest.raises(UserError, match=re.escape(f'no field {field}; did you mean {suggestion}?')):
    changed(**{field: 1})


@pytest.mark.parametrize(
  ('field', 'value', 'kind'),
  [
    ('masking.workers', 2.5, 'int'),
    ('masking.workers', True, 'int'),
    ('masking.restore_colour', 1, 'bool'),
    ('masking.mask_ratio', 'half', 'float'),
    ('masking.strategy', 3, 'str'),
    ('segment.steps', 1.5, 'int'),
    ('grid.variants', 'ahm', 'dict'),
    ('grid.seeds', (0, 'one'), 'int'),
    ('seed', None, 'int'),
  ],
)
def test_a_value_of_the_wrong_type_is_refused(field, value, kind):
  with pytest.raises(UserError, match=rf'^config\.{re.escape(field)} must be of type {kind}'):
    changed(**{field: value})


OUT_OF_RANGE = [
  ('seed', -1),
  ('seed', 2**63),
  ('data.split_seed', -1),
  ('data.split_seed', 2**63),
  ('grid.seeds', (0, 2**63)),
  ('data.mask_suffix', 'masks/x'),
  ('data.mask_suffix', 'a\nb'),
  ('data.image_size', 0),
  ('data.image_size', 8),
  ('data.image_size', 100),
  ('data.image_size', 232),
  ('data.channels', 2),
  ('data.labels', -1),
  ('data.split_fractions', (0.5, 0.5)),
  ('data.split_fractions', (0.7, 0.1, 0.1)),
  ('data.split_fractions', (1.2, -0.4, 0.2)),
  ('data.resident_share', 1.5),
  ('data.window', (40.0,)),
  ('data.window', (40.0, 0.0)),
  ('data.window', (float('nan'), 400.0)),
  ('data.slice_axis', 3),
  ('data.every_slice', 0),
  ('data.fold', -1),
  ('data.phantom.train', 0),
  ('data.phantom.validation', 0),
  ('data.phantom.test', 0),
  ('model.unet_width', 0),
  ('model.agent_width', 0),
  ('model.vgg_width', 0),
  ('model.vgg_hidden', 0),
  ('model.dtype', 'float16'),
  ('model.agent_trunk', 'resnet'),
  ('model.vgg_norm', 'layer'),
  ('masking.mask_ratio', 0),
  ('masking.mask_ratio', 1),
  ('masking.mask_ratio', 1.2),
  ('masking.mask_ratio', float('nan')),
  ('masking.patch_size', 5),
  ('masking.patch_size', 0),
  ('masking.reward', 'linear'),
  ('masking.entropy_weight', float('inf')),
  ('masking.reward_within', 'batch'),
  ('masking.workers', 0),
  ('masking.rounds', 0),
  ('masking.gamma', 1.1),
  ('masking.warmup', -0.1),
  ('masking.entropy_weight', -1),
  ('masking.value_weight', -1),
  ('masking.learning_rate', -1e-4),
  ('masking.learning_rate', float('nan')),
  ('transfer.encoder_rate', 1.5),
  ('segment.epochs', float('inf')),
  ('segment.decay_epochs', float('nan')),
  ('segment.clip', float('inf')),
  ('masking.polarity', 'soft'),
  ('masking.budget', 'lesion'),
  ('masking.warmup_by', 'ratio'),
  ('masking.hard_share', 1.5),
  *(
    (f'{stage}.{name}', value)
    for stage in RECIPES
    for name, value in (('epochs', 0), ('steps', 0), ('log_every', 0))
  ),
  ('segment.batch_size', 0),
  ('pretrain.pixels', -1),
  ('pretrain.features', -0.5),
  ('pretrain.contrast', float('inf')),
  ('classifier.learning_rate', -1),
  ('segment.optimizer', 'sgd'),
  ('segment.schedule', 'linear'),
  ('segment.warmup', 2),
  ('segment.decay_rate', 1.5),
  ('segment.decay_epochs', 0),
  ('segment.weight_decay', -1),
  ('segment.clip', -1),
  ('segment.min_epochs', -1),
  ('segment.eval_every', -1),
  ('segment.patience', -1),
  ('segment.augment.scale', 1),
  ('segment.augment.zoom_out', 4),
  ('segment.unlabelled.agreement', 1.1),
  ('segment.augment.brightness', -0.1),
  ('segment.augment.contrast', 2),
  ('segment.augment.hue', 2),
  ('classify.input', 'cropped'),
  ('classify.margin', -1),
  ('classify.labels', -1),
  ('evaluate.split', 'tests'),
  ('evaluate.batch_size', 0),
  ('evaluate.threshold', 0),
  ('evaluate.threshold', 1),
  ('evaluate.bootstrap_samples', 10),
  ('evaluate.report_images', -1),
  ('evaluate.viewer_images', -1),
  ('grid.labels', (20, -1)),
  ('grid.methods', ()),
  ('grid.labels', ()),
  ('grid.seeds', ()),
]


@pytest.mark.parametrize(('field', 'value'), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name_in_one_line(field, value):
  with pytest.raises(UserError, match=rf'^config\.{re.escape(field)} is ') as error:
    changed(**{field: value})
  assert '\n' not in str(error.value)


def test_the_edges_of_ranges_are_taken():
  changed(
    **{
      'masking.mask_ratio': 0.01,
      'masking.gamma': 0,
      'masking.warmup': 0,
      'masking.workers': 12,
      'data.image_size': 16,
      'seed': 2**63 - 1,
      'data.split_seed': 2**63 - 1,
      'data.mask_suffix': '_mask (1)',
    }
  )
  changed(
    **{
      'masking.mask_ratio': 0.99,
      'masking.gamma': 1,
      'masking.patch_size': 32,
      'data.image_size': 32,
    }
  )


STILL = {
  f'segment.unlabelled.augment.{name}': value
  for name, value in (('flip', False), ('brightness', 0.0), ('contrast', 0.0), ('hue', 0.0))
}


@pytest.mark.parametrize('name', ['flip', 'brightness', 'contrast', 'hue'])
def test_any_change_makes_two_looks_at_an_image(name):
  fields = {**STILL, f'segment.unlabelled.augment.{name}': name == 'flip' or 0.1}
  recipe = changed(**fields, **{'segment.unlabelled.agreement': 0.9}).segment
  assert recipe.unlabelled.agreement == 0.9


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'data.image_size': 100},
      'not a multiple of 16 (the U-Net halves it four times); the nearest is 96',
    ),
    (
      {'data.image_size': 48, 'masking.patch_size': 32},
      'not a multiple of 32 (config.masking.patch_size); the nearest is 64',
    ),
    (
      {'model.vgg_norm': 'bach'},
      "config.model.vgg_norm is 'bach'; it may be '', batch; did you mean batch?",
    ),
    (
      {'data.image_size': 48, 'masking.budget': 'tile'},
      'tiles of 2 x 2 patches, which do not divide the grid of 3 x 3 patches',
    ),
    (
      {'data.image_size': 32, 'masking.mask_ratio': 0.1, 'masking.strategy': 'adamae'},
      'config.masking.mask_ratio is 0.1, of which the strategy adamae masks exactly 0 of 4 patches',
    ),
    (
      {'data.image_size': 32, 'masking.mask_ratio': 0.9, 'masking.strategy': 'adamae'},
      'masks exactly 4 of 4 patches',
    ),
    (
      {'pretrain.pixels': 0.0},
      'config.pretrain.pixels, config.pretrain.features and config.pretrain.contrast are all 0; '
      'give one of them a weight',
    ),
    *(
      (
        {'pretrain.pixels': 0, 'pretrain.features': 1, **fields},
        f'config.{said} needs a reconstruction, which config.pretrain.pixels=0 leaves untrained',
      )
      for fields, said in (
        ({'masking.strategy': 'anatomask'}, 'masking.strategy=anatomask'),
        ({'masking.strategy': 'adios'}, 'masking.strategy=adios'),
        ({'masking.rounds': 2}, 'masking.rounds=2'),
        ({'pretrain.patience': 3}, 'pretrain.patience=3'),
      )
    ),
    (
      {'pretrain.pixels': 0, 'pretrain.contrast': 1, 'masking.reward': 'progress'},
      'config.masking.reward=progress needs a reconstruction',
    ),
    (
      {'pretrain.features': 2, 'masking.reward': 'progress'},
      'config.masking.reward is progress, of reconstruction alone, and config.pretrain.features is '
      '2.0; take the reward log or rank',
    ),
    (
      {'segment.ema_decay': 0.9, 'segment.unlabelled.batch_size': 3},
      'config.segment.unlabelled.batch_size is 3, and unlabelled images come in pairs; make it '
      'even',
    ),
    (
      {'segment.unlabelled.batch_size': 4},
      'config.segment.unlabelled needs a teacher, which is a moving average of the network; set '
      'config.segment.ema_decay',
    ),
    *(
      (
        {**STILL, 'segment.unlabelled.agreement': 0.9, **fields},
        'config.segment.unlabelled.agreement compares two looks at an image, which are the same',
      )
      for fields in ({}, {'segment.unlabelled.augment.hue': 0.1, 'data.channels': 1})
    ),
    (
      {'model.vgg_input': 'caffe'},
      'config.model.vgg_input=caffe gives a VGG16 numbers up to 151, which suit weights that were',
    ),
    ({'segment.epochs': None}, 'config.segment.steps and config.segment.epochs are both unset'),
  ],
)
def test_the_message_says_what_to_do(fields, message):
  with pytest.raises(UserError, match=re.escape(message)):
    changed(**fields)


def test_a_vgg16_may_see_images_as_others_weights_do():
  for fields in ({'vgg_input': 'torchvision'}, {'vgg_input': 'caffe', 'vgg_weights': 'w.npz'}):
    model = changed(**{f'model.{name}': value for name, value in fields.items()}).model
    assert model.vgg_input == fields['vgg_input']


def test_uniform_masks_need_no_reconstruction_and_pay_nobody():
  config = changed(
    **{
      'masking.strategy': 'uniform',
      'masking.reward': 'progress',
      'pretrain.pixels': 0,
      'pretrain.features': 1,
      'pretrain.contrast': 0.5,
    }
  )
  recipe = config.pretrain
  assert (recipe.pixels, recipe.features, recipe.contrast) == (0, 1, 0.5)


def test_names_may_be_given_as_one_text_with_commas():
  assert changed(**{'grid.methods': ('scratch,ahm',)}).grid.methods == ('scratch', 'ahm')
  assert changed(**{'grid.methods': ('ahm',)}).grid.methods == ('ahm',)
  two = 'scratch,ahm:rounds=2+mask_ratio=0.75'
  assert changed(**{'grid.methods': two}).grid.methods == tuple(two.split(','))


FOLDER = {'data.name': 'folder', 'data.root': 'mine'}


def test_mask_classes_are_names_of_values():
  assert changed(**FOLDER, **{'data.mask_classes': ('Optic_disc', 'cup-2')}).data.mask_classes == (
    'Optic_disc',
    'cup-2',
  )
  # As a flag has it.
  assert changed(**FOLDER, **{'data.mask_classes': 'disc,cup'}).data.mask_classes == (
    'disc',
    'cup',
  )
  assert changed(**FOLDER, **{'data.mask_classes': ()}).data.mask_classes == ()


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (('optic disc', 'cup'), "holds 'optic disc'; a name may have letters, digits, _ and -"),
    (('a/b',), "holds 'a/b'"),
    (('cup\n',), 'a name may have letters'),
    (('',), "holds ''"),
    (('zystä',), "holds 'zystä'"),
    (('cup', 'disc', 'cup'), "holds 'cup' twice"),
    (('Background', 'cup'), 'holds background, which is value 0 by itself'),
    (('cup', 'mm'), "holds 'mm', but hd95_mm is the distance in millimetres; choose another name"),
    (tuple(f'c{k}' for k in range(256)), 'holds 256 names; masks of 8 bits have room for 255'),
  ],
)
def test_mask_classes_that_cannot_be_told_apart_or_written_are_refused(names, message):
  with pytest.raises(UserError, match=r'config\.data\.mask_classes') as caught:
    changed(**FOLDER, **{'data.mask_classes': names})
  assert message in str(caught.value)


MODALITIES = ('flair', 't1', 't2')


def test_the_depth_of_images():
  depths = [changed(**fields).data.depth for fields in ({}, {'data.channels': 1})]
  assert depths == [3, 1]
  data = changed(**{'data.modalities': 'flair,t1,t2', 'data.intensity': 'zscore'}).data
  assert (data.modalities, data.intensity) == (MODALITIES, ('zscore',))
  assert data.depth == 3 and not data.is_colour
  assert changed().data.is_colour and not changed(**{'data.channels': 1}).data.is_colour


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'modalities': ('t1', 'T1')}, 'holds t1 twice'),
    ({'modalities': ('t1', '')}, "holds ''"),
    ({'modalities': ('t1', '../t2')}, "holds '../t2'"),
    ({'modalities': ('t1', 't 2')}, "holds 't 2'"),
    ({'modalities': ('-t1',)}, "holds '-t1'"),
    ({'modalities': ('t1', '2d')}, "holds '2d'"),
    ({'modalities': ('t' * 33,)}, 'up to 32'),
    ({'modalities': tuple(f'm{i}' for i in range(17))}, 'holds 17 names; there may be 16'),
    ({'modalities': MODALITIES, 'channels': 1}, 'data.channels is 1.*leave it at 3'),
    ({'modalities': MODALITIES, 'window': (40, 400)}, 'data.window is .*data.intensity'),
    ({'modalities': MODALITIES, 'intensity': ('zscore',) * 2}, '2 entries.*names 3'),
    ({'modalities': MODALITIES, 'intensity': ()}, 'intensity is empty'),
    ({'modalities': MODALITIES, 'intensity': ('z-score',)}, "holds 'z-score'; an entry may be"),
    ({'modalities': MODALITIES, 'intensity': ('window/40',)}, "holds 'window/40'"),
    ({'modalities': MODALITIES, 'intensity': ('window/40/0',)}, "holds 'window/40/0'"),
    ({'modalities': MODALITIES, 'intensity': ('window/nan/4',)}, "holds 'window/nan/4'"),
    ({'modalities': MODALITIES, 'intensity': ('percentile:1:99',)}, 'holds'),
    ({'intensity': ('zscore',)}, 'data.modalities names none'),
  ],
)
def test_modalities_that_are_refused(fields, said):
  with pytest.raises(UserError, match=said) as error:
    changed(**{f'data.{name}': value for name, value in fields.items()})
  assert '\n' not in str(error.value)


def test_several_intensities_are_one_flag():
  flag = tuple_parser.TupleParser().parse('window/-600/1500,zscore,window/0.5/1e3')
  data = changed(**{'data.modalities': MODALITIES, 'data.intensity': flag}).data
  assert data.intensity == ('window/-600/1500', 'zscore', 'window/0.5/1e3')


def test_windows_of_modalities():
  intensity = ('window/-600/1500', 'zscore', 'window/0.5/1e3')
  data = changed(**{'data.modalities': MODALITIES, 'data.intensity': intensity}).data
  assert data.intensity == intensity


def test_three_modalities_are_no_colours_for_a_second_look():
  augment = {'flip': False, 'brightness': 0.0, 'contrast': 0.0, 'hue': 0.1}
  fields = {f'segment.unlabelled.augment.{name}': value for name, value in augment.items()}
  fields |= {'segment.unlabelled.agreement': 0.8}
  changed(**fields)
  with pytest.raises(UserError, match='compares two looks'):
    changed(**fields, **{'data.modalities': MODALITIES})


def test_patches_of_single_modalities():
  with_names = {'data.modalities': MODALITIES, 'masking.per_modality': True}
  assert changed(**with_names).masking.per_modality
  for fields, said in (
    ({'masking.per_modality': True}, 'config.data.modalities names none'),
    ({**with_names, 'pretrain.features': 1.0}, 'pretrain.features and contrast are of all'),
    ({**with_names, 'pretrain.contrast': 1.0}, 'pretrain.features and contrast are of all'),
  ):
    with pytest.raises(UserError, match=said):
      changed(**fields)
  hidden = {'segment.unlabelled.hide': 'grey', 'segment.unlabelled.masking.per_modality': True}
  hidden |= {'segment.ema_decay': 0.99, 'segment.unlabelled.batch_size': 4}
  with pytest.raises(UserError, match='per_modality is for a pre-training'):
    changed(**hidden, **{'data.modalities': MODALITIES})
  few = {'masking.strategy': 'adamae', 'masking.patch_size': 16, 'data.image_size': 16}
  with pytest.raises(UserError, match='exactly 1 of 1 patches'):
    changed(**few, **{'data.modalities': MODALITIES})
  changed(**few, **with_names)  # 2 of 3.


def test_modality_dropout_needs_what_can_be_left_out():
  assert changed(**{'data.modalities': MODALITIES, 'data.modality_dropout': 0.5})
  for names, said in (((), 'names none'), (('t1',), 'names 1')):
    with pytest.raises(UserError, match=f'modality_dropout is 0.1, .*{said}'):
      changed(**{'data.modalities': names, 'data.modality_dropout': 0.1})
