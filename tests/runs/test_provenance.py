"""What a run was trained on is not scored as held out later."""

import dataclasses
import json

import numpy as np
import pytest

from ahm_jax.config import Config
from ahm_jax.data.dataset import Dataset, Split
from ahm_jax.errors import UserError
from ahm_jax.runs import directory, provenance
from ahm_jax.runs.provenance import Images


def split(names, labels=None, masks=None):
  count = len(names)
  return Split(
    ids=tuple(names),
    images=np.zeros((count, 2, 2, 3), np.uint8),
    masks=np.zeros((count, 2, 2), np.uint8),
    labels=np.array([0] * count if labels is None else labels, np.int32),
    has_mask=np.array([True] * count if masks is None else masks),
    groups=tuple(names),
    full_masks=(b'',) * count,
  )


def data(train='abc', validation='de', test='fg', name='skin', **train_has):
  parts = {'train': split(train, **train_has), 'validation': split(validation), 'test': split(test)}
  return Dataset(name, ('x', 'y'), parts, ())


@pytest.fixture
def chain(tmp_path):
  """A pre-training of a, b and c.

  A segmentation of a that chose its checkpoint by d; a classification of b that did by e.
  """
  start = None
  for stage, images in (
    ('pretrain', Images('skin', ('a', 'b', 'c'))),
    ('segment', Images('skin', ('a',), ('d',))),
    ('classify', Images('skin', ('b',), ('e',))),
  ):
    (tmp_path / stage).mkdir()
    provenance.begin(tmp_path / stage, images, start)
    start = tmp_path / stage
  return tmp_path


@pytest.mark.parametrize(
  ('stage', 'split', 'seen', 'by'),
  [
    ('pretrain', 'test', 'abc', 'pretrain'),
    ('segment', 'test', 'a', 'segment'),
    ('segment', 'test', 'd', 'segment'),
    ('segment', 'test', 'bc', 'pretrain'),
    ('segment', 'validation', 'b', 'pretrain'),
    ('classify', 'test', 'e', 'classify'),
    ('classify', 'test', 'd', 'segment'),
    ('classify', 'validation', 'c', 'pretrain'),
  ],
)
def test_what_any_run_of_the_chain_was_trained_on_is_not_scored(chain, stage, split, seen, by):
  said = (
    rf'^data leakage: {len(seen)} {split} images of skin were used to train {chain / by}, '
    rf'as .{seen[0]}.;'
  )
  with pytest.raises(UserError, match=said):
    provenance.check_scored(chain / stage, split, ['x', *reversed(seen)])


def test_what_may_be_scored(chain):
  provenance.check_scored(chain / 'classify', 'test', ['x', 'y'])
  provenance.check_scored(chain / 'classify', 'validation', ['d', 'e'])
  provenance.check_scored(chain / 'classify', 'train', ['a', 'b', 'c'])
  provenance.check_scored(chain / 'pretrain', 'test', ['d', 'e'])
  (chain / 'segment' / 'images.json').unlink()  # As in runs of old.
  provenance.check_scored(chain / 'segment', 'test', ['a'])


def test_a_run_knows_what_it_started_from_when_that_is_gone(chain):
  (chain / 'pretrain' / 'images.json').unlink()
  with pytest.raises(
    UserError, match=r'^data leakage: 1 test images of \w+ were used to train .*pretrain'
  ):
    provenance.check_scored(chain / 'segment', 'test', ['b'])


@pytest.mark.parametrize(
  ('stage', 'change', 'said'),
  [
    (
      'pretrain',
      {'train': 'ab', 'test': 'fgc'},
      "^data leakage: 1 test images of skin were used to train {}/pretrain, as 'c'",
    ),
    (
      'pretrain',
      {'train': 'ab', 'validation': 'dec'},
      '^data leakage: 1 validation images of skin were used to train {}/pretrain',
    ),
    (
      'segment',
      {'validation': 'e', 'test': 'fgd'},
      "^data leakage: 1 test images of skin were used to train {}/segment, as 'd'",
    ),
    (
      'segment',
      {'train': 'a', 'test': 'fgbc'},
      "^data leakage: 2 test images of skin were used to train {}/pretrain, as 'b'",
    ),
  ],
)
def test_a_start_was_trained_on_nothing_that_is_held_out(chain, stage, change, said):
  provenance.check_start(chain / stage, data())
  with pytest.raises(UserError, match=said.format(chain)):
    provenance.check_start(chain / stage, data(**change))
  provenance.check_start(chain / stage, data(**change, name='breast'))
  provenance.check_start(chain / 'nowhere', data(**change))


