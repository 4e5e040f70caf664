"""Which arrays, paths and mappings are images."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ahm_jax.api import inputs
from ahm_jax.config import DataConfig
from ahm_jax.data.readers.base import Case
from ahm_jax.errors import UserError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
PLANE = RGB[..., 0]
BOTH = DataConfig(name='folder', modalities=('ct', 'mr'), intensity=('window/127.5/255',))
MAY_LACK = DataConfig(
  name='folder', modalities=('ct', 'mr'), intensity=('window/127.5/255',), modality_dropout=0.2
)


def given(images, channels=3, value_range=None):
  return inputs.given(images, DataConfig(channels=channels), value_range)


def only(images, data):
  (found,), single = inputs.given(images, data, None)
  assert single
  return found


def test_several_are_a_batch_or_a_list():
  batch = np.stack([RGB, RGB + 1])
  found, single = given(batch)
  assert not single and [item.name for item in found] == ['images[0]', 'images[1]']
  np.testing.assert_array_equal([item.source for item in found], batch)
  found, single = given([RGB, RGB[:2]])
  assert not single and [item.source.shape for item in found] == [(4, 5, 3), (2, 5, 3)]
  assert given([]) == given(np.zeros((0, 4, 5, 3), np.uint8)) == ([], False)


def test_paths(tmp_path, monkeypatch):
  Image.fromarray(RGB).save(tmp_path / 'A.PNG')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  for path in ('A.PNG', './A.PNG', '~/A.PNG', tmp_path / 'A.PNG', Path('A.PNG')):
    assert only(path, DataConfig()).source.is_file()
  found, single = given(('A.PNG', RGB))
  assert not single and [item.name for item in found] == ['A.PNG', 'images[1]']


FLOATS = np.full((4, 5, 3), 0.5, np.float32)


@pytest.mark.parametrize(
  ('image', 'channels', 'value_range', 'message'),
  [
    (np.zeros((2, 4, 5, 4), np.uint8), 3, None, r'images\[0\] is of shape \[4, 5, 4\]'),
    ([RGB, RGB[None]], 3, None, r'images\[1\] is of shape \[1, 4, 5, 3\]'),
    ([RGB, FLOATS], 3, None, r'images\[1\] is of float32'),
    (np.uint8(3), 3, None, 'image is of type uint8; give a NumPy array'),
    (None, 3, None, 'image is of type NoneType; give a NumPy array, a path, or a list of these'),
    ([[1, 2], [3, 4]], 3, None, r'images\[0\] is of type list; give a NumPy array'),
    (b'a.png', 3, None, 'image is of type bytes'),
    (Image.fromarray(RGB), 3, None, 'image is of type Image; give a NumPy array'),
    (RGB, 3, (1, 0), r'range is \(1, 0\); give the values that are black and white'),
    ('nowhere.png', 3, None, 'nowhere.png: there is no such file'),
    ('', 3, None, 'is a folder; give a list of files'),
    ('/', 3, None, '/ is a folder; give a list of files'),
    ('/dev/null/a.png', 3, None, 'there is no such file'),
    ('https://host/a.png', 3, None, 'a URL; give a path of this machine'),
    ('a\0b', 3, None, 'holds a NUL character'),
    ('a.png', 3, (0, 1), 'range is of arrays, and a.png is a file'),
    ({'ct': PLANE}, 1, None, 'image is a mapping of modalities, and this network was trained'),
    ([RGB, {}], 3, None, r'images\[1\] is a mapping of modalities'),
  ],
)
def test_what_is_no_image_is_refused_in_one_line(image, channels, value_range, message):
  with pytest.raises(UserError, match=message) as refused:
    given(image, channels, value_range)
  assert '\n' not in str(refused.value)


# Modalities.


def test_modalities_by_name(tmp_path):
  both = np.stack([PLANE, PLANE + 1], -1)
  found = only({'mr': jnp.asarray(PLANE + 1), 'ct': PLANE}, BOTH)
  np.testing.assert_array_equal(found.source, both)
  assert (found.name, found.lacking) == ('image', [])
  found = only({'mr': PLANE + 1}, MAY_LACK)
  np.testing.assert_array_equal(found.source[..., 1], PLANE + 1)
  assert found.lacking == ['ct'] and (found.source[..., 0] == 128).all()
  paths = {name: tmp_path / f'{name}.png' for name in ('mr', 'ct')}
  for path in paths.values():
    Image.fromarray(PLANE).save(path)
  assert only(paths, BOTH).source == Case('mr', (paths['ct'], paths['mr']))
  assert only({'ct': str(paths['ct'])}, MAY_LACK).source == Case('ct', (paths['ct'], None))
  batch, single = inputs.given(np.stack([both, both]), BOTH, None)
  assert not single and [item.source.shape for item in batch] == [(4, 5, 2), (4, 5, 2)]
  mixed, single = inputs.given([both, {'ct': PLANE, 'mr': PLANE}, paths], BOTH, None)
  assert not single and [item.name for item in mixed] == ['images[0]', 'images[1]', 'images[2]']


def test_files_of_one_case(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('a_0000.png', 'a_0001.png', 'b_0000.png', 'c.tif'):
    Path(name).touch()
  case = Case('a', (Path('a_0000.png'), Path('a_0001.png')))
  for name in ('a_0000.png', 'a_0001.png'):
    found = only(name, BOTH)
    assert found.source == case and found.name == name
  assert only('c.tif', BOTH).source == Case('c', (Path('c.tif'),))
  assert only('b_0000.png', BOTH).source == Case('b', (Path('b_0000.png'), None))
  found, _ = inputs.given(['a_0000.png', 'b_0000.png', 'a_0000.png'], BOTH, None)
  assert [item.source.name for item in found] == ['a', 'b', 'a']
  with pytest.raises(UserError, match=r'^a_0000\.png and a_0001\.png are files of one case'):
    inputs.given(['a_0000.png', 'c.tif', 'a_0001.png'], BOTH, None)
  Path('a_0001.tif').touch()
  with pytest.raises(UserError, match=r'are one modality of one case; keep one of them'):
    inputs.given('a_0000.png', BOTH, None)


def test_a_folder_that_cannot_be_listed_is_not_called_empty(tmp_path, monkeypatch):
  path = tmp_path / 'a_0000.png'
  path.touch()

  def refuse(_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(Path, 'iterdir', refuse)
  with pytest.raises(UserError, match=r'cannot be read \(Permission denied\)'):
    inputs.given(path, BOTH, None)


@pytest.mark.parametrize(
  ('image', 'data', 'message'),
  [
    ({'ct': PLANE}, BOTH, 'image lacks mr; add it, or train with config.data.modality_dropout'),
    ({}, BOTH, 'image holds nothing; give at least one of the modalities ct, mr'),
    ({}, MAY_LACK, 'image holds nothing; give at least one of'),
    ({'CT': PLANE, 'mr': PLANE}, BOTH, "image holds 'CT', and the modalities are ct, mr; rename"),
    ({0: PLANE, 1: PLANE}, BOTH, 'image holds 0, and the modalities are ct, mr'),
    ({'ct': PLANE, 'mr': 'a.png'}, MAY_LACK, 'image holds arrays and paths; give all of its'),
    (
      {'ct': PLANE, 'mr': None},
      MAY_LACK,
      r"image\['mr'\] is of type NoneType; give a NumPy array or a",
    ),
    ({'ct': 'no.png', 'mr': 'no2.png'}, BOTH, r'no\.png: there is no such file'),
    ({'ct': '/', 'mr': '/'}, BOTH, '/ is a folder'),
    ({'ct': '/dev/null', 'mr': '/dev/null'}, BOTH, 'image gives one file to two modalities'),
    ([{'ct': PLANE, 'mr': PLANE}, {'ct': PLANE}], BOTH, r'images\[1\] lacks mr'),
    (RGB, BOTH, r'of shape \[4, 5, 3\]; this network takes 2 modalities'),
    ('no_0000.nii', BOTH, r'no_0000\.nii: there is no such file'),
  ],
)
def test_wrong_modalities_are_refused_in_one_line(image, data, message):
  with pytest.raises(UserError, match=message) as refused:
    inputs.given(image, data, None)
  assert '\n' not in str(refused.value)
