"""Shapes as masks: against hand-worked pixels, another rasteriser and pycocotools itself."""

import io
import json
from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import dispatch, shapes
from ahm_jax.data.readers.base import UnsupportedImage
from tests.hostile_json import DAMAGES

SIZE = (9, 12)


def pixels(held):
  with Image.open(io.BytesIO(held.read_bytes())) as image:
    return np.asarray(image)


def labelme(tmp_path, *shapes_, classes=(), **changed):
  tree = {'imageHeight': SIZE[0], 'imageWidth': SIZE[1], 'shapes': list(shapes_), 'imageData': None}
  (tmp_path / 'a.json').write_text(json.dumps(tree | changed))
  return shapes.labelme(tmp_path / 'a.json', classes)


def shape(points, label='x', kind='polygon'):
  return {'label': label, 'points': points, 'shape_type': kind, 'group_id': None, 'flags': {}}


def coco(*segmentations, values=None):
  found = [({'id': k, 'segmentation': each}, 1) for k, each in enumerate(segmentations)]
  if values:
    found = [(each, value) for (each, _), value in zip(found, values, strict=True)]
  return shapes.coco(PurePath('coco.json/a.png'), SIZE, found)


# LabelMe.


def test_a_polygon_and_a_rectangle_by_hand(tmp_path):
  expected = np.zeros(SIZE, np.uint8)
  expected[2:6, 3:9] = 1  # Corners are pixels of it, as LabelMe has them.
  box = [[3, 2], [8, 2], [8, 5], [3, 5]]
  for one in (shape(box), shape([[8, 5], [3, 2]], kind='rectangle'), shape(box, kind=None)):
    np.testing.assert_array_equal(pixels(labelme(tmp_path, one)), expected)


def test_a_triangle_is_what_lies_within_its_sides(tmp_path):
  found = pixels(labelme(tmp_path, shape([[0, 0], [11, 0], [0, 8]])))
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  side = columns / 11 + rows / 8
  assert found[side <= 1 - 0.1].all() and not found[side >= 1 + 0.1].any()


def test_a_circle_is_of_its_middle_and_a_point_on_it(tmp_path):
  found = pixels(labelme(tmp_path, shape([[5, 4], [5, 1]], kind='circle')))
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
  distance = np.hypot(rows - 4, columns - 5)
  assert found[distance <= 2.6].all() and not found[distance >= 3.5].any()


def test_shapes_are_joined_by_class_and_the_later_lies_on_top(tmp_path):
  first, second, third = (
    shape([[0, 0], [5, 5]], 'cup', 'rectangle'),
    shape([[4, 4], [8, 8]], 'disc', 'rectangle'),
    shape([[10, 0], [11, 1]], 'cup', 'rectangle'),
  )
  expected = np.zeros(SIZE, np.uint8)
  expected[:6, :6], expected[4:9, 4:9], expected[:2, 10:] = 2, 1, 2
  found = labelme(tmp_path, first, second, third, classes=('disc', 'cup'))
  np.testing.assert_array_equal(pixels(found), expected)
  found = labelme(tmp_path, first, second, third)
  np.testing.assert_array_equal(pixels(found), expected > 0)
  np.testing.assert_array_equal(dispatch.read_mask_slices(found)[0], expected > 0)


def test_no_shape_is_an_empty_mask(tmp_path):
  assert not pixels(labelme(tmp_path)).any()


@pytest.mark.parametrize(
  ('wrong', 'said'),
  [
    (shape([[0, 0], [1, 1]]), 'shape 0 is a polygon of 2 points'),
    (shape([[0, 0]], kind='rectangle'), 'shape 0 is a rectangle of 1 points'),
    (shape([[0, 0], [1, 1], [2, 2]], kind='circle'), 'shape 0 is a circle of 3 points'),
    (shape([[0, 0], [1, 1]], kind='line'), "shape 0 is a 'line', and polygons, rectangles"),
    (shape([[0, 0], [1, 1]], kind='mask'), "shape 0 is a 'mask'"),
    (shape([[0, 0, 0], [1, 1, 0], [2, 2, 0]]), r'has a point that is no \[x, y\]'),
    (shape([[0, 0], [1e9, 1], [2, 2]]), 'has a point at 1e.09, far from the image of 12x9'),
    (shape([[0, 0], [1, 10**200], [2, 2]]), 'far from the image'),
    (shape([[0, 0], ['a', 1], [2, 2]]), 'is no file of LabelMe: shapes'),
    (shape([[0, 0], [0, 1], [1, 1]], 'y'), "shape 0 is of 'y', which is not in config.data.mask"),
    ({'points': []}, 'is no file of LabelMe: shapes.0.: label is missing'),
  ],
)
def test_shapes_that_are_refused(tmp_path, wrong, said):
  with pytest.raises(UnsupportedImage, match=said) as caught:
    dispatch.read_mask_slices(labelme(tmp_path, wrong, classes=('x',)), ('x',))
  assert '/a.json' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'changed',
  [{'imageHeight': None}, {'imageWidth': 0}, {'imageHeight': 10**6, 'imageWidth': 10**6}],
)
def test_sizes_that_are_refused(tmp_path, changed):
  with pytest.raises(UnsupportedImage):
    dispatch.read_mask_slices(labelme(tmp_path, **changed))