def test_of_other_data_sets_names_mean_nothing(tmp_path):
  for run, images, start in (
    ('far', Images('breast', ('a', 'b')), None),
    ('near', Images('skin', ('c',)), tmp_path / 'far'),
  ):
    (tmp_path / run).mkdir()
    provenance.begin(tmp_path / run, images, start)
  provenance.check_scored(tmp_path / 'near', 'test', ['a', 'b'])
  provenance.check_start(tmp_path / 'near', data(train='c', test='ab'))
  with pytest.raises(
    UserError, match=r'^data leakage: 2 test images of \w+ were used to train .*far'
  ):
    provenance.check_start(tmp_path / 'near', data(train='c', test='ab', name='breast'))


def test_a_run_goes_on_with_the_images_that_it_began_with(tmp_path):
  provenance.begin(tmp_path, Images('skin', ('a', 'b'), ('d',)), None)
  provenance.check_same(tmp_path, Images('skin', ('a', 'b'), ('d',)))
  provenance.check_same(tmp_path, Images('renamed', ('a', 'b'), ('d',)))
  provenance.check_same(tmp_path / 'new', Images('skin', ('a',)))
  for other, said in (
    (
      Images('skin', ('a', 'b', 'c'), ('d',)),
      "1 were added, left out or moved between splits, as 'c'; choose",
    ),
    (
      Images('skin', ('d', 'b'), ('a',)),
      "2 were added, left out or moved between splits, as 'a'; choose",
    ),
    (Images('skin', ('b', 'a'), ('d',)), 'they are the same in another order; choose'),
  ):
    with pytest.raises(
      UserError, match=f'^{tmp_path} holds a run that began with other images: {said}'
    ):
      provenance.check_same(tmp_path, other)


def test_what_was_written_stays_and_what_is_not_known_is_not_written(tmp_path):
  new, old = tmp_path / 'new', tmp_path / 'old'
  for run in (new, old / 'checkpoints' / '5'):
    run.mkdir(parents=True)
  for images in (Images('skin', ('a',)), Images('skin', ('b',))):
    provenance.begin(new, images, None)
    provenance.begin(old, images, None)
  provenance.check_same(new, Images('skin', ('a',)))
  assert not (old / 'images.json').exists()


@pytest.mark.parametrize(
  'change',
  [
    {'train': 'abcx'},
    {'train': 'ab', 'test': 'fgc'},
    {'labels': [0, 1, 0]},
    {'labels': [0, -1, 0]},
    {'masks': [True, True, False]},
  ],
)
def test_a_grid_has_one_data_set_throughout(tmp_path, change):
  for _ in range(2):
    provenance.check_grid(tmp_path / 'grid', data())
    directory.claim(tmp_path / 'grid', 'reproduce', Config())
  provenance.check_grid(tmp_path / 'grid', data(name='renamed'))
  with pytest.raises(
    UserError,
    match=f'^{tmp_path}/grid holds a grid that began with other images, splits, masks or labels;',
  ):
    provenance.check_grid(tmp_path / 'grid', data(**change))
  directory.claim(tmp_path / 'old', 'reproduce', Config())
  provenance.check_grid(tmp_path / 'old', data(**change))
  assert not (tmp_path / 'old' / 'images.json').exists()


# Other contents under the same names.


CHANGES = {
  'an image': lambda split: changed(split, 1, 0),
  'a mask': lambda split: changed(split, 1, 1),
  'a label': lambda split: dataclasses.replace(split, labels=np.array([0, 1, 0], np.int32)),
  'no mask': lambda split: dataclasses.replace(split, has_mask=np.array([True, False, True])),
}
LEARNT = {  # What a change of it means to a run that learns from: these.
  'an image': ('image', 'mask', 'label', 'both'),
  'a mask': ('mask', 'both'),
  'a label': ('label', 'both'),
  'no mask': ('mask', 'both'),
}


