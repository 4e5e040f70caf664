"""Which training images a segmentation learns from where a list says so."""

import dataclasses
import re

import numpy as np
import pytest

from ahm_jax.config import Config
from ahm_jax.data.dataset import Dataset
from ahm_jax.data.labelled import segmented_indices
from ahm_jax.data.sampling import labelled_indices
from ahm_jax.errors import UserError
from tests.data.tiny_split import make_split


def named(names, has_mask=None):
  return dataclasses.replace(make_split([0] * len(names), has_mask), ids=tuple(names))


# 'e' has no mask; the last is written as macOS has it, with an accent of its own.
TRAIN = named(['a', 'b', 'c', 'd', 'e', '=f', 'cafe\u0301'], [True] * 4 + [False] + [True] * 2)
HELD_OUT = {'validation': named(['v']), 'test': named(['t'])}
DATA = Dataset('skin', ('x',), {'train': TRAIN, **HELD_OUT}, ())


def chosen(path, text, labels=0, seed=0):
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  data = dataclasses.replace(Config().data, labels=labels, labelled_from=str(path))
  found = segmented_indices(dataclasses.replace(Config(), data=data, seed=seed), DATA)
  assert found.dtype == np.int64
  return [TRAIN.ids[i] for i in found]


def test_without_a_list_labels_are_drawn():
  data = dataclasses.replace(Config().data, labels=3)
  found = segmented_indices(dataclasses.replace(Config(), data=data, seed=5), DATA)
  np.testing.assert_array_equal(found, labelled_indices(TRAIN, 3, 5))


@pytest.mark.parametrize(
  'text',
  [
    'image\nd\na\nc\n',
    'rank,image,cluster,score\n1,d,0,0.5\n2,a,1,\n3,c,,\n',
    'rank,image\n2,a\n10,c\n1,d\n',  # As a spreadsheet may have sorted it.
    'Image;why\r\nd;x\r\na;y\r\nc;z\r\n',
    '\ufeffrank\timage\n1\td\n2\ta\n3\tc\n'.encode('utf-16'),
    'image\nd.png\na\nc.nii.gz\n',
  ],
)
def test_the_first_of_a_list_are_learnt_from(tmp_path, text):
  path = tmp_path / 'list.csv'
  assert chosen(path, text) == chosen(path, text, 3) == ['d', 'a', 'c']
  assert chosen(path, text, 2) == ['d', 'a'] and chosen(path, text, 1) == ['d']


def test_names_are_found_as_tables_have_them(tmp_path):
  text = "image\n'=f\ncaf\u00e9\n"
  assert chosen(tmp_path / 'list.csv', text) == ['=f', 'cafe\u0301']


def test_images_behind_those_that_are_asked_for_need_no_mask(tmp_path):
  text = 'image\nb\ne\nv\nelsewhere\n'
  assert chosen(tmp_path / 'list.csv', text, 1) == ['b']


def test_every_seed_may_have_a_list(tmp_path):
  for seed, name in enumerate('ab'):
    (tmp_path / f'{seed}').mkdir()
    (tmp_path / f'{seed}/list.csv').write_text(f'image\n{name}\n')
  assert [chosen(tmp_path / '{seed}/list.csv', None, seed=seed) for seed in (0, 1)] == [
    ['a'],
    ['b'],
  ]


@pytest.mark.parametrize(
  ('text', 'labels', 'said'),
  [
    (None, 0, '{path}, in config.data.labelled_from, is not there; give the selection.csv of'),
    ('', 0, '{path}: has no column image'),
    ('name\na\n', 0, '{path}: has no column image, only'),
    (b'\x89PNG\0', 0, '{path}: cannot be read as comma-separated UTF-8 text'),
    ('image\n', 0, '{path}, in config.data.labelled_from, names no image; choose some by'),
    ('image\na\nz\ny\n', 0, "{path} names the image 'z' (and 1 more), which is not in the data set "
     'skin; restore it, or choose images of this data set'),
    ('image\na\nt\n', 0, "{path} names the image 't', which is in the test split; give it split "
     'train in labels.csv, whose column split keeps it there'),
    ('image\na\nv\nz\n', 2, "{path} names the image 'v', which is in the validation split;"),
    ('image\na\nb\ne\n', 0, "{path} names the image 'e', which has no mask; label it, or set "
     'config.data.labels=2 for those before it'),
    ('image\ne\n', 0, "{path} names the image 'e', which has no mask; label it$"),
    ('image\na\nb\na\n', 1, "{path} names the image 'a' twice; keep one of its rows"),
    ('image\na\na.png\n', 0, "{path} names the image 'a' twice; keep one of its rows"),
    ('image\n=f\n\'=f\n', 0, "{path} names the image '=f' twice; keep one of its rows"),
    ('image\nb\na\n', 3, '{path} names 2 images, and config.data.labels (or config.grid.labels) '
     'asks for 3; lower it, or choose more by launch.select'),
    *(
      (f'rank,image\n1,a\n{rank},b\n', 0, f'{{path}} line 3: rank {rank!r} is no whole number;')
      for rank in ('', '-1', '1.5', 'x', '\u0661', '9' * 20)
    ),
  ],
)  # fmt: skip
def test_a_list_that_cannot_be_learnt_from_is_refused(tmp_path, text, labels, said):
  path = tmp_path / 'list.csv'
  pattern = re.escape(said.format(path=path)).replace(r'\$', '$')
  with pytest.raises(UserError, match=f'^{pattern}') as refused:
    chosen(path, text, labels)
  assert '\n' not in str(refused.value)