@pytest.mark.parametrize('name', DAMAGES)
def test_damage(tmp_path, name):
  (tmp_path / 'a.json').write_bytes(DAMAGES[name])
  with pytest.raises(UnsupportedImage, match=r'a.json is no file of LabelMe') as caught:
    dispatch.read_mask_slices(shapes.labelme(tmp_path / 'a.json', ()))
  assert len(str(caught.value)) < 1000


# COCO.


@pytest.fixture
def reader():
  return pytest.importorskip('pycocotools.mask')


@pytest.mark.usefixtures('reader')
def test_polygons_by_hand():
  expected = np.zeros(SIZE, np.uint8)
  expected[2:6, 3:9] = 1  # Corners lie between pixels, as COCO has them.
  expected[7, 1:4] = 1
  box, strip = [3, 2, 9, 2, 9, 6, 3, 6], [1, 7, 4, 7, 4, 8, 1, 8]
  np.testing.assert_array_equal(pixels(coco([box, strip])), expected)
  np.testing.assert_array_equal(pixels(coco([box], [strip], values=[2, 1])), expected * 2 - [
    [row == 7] * SIZE[1] for row in range(SIZE[0])
  ] * expected)  # fmt: skip


def test_run_lengths_go_down_the_columns():
  expected = np.zeros(SIZE, np.uint8)
  expected[4:, 0] = expected[:2, 1] = 1
  runs = {'size': list(SIZE), 'counts': [4, 7, 97]}
  np.testing.assert_array_equal(pixels(coco(runs)), expected)


@pytest.mark.parametrize('seed', range(5))
def test_compressed_run_lengths(reader, seed):
  mask = np.asfortranarray(np.random.default_rng(seed).integers(0, 2, SIZE, np.uint8))
  runs = reader.encode(mask)
  text = runs['counts'].decode()
  np.testing.assert_array_equal(pixels(coco({'size': list(SIZE), 'counts': text})), mask)
  flat = np.concatenate([[0], mask.ravel(order='F'), [2]])
  edges = np.flatnonzero(np.diff(flat))
  assert shapes._uncompressed(text) == np.diff(np.concatenate([[0], edges])).tolist()


@pytest.mark.filterwarnings('ignore:__array__ implementation')
@pytest.mark.parametrize('seed', range(5))
def test_polygons_as_pycocotools_decodes_them(reader, seed):
  rng = np.random.default_rng(seed)
  polygons = [rng.uniform(-3, 14, 2 * count).tolist() for count in (3, 5, 8)]
  expected = reader.decode(reader.merge(reader.frPyObjects(polygons, *SIZE)))
  np.testing.assert_array_equal(pixels(coco(polygons)), expected)
  assert expected.any()


def test_long_runs_uncompressed(reader):
  mask = np.zeros((3000, 3000), np.uint8, order='F')
  mask[5:2900, 7:2000] = 1
  counts = shapes._uncompressed(reader.encode(mask)['counts'].decode())
  values = np.repeat(np.arange(len(counts)) % 2, counts).reshape(mask.shape, order='F')
  np.testing.assert_array_equal(values, mask)


@pytest.mark.parametrize(
  ('segmentation', 'said'),
  [
    (None, 'has no segmentation'),
    ([], 'has no segmentation'),
    ('x', 'has no segmentation'),
    ([[1, 1, 2, 2]], 'has a polygon of 4 numbers'),
    ([[1, 1, 2, 2, 3, 3, 4]], 'has a polygon of 7 numbers'),
    ([[1, 1, 2, 2, 3, 'a']], 'has a polygon of which'),
    ([[1, 1, 2, 2, 3, 1e12]], 'has a point at 1e.12, far from'),
    ([{'a': 1}], 'has a polygon of which'),
    ({'size': [9, 12], 'counts': [1, 2]}, 'has run lengths of 3 pixels in all, not 108'),
    ({'size': [9, 12], 'counts': [-1, 109]}, 'has run lengths of which'),
    (
      {'size': [9, 12], 'counts': [2**62, 2**62]},
      'has run lengths of 9223372036854775808 pixels in all, not 108',
    ),
    ({'size': [12, 9], 'counts': [108]}, r'has run lengths of size \[12, 9\], not \[9, 12\]'),
    ({'counts': [108]}, 'has run lengths of size None'),
    ({'size': [9, 12]}, 'has run lengths of which'),
    ({'size': [9, 12], 'counts': 'o' * 50}, 'has compressed run lengths that are none'),
    ({'size': [9, 12], 'counts': '\u00e9'}, 'has compressed run lengths that are none'),
    ({'size': [9, 12], 'counts': 'o'}, 'has compressed run lengths that are cut'),
    ({'size': [9, 12], 'counts': ''}, 'has run lengths of 0 pixels in all'),
    ({'size': [9, 12], 'counts': 'O'}, 'has run lengths of which'),
  ],
)
def test_segmentations_that_are_refused(segmentation, said):
  with pytest.raises(UnsupportedImage, match=f'coco.json/a.png: annotation 0 {said}') as caught:
    dispatch.read_mask_slices(coco(segmentation))
  assert '\n' not in str(caught.value)
