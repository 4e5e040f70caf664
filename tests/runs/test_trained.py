"""What was trained, and the export in Orbax's format that it is read back from."""

import collections
import copy
import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ahm_jax.config import Config, DataConfig, MaskingConfig, ModelConfig
from ahm_jax.errors import UserError
from ahm_jax.export import card, portable, shared
from ahm_jax.models.layers import variable_shapes
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT, STAGES
from ahm_jax.runs import checkpoints
from ahm_jax.runs.trained import (
  EXPORT,
  VARIABLES,
  Trained,
  checked,
  config_digest,
  in_float32,
  load,
)
from ahm_jax.runtime import trees
from tests.hostile_json import DAMAGES, VALUES

COUNTS = ('images', 'masks', 'labels')
FACTS = {'format': 'orbax', 'licence': '', 'versions': {}, 'notes': {}}


def make_trained(stage=SEGMENT, mask_classes=(), channels=3, seed=0, class_names=()):
  """What might have been trained, in bfloat16; its weights are random, and none of them 0."""
  config = Config(
    data=DataConfig(
      name='folder', root='.', image_size=32, channels=channels, mask_classes=mask_classes
    ),
    model=ModelConfig(unet_width=2, vgg_width=2, vgg_hidden=8, dtype='bfloat16', recompute=True),
    masking=MaskingConfig(patch_size=8),
  )
  bare = Trained(Path('run'), stage, config, 7, {}, class_names)
  generator, variables = np.random.default_rng(seed), {}
  for name, leaf in trees.flatten(variable_shapes(bare.network, (1, *bare.shape))).items():
    spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.3
    drawn = generator.normal(0, spread, leaf.shape).astype(np.float32)
    variables[name] = np.abs(drawn) + 0.5 if name.endswith(('scale', 'var')) else drawn
  return dataclasses.replace(bare, variables=trees.unflatten(variables))


@pytest.fixture(scope='module')
def trained():
  return make_trained()


@pytest.fixture(scope='module')
def export(trained, tmp_path_factory):
  """Not to be changed."""
  home = tmp_path_factory.mktemp('export') / 'segment'
  home.mkdir()
  checkpoints.write_variables(home / VARIABLES, trained.variables)
  card.write(trained, home, FACTS)
  return home


@pytest.fixture
def own(export, tmp_path):
  """A copy to spoil."""
  return shutil.copytree(export, tmp_path / 'own')


def refusal(path, wanted=STAGES):
  with pytest.raises(UserError) as caught:
    load(path, wanted)
  assert '\n' not in str(caught.value) and str(path) in str(caught.value)
  return str(caught.value)


def change(path, **fields):
  told = json.loads((path / EXPORT).read_text())
  (path / EXPORT).write_text(json.dumps({**told, **fields}))


def test_an_export_comes_back_to_the_bit(trained, export):
  found = load(export, (SEGMENT,))
  assert (found.stage, found.step, found.config, found.digest) == (
    SEGMENT,
    7,
    shared.without_paths(trained.config),
    trained.digest,
  )
  ours, theirs = trees.flatten(found.variables), trees.flatten(trained.variables)
  assert ours.keys() == theirs.keys()
  assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_in_float32_it_computes_what_the_network_does(trained):
  images = np.random.default_rng(0).integers(0, 256, (2, *trained.shape), np.uint8)
  plain = in_float32(trained)
  found = np.asarray(jax.jit(plain.probabilities)(trained.variables, images))
  scaled = (images / np.float32(255) - 0.5) / 0.25
  logits = jax.jit(lambda v, x: plain.network.apply(v, x, train=False))(trained.variables, scaled)
  assert logits.dtype == np.float32 and trained.config.model.dtype == 'bfloat16'
  np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.asarray(logits)[..., 0])), atol=1e-5)
  carried = np.asarray(jax.jit(portable.outputs(trained))(trained.variables, images)[0])
  np.testing.assert_allclose(carried, found, atol=1e-5)


def test_the_digest_is_that_of_the_weights(trained):
  assert make_trained().digest == trained.digest != make_trained(seed=1).digest


def test_a_segmentation_says_what_it_sees_and_finds(trained):
  assert (trained.image_size, trained.channels, trained.shape) == (32, 3, (32, 32, 3))
  assert (trained.mask_classes, trained.lesion_names, trained.class_names) == ((), ('lesion',), ())
  images = np.zeros((2, 32, 32, 3), np.uint8)
  assert trained.probabilities(trained.variables, images).shape == (2, 32, 32)

  classes = make_trained(mask_classes=('a', 'b'), channels=1)
  assert (classes.channels, classes.lesion_names) == (1, ('a', 'b'))
  images = np.zeros((2, 32, 32, 1), np.uint8)
  found = np.asarray(classes.probabilities(classes.variables, images), np.float32)
  assert found.shape == (2, 32, 32, 3)
  np.testing.assert_allclose(found.sum(-1), np.ones((2, 32, 32)), atol=1e-5)


def test_a_classification_says_what_it_distinguishes_and_a_pretraining_says_nothing():
  classifier = make_trained(CLASSIFY, class_names=('benign', 'malignant', 'other'))
  assert classifier.network.num_classes == 3
  pretrained = make_trained(PRETRAIN)
  assert pretrained.network.out_channels == 3
  with pytest.raises(TypeError, match='a pretrain run has no probabilities'):
    pretrained.probabilities(pretrained.variables, np.zeros((2, 32, 32, 3), np.uint8))