def changed(split, index, part):
  digests = split.digests.copy()
  digests[index, part] += 1
  return dataclasses.replace(split, digests=digests)


@pytest.mark.parametrize('what', ['image', 'mask', 'label', 'both'])
@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('name', ['train', 'validation'])
def test_a_run_goes_on_with_the_contents_that_it_began_with(tmp_path, change, what, name):
  before = data(validation='deh')
  other = {**before.splits, name: CHANGES[change](before.splits[name])}

  def images(held, known=True):
    train, validation = ('c', 'b'), ('e', 'd', 'h')
    found = provenance.digests(held, 'train', train, what)
    found += provenance.digests(held, 'validation', validation, what)
    return Images('skin', train, validation, digests=found if known else ())

  provenance.begin(tmp_path, images(before), None)
  provenance.check_same(tmp_path, images(data(validation='deh')))
  provenance.check_same(tmp_path, images(before, known=False))
  now = images(dataclasses.replace(before, splits=other))
  if what not in LEARNT[change]:
    provenance.check_same(tmp_path, now)
    return
  said = (
    rf'^{tmp_path} holds a run that began with other images: 1 of 5 have other pixels, masks or '
    rf"labels under the same names, as '{'b' if name == 'train' else 'e'}'; choose another"
  )
  with pytest.raises(UserError, match=said):
    provenance.check_same(tmp_path, now)


def test_a_run_of_old_knows_no_contents(tmp_path):
  provenance.begin(tmp_path, Images('skin', ('a', 'b'), ('d',)), None)
  path = tmp_path / 'images.json'
  held = json.loads(path.read_text())
  del held['own']['digests']
  path.write_text(json.dumps(held))
  provenance.check_same(tmp_path, Images('skin', ('a', 'b'), ('d',), digests=('1', '2', '3')))


def test_what_a_run_started_from_is_written_down_without_contents(tmp_path):
  for run, start in (('far', None), ('near', tmp_path / 'far')):
    (tmp_path / run).mkdir()
    provenance.begin(tmp_path / run, Images('skin', ('a',), digests=('1',)), start)
  held = json.loads((tmp_path / 'near' / 'images.json').read_text())
  assert (held['own']['digests'], held['origins'][0]['digests']) == (['1'], [])


@pytest.mark.parametrize('name', ['train', 'validation', 'test'])
@pytest.mark.parametrize('part', [0, 1])
def test_a_grid_has_the_same_contents_throughout(tmp_path, name, part):
  before = data()
  provenance.check_grid(tmp_path, before)
  provenance.check_grid(tmp_path, data())
  other = dataclasses.replace(
    before, splits={**before.splits, name: changed(before.splits[name], 1, part)}
  )
  image = before.splits[name].ids[1]
  with pytest.raises(UserError, match=f'holds a grid that began .* 1 of 7 have .* as .{image}.;'):
    provenance.check_grid(tmp_path, other)
  path = tmp_path / 'images.json'  # One of old knows no contents.
  path.write_text(json.dumps({'digest': json.loads(path.read_text())['digest']}))
  provenance.check_grid(tmp_path, other)


def test_the_digest_of_a_grid_is_of_the_names_of_classes(tmp_path):
  provenance.check_grid(tmp_path, data())
  with pytest.raises(UserError, match='began with other'):
    provenance.check_grid(tmp_path, dataclasses.replace(data(), class_names=('y', 'x')))


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"own": 3}', '{"own": {"dataset": "skin", "train": 3}, "origins": []}']
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
  path = tmp_path / 'images.json'
  path.write_text(text)
  with pytest.raises(UserError, match=f'^{path} is damaged: .*; restore it, or remove it'):
    provenance.check_scored(tmp_path, 'test', ['x'])
  with pytest.raises(UserError, match=f'^{path} is damaged: .*; restore it, or remove it'):
    provenance.check_grid(tmp_path, data())
