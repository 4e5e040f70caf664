"""What a run has learnt from is not scored as held out later."""

import dataclasses
import json

import pytest

from ahm_jax import lineage, rundir
from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.lineage import Images


@pytest.fixture
def chain(tmp_path):
  """A pre-training of a, b and c; a segmentation of a that chose its checkpoint by d; a classification of b that did by e."""
  start = ''
  for stage, images in (
    ('pretrain', Images('skin', ('a', 'b', 'c'))),
    ('segment', Images('skin', ('a',), ('d',))),
    ('classify', Images('skin', ('b',), ('e',))),
  ):
    rundir.claim(tmp_path / stage, stage, dataclasses.replace(Config(), init_from=start))
    lineage.write(tmp_path / stage, images)
    start = str(tmp_path / stage)
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
def test_what_any_run_of_the_chain_has_learnt_from_is_no_longer_held_out(chain, stage, split, seen, by):
  said = rf'^{chain / by} has learnt from {len(seen)} images that are in the {split} split now, as .{seen[0]}.,'
  with pytest.raises(UserError, match=said):
    lineage.check_held_out(chain / stage, 'skin', split, ['x', *reversed(seen)])


def test_what_may_be_scored(chain):
  lineage.check_held_out(chain / 'classify', 'skin', 'test', ['x', 'y'])
  lineage.check_held_out(chain / 'classify', 'skin', 'validation', ['d', 'e'])
  lineage.check_held_out(chain / 'classify', 'skin', 'train', ['a', 'b', 'c'])
  lineage.check_held_out(chain / 'classify', 'breast', 'test', ['a', 'b', 'c'])
  lineage.check_held_out(chain / 'pretrain', 'skin', 'test', ['d', 'e'])
  for stage in ('pretrain', 'segment', 'classify'):
    (chain / stage / lineage.FILE).unlink()  # As in runs of old.
  lineage.check_held_out(chain / 'classify', 'skin', 'test', ['a'])


def test_a_run_goes_on_with_the_images_that_it_began_with(chain):
  workdir = chain / 'segment'
  lineage.check_same(workdir, Images('skin', ('a',), ('d',)))
  lineage.check_same(workdir, Images('renamed', ('a',), ('d',)))
  lineage.check_same(chain / 'new', Images('skin', ('a',)))
  for other, said in (
    (Images('skin', ('a', 'b'), ('d',)), "1 were added, are gone, or are in another split now, as 'b'"),
    (Images('skin', ('d',), ('a',)), "2 were added, are gone, or are in another split now, as 'a'"),
    (Images('skin', (), ('d',)), "1 were added, are gone, or are in another split now, as 'a'"),
  ):
    with pytest.raises(UserError, match=said):
      lineage.check_same(workdir, other)


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"dataset": "skin"}', json.dumps({'dataset': 'skin', 'train': 3, 'validation': []})]
)
def test_a_file_that_cannot_be_read_is_named(chain, text):
  path = chain / 'segment' / lineage.FILE
  path.write_text(text)
  with pytest.raises(UserError, match=f'^{path} cannot be read; remove it'):
    lineage.check_held_out(chain / 'segment', 'skin', 'test', ['x'])