def test_the_digest_of_a_config_does_not_ask_for_order(trained):
  config = trained.config
  assert config_digest(config) == config_digest(dataclasses.replace(config))
  assert config_digest(config) != config_digest(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_description_is_refused(own, damage):
  (own / EXPORT).write_bytes(damage)
  line = refusal(own)
  assert line.startswith(f'{own / EXPORT} is damaged: ') and line.endswith('; export it again')
  assert len(line) < 500


GONE = object()
OTHERS = {**{ascii(value): value for value in (*VALUES, 7, -3, 1e300, math.nan)}, 'gone': GONE}
ANY_NUMBER = {'None', '-1', '0.5', str(10**30), '7', '-3'}
# What may stand in a field, since it is optional, or since any text or number may.
MAY = {
  'step': {'7'},
  'class_names': {'[]'},
  'data': {'None', 'gone'},
  'data.name': {"'text'"},
  'data.class_names': {'[]'},
  'data.trained_on': {'7'},
  'data.splits.train': {'gone'},
  'data.splits.train.masks': {'7'},
  'scores': {'None', 'gone'},
  'scores.split': {"'text'"},
  'scores.values.dice': {*ANY_NUMBER, 'gone'},
  'scores.intervals.dice': {'gone'},
}
NOT_READ = ('config_digest', 'licence', 'versions', 'notes')


def test_a_field_of_another_kind_is_refused(own, trained, monkeypatch):
  told = json.loads((own / EXPORT).read_text())
  told['data'] = {
    'name': 'a',
    'splits': {'train': dict.fromkeys(COUNTS, 1)},
    'class_names': ['x'],
    'trained_on': 3,
  }
  told['scores'] = {'split': 'test', 'values': {'dice': 0.5}, 'intervals': {'dice': [0.1, 0.9]}}
  monkeypatch.setattr(checkpoints, 'read_variables', lambda _: trained.variables)
  monkeypatch.setattr('ahm_jax.runs.trained.checked', lambda found: found)  # Which takes time.
  places = [(name,) for name in told if name not in NOT_READ] + [
    *(('data', name) for name in told['data']),
    *(('scores', name) for name in told['scores']),
    *[('data', 'splits', 'train'), ('data', 'splits', 'train', 'masks')],
    *[('scores', 'values', 'dice'), ('scores', 'intervals', 'dice')],
  ]
  passed = collections.defaultdict(set)
  for *nodes, last in places:
    for other, value in OTHERS.items():
      tree = functools.reduce(dict.__getitem__, nodes, changed := copy.deepcopy(told))
      if value is GONE:
        del tree[last]
      else:
        tree[last] = value
      (own / EXPORT).write_text(json.dumps(changed))
      try:
        found = load(own, (SEGMENT,))
        card.text(found, {**FACTS, 'licence': ''}, card.data_and_scores(found))
      except UserError as error:
        assert '\n' not in str(error) and str(own) in str(error)
      else:
        passed['.'.join((*nodes, last))].add(other)
  assert passed == MAY


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'format': 'onnx'},
      'is an export in the format onnx; give one of --format=orbax, or the workdir of a run',
    ),
    ({'stage': 'pretrain'}, 'is an export of a pretrain run; give one of a segment run'),
    ({'config': {'sead': 1}}, 'sead'),
    (
      {'digest': '0' * 64},
      'is damaged: its numbers are not those that were exported; export it again',
    ),
    (
      {'step': 'seven'},
      "export.json is damaged: step is 'seven', not a whole number from 0 on; ex",
    ),
  ],
)
def test_a_description_of_something_else_is_refused(own, fields, message):
  change(own, **fields)
  with pytest.raises(UserError) as caught:
    load(own, (SEGMENT,))
  assert message in str(caught.value) and '\n' not in str(caught.value)


def test_weights_of_another_width_are_refused(own):
  told = json.loads((own / EXPORT).read_text())
  told['config']['model']['unet_width'] = 3
  change(own, config=told['config'])
  assert 'batch_stats/decoder1/first/norm/mean is 2 in its weights but 3 by its config' in refusal(
    own
  )


def test_damaged_and_missing_arrays_are_refused(own):
  for path in (own / VARIABLES).rglob('d/*'):  # Not all of them are read: some lie on the way.
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)
  refusal(own)
  shutil.rmtree(own / VARIABLES)
  assert 'is damaged' in refusal(own)


def test_shapes_that_do_not_belong_to_the_config_are_named(trained):
  config = dataclasses.replace(
    trained.config, model=dataclasses.replace(trained.config.model, unet_width=3)
  )
  with pytest.raises(
    UserError, match=r'/decoder1/first/norm/mean is 2 in its weights but 3 by its config'
  ):
    checked(dataclasses.replace(trained, config=config))
  del (params := dict(trained.variables['params']))['head']
  with pytest.raises(
    UserError, match=r'params/head/bias is not there in its weights but 1 by its config'
  ):
    checked(dataclasses.replace(trained, variables={**trained.variables, 'params': params}))


def test_a_folder_without_anything_is_refused(tmp_path):
  assert 'there is no such folder; give the workdir of a segment run' in refusal(
    tmp_path / 'nowhere', (SEGMENT,)
  )
  assert 'holds no run; give the --workdir of a segment run' in refusal(tmp_path, (SEGMENT,))
  assert 'holds no run; give the --workdir of a pretrain or segment or classify run' in refusal(
    tmp_path
  )
