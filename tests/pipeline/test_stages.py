"""What a stage asks for before it trains."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ahm_jax.config import Config, fields, from_config_dict
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.errors import UserError
from ahm_jax.masking.networks import networks
from ahm_jax.models.layers import variable_shapes
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.pipeline import setup, stages
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT
from ahm_jax.runs import directory
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import parallel
from ahm_jax.weights import files, names, saving

LAUNCH = Path(__file__).parents[2] / 'launch'


def split(count, masks=0):
  """So many images, the first `masks` of them with a mask."""
  names = tuple(f'i{number}' for number in range(count))
  return Split(
    ids=names,
    images=np.zeros((count, 16, 16, 3), np.uint8),
    masks=np.ones((count, 16, 16), np.uint8),
    labels=np.full(count, -1, np.int32),
    has_mask=np.arange(count) < masks,
    groups=names,
    full_masks=(b'',) * count,
  )


def test_names_are_those_of_functions_for_launch_scripts_and_of_folders():
  assert {stage.name for stage in stages.STAGES} == set(fields.STAGES)
  for stage in stages.STAGES:
    assert getattr(Config(), stage.recipe).batch_size
    assert str(stage) == stage.name
    assert getattr(stages, stage.name).args == (stage,)
    assert (LAUNCH / f'{stage.name}.py').exists()


def test_batches_that_devices_cannot_share_are_refused(monkeypatch):
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:4]))
  config = dataclasses.replace(
    Config(), segment=dataclasses.replace(Config().segment, batch_size=6)
  )
  setup.check_config(config, PRETRAIN)
  setup.check_config(config, CLASSIFY)
  with pytest.raises(
    UserError,
    match=r'^batch_size is 6, which 4 devices cannot share evenly; make it a multiple of 4',
  ):
    setup.check_config(config, SEGMENT)
  workers = dataclasses.replace(config, masking=dataclasses.replace(config.masking, workers=6))
  with pytest.raises(UserError, match='which 4 devices cannot share evenly'):
    setup.check_config(workers, PRETRAIN)
  setup.check_config(workers, CLASSIFY)


def test_a_strategy_that_there_is_not_is_refused_before_data_are_read(tmp_path):
  masking = dataclasses.replace(Config().masking, strategy='unifrom')
  config = dataclasses.replace(Config(), masking=masking)
  with pytest.raises(UserError, match=r"'unifrom' is no masking strategy; .*did you mean uniform?"):
    setup.open_run(PRETRAIN, config, tmp_path / 'run')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('trained_on', 'patience', 'said'),
  [
    (12, 0, 'start is not finished: step 10 of 12 is taken\n'),
    (10, 0, ''),
    (12, 4, ''),  # It may have been over.
    (None, 0, 'start is not finished: step 10 of 16 is taken\n'),  # As if of the images here.
  ],
)
def test_a_start_that_is_not_finished_is_told(
  tmp_path, monkeypatch, capsys, trained_on, patience, said
):
  """Its length is that of its own images, not of those here."""
  monkeypatch.chdir(tmp_path)
  pretrain = dataclasses.replace(Config().pretrain, batch_size=12, epochs=12, patience=patience)
  path = Path('start')
  path.mkdir()
  (path / directory.FILE).touch()
  if trained_on:
    (path / directory.DATA).write_text(
      json.dumps({'name': 'toy', 'splits': {}, 'class_names': [], 'trained_on': trained_on})
    )
  config = dataclasses.replace(Config(), pretrain=pretrain)
  start = setup.Start(Trained(path, PRETRAIN, config, 10, {'params': None}))
  data = Dataset('toy', (), {'train': split(16, 16), 'validation': split(4, 4)}, ())
  run = setup.Run(SEGMENT, Config(), tmp_path / 'run', data, start)
  stages.SEGMENT.plan(run)
  assert capsys.readouterr().out == said


def test_validation_is_on_images_that_have_what_is_learnt():
  held_out = dataclasses.replace(split(4, 3), labels=np.array([-1, 0, -1, 1], np.int32))
  data = Dataset('toy', ('a', 'b'), {'validation': held_out}, ())
  assert setup.held_out(data, 'mask').ids == ('i0', 'i1', 'i2')
  assert setup.held_out(data, 'label').ids == ('i1', 'i3')


def test_an_export_has_no_directory_of_a_run(tmp_path):
  start = setup.Start(Trained(tmp_path, PRETRAIN, Config(), 10, {}))
  assert start.run is None and setup.Start().run is None
  (tmp_path / directory.FILE).touch()
  assert start.run == tmp_path


def told(labels=0, masked=range(4), diagnosed=range(2, 10), classes=('a', 'b'), **fields):
  """The plan of a segmentation that learns diagnoses, of ten training images."""
  train = split(10)
  has_mask, known = np.zeros(10, bool), np.full(10, -1, np.int32)
  has_mask[list(masked)] = True
  known[list(diagnosed)] = np.array(list(diagnosed)) % 2
  train = dataclasses.replace(train, has_mask=has_mask, labels=known)
  held = dataclasses.replace(split(4, 2), labels=np.array([0, 1, -1, 1], np.int32))
  data = Dataset('toy', classes, {'train': train, 'validation': held}, ())
  recipe = dataclasses.replace(Config().segment.diagnosis, batch_size=2, labels=labels)
  segment = dataclasses.replace(Config().segment, diagnosis=recipe, **fields)
  config = dataclasses.replace(Config(), segment=segment)
  run = setup.Run(SEGMENT, config, Path('run'), data, setup.Start())
  return run, SEGMENT.plan(run)


def test_diagnoses_are_learnt_from_all_images_with_a_label_beside_those_with_a_mask():
  run, plan = told()
  (beside,) = plan.beside
  assert beside.indices.tolist() == [*range(2, 10)] and beside.batch_size == 2
  assert plan.indices.tolist() == [*range(4)] and plan.class_names == ('a', 'b')
  assert plan.validation == ('i0', 'i1', 'i3')  # Two have a mask, three a label.
  images = plan.images(run)
  assert images.train == tuple(f'i{number}' for number in range(10))
  assert len(images.digests) == 10 + 3
  batch = plan.source(run).names(0)
  assert len(batch) == 4 + 2 and set(batch[4:]) <= {f'i{number}' for number in range(2, 10)}


def test_another_label_of_an_image_with_a_mask_is_another_image():
  (one, plan), (other, _) = told(), told(diagnosed=range(3, 10))
  first, second = (plan.images(run).digests for run in (one, other))
  assert [a == b for a, b in zip(first, second, strict=True)] == [True, True, False, *[True] * 10]


def test_fewer_diagnoses_are_stratified_and_too_many_are_refused():
  _, plan = told(labels=4)
  assert sorted(plan.beside[0].indices % 2) == [0, 0, 1, 1]
  with pytest.raises(UserError, match=r'9 labelled .* only 8 .* lower config.segment.diagnosis'):
    told(labels=9)
  with pytest.raises(UserError, match='fewer than two classes'):
    told(classes=('a',))
  with pytest.raises(UserError, match='no training image has a label'):
    told(diagnosed=())


def test_diagnoses_come_before_unlabelled_images():
  unlabelled = dataclasses.replace(Config().segment.unlabelled, batch_size=4)
  _, plan = told(ema_decay=0.9, unlabelled=unlabelled)
  assert [(part.what, part.batch_size) for part in plan.beside] == [('label', 2), ('image', 4)]


def test_diagnosed_images_that_devices_cannot_share_are_refused(monkeypatch):
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:4]))
  config = from_config_dict({'segment': {'batch_size': 4, 'diagnosis': {'batch_size': 6}}})
  with pytest.raises(UserError, match=r'config.segment.diagnosis.batch_size is 6.*multiple of 4'):
    setup.check_config(config, SEGMENT)


@pytest.mark.parametrize('channels', [1, 3])
def test_an_agent_sees_what_weights_of_others_were_trained_on(tmp_path, channels):
  path, whole = tmp_path / 'vgg16.npz', VGG16(2, width=4, hidden=8)
  shapes = variable_shapes(whole, (1, 64, 64, 3))  # A classifier as torchvision's.
  variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
  files.write(path, saving.outward(variables, names.vgg16(4)), {})
  model = dataclasses.replace(Config().model, agent_width=4, vgg_weights=str(path))
  data = dataclasses.replace(Config().data, image_size=32, channels=channels)
  config = dataclasses.replace(Config(), model=model, data=data)
  with pytest.raises(UserError, match=r'config\.model\.vgg_input=torchvision, or caffe'):
    stages.agent_weights(config)
  config = dataclasses.replace(config, model=dataclasses.replace(model, vgg_input='torchvision'))
  agent = networks(config).agent
  assert agent.input == 'torchvision'
  expected = variable_shapes(agent, (1, 32, 32, channels))['params']['trunk']
  found = stages.agent_weights(config).variables['params']['trunk']
  assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, expected)
