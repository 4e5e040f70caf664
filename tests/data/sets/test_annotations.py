"""Folders whose masks are drawn as shapes: what is read, and what is refused in a line."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.sets import folder
from ahm_jax.errors import UserError
from tests.hostile_json import DAMAGES

NAMES = 'abcdef'
SIZE = (20, 24)
BOX = np.zeros(SIZE, bool)
BOX[5:12, 4:16] = True


class Folder:
  """Six images under construction."""

  def __init__(self, root):
    self.root = root
    for name in ('images', 'masks'):
      (root / name).mkdir(parents=True)
    for number, name in enumerate(NAMES):
      values = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)
      Image.fromarray(values).save(root / 'images' / f'{name}.png')

  def labelme(self, *names, label='x', **changed):
    shape = {'label': label, 'points': [[4, 5], [15, 11]], 'shape_type': 'rectangle'}
    tree = {'imageHeight': SIZE[0], 'imageWidth': SIZE[1], 'shapes': [shape]} | changed
    for name in names:
      (self.root / 'masks' / f'{name}.json').write_text(json.dumps(tree))
    return self

  def coco(self, names=NAMES, annotated=NAMES, **changed):
    box = [[4, 5, 16, 5, 16, 12, 4, 12]]
    tree = {
      'images': [
        {'id': 10 + k, 'file_name': f'data/{name}.png', 'height': SIZE[0], 'width': SIZE[1]}
        for k, name in enumerate(names)
      ],
      'categories': [{'id': 3, 'name': 'x'}],
      'annotations': [
        {'id': k, 'image_id': 10 + k, 'category_id': 3, 'segmentation': box}
        for k, name in enumerate(names)
        if name in annotated
      ],
    } | changed
    (self.root / 'coco.json').write_text(json.dumps(tree))
    return self

  def config(self, **fields):
    return DataConfig(name='folder', root=str(self.root), image_size=16, **fields)

  def load(self, **fields):
    return dataset.load(self.config(**fields), self.root.parent / 'work')

  def masks(self, **fields):
    return {
      name: split.full_mask(index) if split.has_mask[index] else None
      for split in self.load(**fields).splits.values()
      for index, name in enumerate(split.ids)
    }

  def refused(self, said, **fields):
    with pytest.raises(UserError) as caught:
      self.load(**fields)
    assert said in str(caught.value) and '\n' not in str(caught.value)
    assert str(self.root) in str(caught.value)


@pytest.fixture
def made(tmp_path):
  return Folder(tmp_path / 'set')


@pytest.fixture
def with_coco():
  pytest.importorskip('pycocotools')


def test_files_of_labelme(made):
  found = made.labelme(*'abcde').masks()
  assert found['f'] is None
  for name in 'abcde':
    np.testing.assert_array_equal(found[name], BOX)
  classes = made.masks(mask_classes=('y', 'x'))
  np.testing.assert_array_equal(classes['a'], BOX * np.uint8(2))
  made.refused("masks/a.json: shape 0 is of 'x', which is not in", mask_classes=('y',))


def test_a_mask_file_goes_before_a_file_of_labelme(made):
  made.labelme(*NAMES)
  Image.fromarray(BOX.astype(np.uint8)[::-1] * 255).save(made.root / 'masks/a.png')
  (made.root / 'masks/readme.json').write_text('{}')
  found = made.masks()
  np.testing.assert_array_equal(found['a'], BOX[::-1])
  np.testing.assert_array_equal(found['b'], BOX)
  notes = made.load().notes
  assert any('LabelMe in masks/ that are NOT used' in n and "1 ('a.json')" in n for n in notes)
  assert any("ignored in masks/: 1 ('readme.json')" in note for note in notes)


def test_files_of_labelme_end_in_upper_case_too_but_not_in_both(made):
  made.labelme(*NAMES)
  shutil.copy(made.root / 'masks/a.json', made.root / 'masks/a.JSON')
  made.refused('masks/a.JSON and masks/a.json have the same name; keep one of them')
  (made.root / 'masks/a.json').unlink()
  np.testing.assert_array_equal(made.masks()['a'], BOX)


def test_wrong_files_of_labelme(made):
  made.labelme(*NAMES).labelme('c', imageHeight=30)
  made.refused('masks/c.json is 24x30 but images/c.png is 24x20')
  made.labelme('c', shapes=3)
  made.refused('masks/c.json is no file of LabelMe: shapes is 3, not a list')
  found = findings.find(inspection.inspect(made.config(), lambda *_: b''), made.config())
  (unsupported,) = [finding for finding in found if finding.code == 'unsupported']
  assert ['masks/c.json is no file of LabelMe' in case.text for case in unsupported.cases] == [True]
  (made.root / 'masks/c.json').unlink()
  (made.root / 'masks/c.json').symlink_to('/etc/hostname')
  made.refused('masks/c.json is a link that leads out of the folder')


@pytest.mark.usefixtures('with_coco')
def test_a_file_of_coco(made):
  shutil.rmtree(made.root / 'masks')
  found = made.coco(names='abcde', annotated='abcd').masks()
  for name in 'abcd':
    np.testing.assert_array_equal(found[name], BOX)
  assert found['e'] is not None and not found['e'].any() and found['f'] is None
  assert any('coco.json lists without an annotation' in note for note in made.load().notes)
  np.testing.assert_array_equal(made.masks(mask_classes=('y', 'x'))['a'], BOX * np.uint8(2))


@pytest.mark.usefixtures('with_coco')
@pytest.mark.parametrize(
  ('changed', 'said'),
  [
    ({'names': 'abcdefg'}, "names 'data/g.png', which is not in images/"),
    ({'names': 'abcdefa'}, "has a mask of 'a.png', and so has another entry of coco.json"),
    ({'categories': []}, 'annotation 0 is of an image or a category that is not listed'),
    ({'images': []}, 'annotation 0 is of an image or a category that is not listed'),
    ({'annotations': 3}, 'annotations is 3, not a list'),
    ({'annotations': [{'id': 1}]}, 'image_id is missing'),
    (
      {'annotations': [{'id': 1, 'image_id': 10, 'category_id': 3}]},
      'coco.json/a.png: annotation 1 has no segmentation',
    ),
    ({'categories': [{'id': 3, 'name': 'x'}] * 2}, 'categories has the id 3 twice'),
  ],
)
def test_wrong_files_of_coco(made, changed, said):
  made.coco(**changed).refused(said)


@pytest.mark.usefixtures('with_coco')
def test_a_class_that_is_not_asked_for(made):
  made.coco().refused("annotation 0 is of 'x', which is not in config.data.mask_classes, y;",
                      mask_classes=('y',))  # fmt: skip
  for name in ('left lung', 'Background'):
    made.coco(categories=[{'id': 3, 'name': name}])
    made.refused(f"is of '{name}', as no class", mask_classes=('y',))


@pytest.mark.usefixtures('with_coco')
def test_two_masks_of_an_image(made):
  made.coco()
  Image.fromarray(BOX.astype(np.uint8)).save(made.root / 'masks/b.png')
  made.refused("coco.json has a mask of 'b.png', and so has masks/b.png; keep one of them")
  (made.root / 'masks/b.png').unlink()
  made.labelme('c').refused("a mask of 'c.png', and so has masks/c.json")


@pytest.mark.usefixtures('with_coco')
def test_another_size(made):
  images = [{'id': 10, 'file_name': 'a.png', 'height': 24, 'width': 20}]
  annotation = {'id': 1, 'image_id': 10, 'category_id': 3, 'segmentation': [[1, 1, 5, 1, 5, 5]]}
  made.coco(images=images, annotations=[annotation])
  made.refused('coco.json/a.png is 20x24 but images/a.png is 24x20')


@pytest.mark.parametrize('name', DAMAGES)
def test_damage(made, name):
  (made.root / 'coco.json').write_bytes(DAMAGES[name])
  made.refused('coco.json is damaged')


def test_the_package_that_is_missing_is_named(made, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pycocotools', None)
  monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)
  made.coco().refused("needs the package pycocotools; pip install 'ahm_jax[coco]'")


def test_prepared_data_depend_on_them_and_else_on_nothing_new(made):
  bare = folder.depends_on(made.config())
  assert 'drawn' not in bare
  made.labelme('a')
  first = folder.depends_on(made.config())
  made.coco()
  second = folder.depends_on(made.config())
  assert len(first['drawn']) == 1 and len(second['drawn']) == 2


@pytest.mark.parametrize('form', ['labelme', 'coco'])
def test_cases_of_several_modalities_have_one_mask(tmp_path, form):
  """COCO lists the file of a modality, whichever."""
  made = Folder(tmp_path / 'set')
  for name in NAMES:
    plain = made.root / 'images' / f'{name}.png'
    for k in (0, 1):
      Image.open(plain).convert('L').save(plain.with_name(f'{name}_{k:04d}.png'))
    plain.unlink()
  if form == 'labelme':
    made.labelme(*NAMES)
  else:
    pytest.importorskip('pycocotools')
    made.coco(tuple(f'{name}_0001' for name in NAMES), tuple(f'{name}_0001' for name in NAMES))
  masks = made.masks(modalities=('t1', 't2'))
  assert sorted(masks) == list(NAMES)
  for mask in masks.values():
    assert mask.shape == SIZE and mask[7, 8] and not mask[1, 1] and abs(mask.sum() - BOX.sum()) < 25
