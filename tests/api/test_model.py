"""Prediction from Python: what `launch.predict` writes, of files, arrays, batches and lists."""

import csv
import dataclasses
import os
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import ahm_jax
from ahm_jax.api.model import Model
from ahm_jax.config import ClassifyConfig
from ahm_jax.errors import UserError
from ahm_jax.models.layers import init_variables
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.predict import stream
from ahm_jax.predict.options import Options
from ahm_jax.predict.run import predict
from ahm_jax.runs.trained import Trained
from tests.predict.conftest import SIZE

NAMES = ('a.png', 'b.png', 'c.bmp', 'd.webp', 'e.tif', 'sub/a.png', 'sub/f.jpg')
ABOUT = ('image', 'slice', 'mask', 'status', 'width', 'height', 'pages', 'lacking')


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def table(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return list(csv.DictReader(file))


def middle(model, root):
  """A threshold that some pixels reach and some do not."""
  return float(np.median(model.predict(root / 'b.png').probabilities))


def plane(probabilities):
  """As 16 bits, by hand."""
  return (np.clip(probabilities, 0, 1) * 65535 + 0.5).astype(np.uint16)


def check_as_written(results, out, classes=()):
  rows = table(out)
  assert len(rows) == len(results)
  for row, result in zip(rows, results, strict=True):
    mask = result.mask * np.uint8(255) if result.mask.dtype == bool else result.mask
    written = pixels(out / row['mask'])
    assert written.dtype == mask.dtype and written.tobytes() == mask.tobytes()
    name = row['mask'].removeprefix('masks/')
    if classes:
      assert result.probabilities.shape == (*mask.shape, len(classes) + 1)
      for k, item in enumerate(classes, 1):
        file = out / 'probabilities' / item / name
        np.testing.assert_array_equal(pixels(file), plane(result.probabilities[..., k]))
    else:
      np.testing.assert_array_equal(
        pixels(out / 'probabilities' / name), plane(result.probabilities)
      )
    told = {key: '' if value is None else str(value) for key, value in result.measured.items()}
    assert told == {key: value for key, value in row.items() if key not in ABOUT}
    assert str(result.confidence) == row['confidence'] and result.class_name == row['class']
    for name, probability in result.class_probabilities.items():
      assert str(probability) == row[f'class_probability_{name}']
    assert bool(result.class_probabilities) == ('class_probability' in row)
    assert ' '.join(result.lacking) == row.get('lacking', '')
    assert ('' if result.slice is None else str(result.slice)) == row['slice']


@pytest.fixture(scope='module')
def classifier(segmenter):
  classify = dataclasses.replace(ClassifyConfig(), input='image')
  model = dataclasses.replace(segmenter.config.model, vgg_width=2, vgg_hidden=8, vgg_norm='batch')
  config = dataclasses.replace(segmenter.config, classify=classify, model=model)
  bare = Trained(segmenter.path, CLASSIFY, config, 1, {}, ('benign', 'malignant'))
  variables = init_variables(bare.network, jax.random.key(1), (1, SIZE, SIZE, 3))
  kept = {part: jax.tree.map(np.asarray, variables[part]) for part in variables}
  return dataclasses.replace(bare, variables=kept)


@pytest.mark.parametrize(
  'options', [{}, {'flips': True}, {'tile': 24, 'overlap': 0.25}, {'batch_size': 3}]
)
def test_files_are_predicted_as_the_command_does(segmenter, images, tmp_path, options):
  model = Model(segmenter)
  threshold = middle(model, images)
  rest = {key: value for key, value in options.items() if key != 'batch_size'}
  predict(
    segmenter,
    images,
    tmp_path / 'out',
    Options(threshold, probabilities=True, **rest),
    batch_size=options.get('batch_size', 8),
  )
  results = model.predict([images / name for name in NAMES], threshold=threshold, **options)
  check_as_written(results, tmp_path / 'out')
  assert any(0 < result.mask.sum() < result.mask.size for result in results)
  assert [result.image for result in results] == [str(images / name) for name in NAMES]


def test_classes_and_diagnoses_too(make_segmenter, images, tmp_path):
  segmenter = make_segmenter(('spot', 'ring'), diagnoses=('a', 'b', 'c'))
  predict(segmenter, images, tmp_path / 'out', Options(0.5, probabilities=True))
  results = Model(segmenter).predict([images / name for name in NAMES])
  check_as_written(results, tmp_path / 'out', ('spot', 'ring'))
  assert results[0].mask.dtype == np.uint8 and set(results[0].class_probabilities) == {*'abc'}
  tiled = Model(segmenter).predict(images / 'sub/a.png', tile=16)
  assert tiled.class_probabilities == {} and 'class_probability' not in tiled.measured


def test_a_classifiers_diagnoses_too(segmenter, classifier, images, tmp_path):
  model = Model(segmenter, classifier)
  options = Options(0.5, probabilities=True)
  predict(segmenter, images, tmp_path / 'out', options, classifier)
  results = model.predict([images / name for name in NAMES])
  check_as_written(results, tmp_path / 'out')
  assert model.class_names == ('benign', 'malignant')
  assert sum(results[0].class_probabilities.values()) == pytest.approx(1, abs=1e-5)
  with pytest.raises(UserError, match='a classifier looks at images as a whole, and tile'):
    model.predict(images / 'a.png', tile=16)


def test_arrays_batches_and_ranges_give_what_the_file_gives(segmenter, images):
  model = Model(segmenter)
  threshold = middle(model, images)
  expected = model.predict(images / 'b.png', threshold=threshold)
  array = pixels(images / 'b.png')

  def same(found):
    assert found.mask.tobytes() == expected.mask.tobytes() and found.mask.any()
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.measured == expected.measured
    np.testing.assert_array_equal(found.overlay(), expected.overlay())

  same(model.predict(array, threshold=threshold))
  same(model.predict(array / np.float32(255), range=(0, 1), threshold=threshold))
  same(model.predict(np.asfortranarray(array), threshold=threshold))
  (single,) = model.predict(array[None], threshold=threshold)
  same(single)
  first, second = model.predict([images / 'b.png', array[:7]], threshold=threshold)
  same(first)
  assert second.mask.shape == array[:7].shape[:2] and second.image == 'images[1]'
  assert model.predict([]) == []


def test_an_image_of_one_pixel_and_a_long_one(segmenter):
  model = Model(segmenter)
  for shape in ((1, 1), (1, 3000), (2500, 2)):
    found = model.predict(np.full((*shape, 3), 7, np.uint8))
    assert found.mask.shape == found.probabilities.shape == shape
    assert max(found.overlay().shape[:2]) <= 1024


def test_grey_images(make_segmenter):
  model = Model(make_segmenter(channels=1))
  grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
  found, other = model.predict(grey), model.predict(grey[..., None])
  assert found.probabilities.tobytes() == other.probabilities.tobytes()
  assert found.overlay().shape == (20, 30, 3)
  with pytest.raises(UserError, match='this network takes grey images'):
    model.predict(np.zeros((20, 30, 3), np.uint8))


def test_a_volume_gives_its_slices(make_segmenter, tmp_path):
  nibabel = pytest.importorskip('nibabel')
  values = np.random.default_rng(0).integers(0, 900, (12, 10, 3)).astype(np.int16)
  (tmp_path / 'images').mkdir()
  path = tmp_path / 'images/v.nii.gz'
  nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0])), path)
  segmenter = make_segmenter(channels=1)
  results = Model(segmenter).predict(path)
  assert [result.slice for result in results] == [0, 1, 2]
  predict(segmenter, tmp_path / 'images', tmp_path / 'out', Options(0.5, probabilities=True))
  check_as_written(results, tmp_path / 'out')
  assert results[0].measured['area_mm2'] == results[0].measured['area_px'] * 6


def test_links_and_odd_names_are_files_too(segmenter, images, tmp_path):
  (tmp_path / 'link.PNG').symlink_to(images / 'b.png')
  shutil.copy(images / 'b.png', tmp_path / 'b\n.png')
  model = Model(segmenter)
  expected = model.predict(images / 'b.png')
  for path in (tmp_path / 'link.PNG', tmp_path / 'b\n.png'):
    found = model.predict(path)
    assert found.measured == expected.measured and '\n' not in repr(found)


def test_files_that_cannot_be_read_are_refused_in_one_line(
  segmenter, images, tmp_path, monkeypatch
):
  (tmp_path / 'broken.png').write_bytes((images / 'b.png').read_bytes()[:40])
  (tmp_path / 'text.txt').write_text('no image')
  (tmp_path / 'empty.nii').write_bytes(b'')
  os.mkfifo(tmp_path / 'pipe.png')
  nibabel = pytest.importorskip('nibabel')
  four = nibabel.Nifti1Image(np.zeros((5, 6, 3, 2), np.uint8), np.eye(4))
  nibabel.save(four, tmp_path / 'four.nii')
  model = Model(segmenter)
  for name, message in (
    ('broken.png', 'broken.png is damaged or not an image; replace it'),
    ('text.txt', 'text.txt is damaged or not an image'),
    ('empty.nii', 'empty.nii is damaged or not an image'),
    ('four.nii', 'four.nii has 4 axes of 5x6x3x2; save each volume in a file of its own'),
    ('pipe.png', 'pipe.png is a pipe, socket, device or folder'),
  ):
    with pytest.raises(UserError, match=message) as refused:
      model.predict([images / 'a.png', tmp_path / name])
    assert '\n' not in str(refused.value)
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r'^broken\.png is damaged'):
    model.predict('broken.png')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'threshold': 1}, 'threshold is 1; it must be strictly between 0 and 1'),
    ({'threshold': float('nan')}, 'threshold is nan'),
    ({'threshold': '0.5'}, "threshold is '0.5'"),
    ({'tile': 8}, 'tile is 8; it must be 0, or at least 16'),
    ({'tile': 16.0}, 'tile is 16.0'),
    ({'overlap': 0.95}, 'overlap is 0.95; it must be between 0 and 0.9'),
    ({'batch_size': 0}, 'batch_size is 0; it must be at least 1'),
  ],
)
def test_options_are_checked_as_flags_are(segmenter, options, message):
  with pytest.raises(UserError, match=f'^{message}'):
    Model(segmenter).predict(np.zeros((4, 4, 3), np.uint8), **options)


def test_a_second_call_compiles_nothing(make_segmenter):
  segmenter = make_segmenter()
  model, image = Model(segmenter), np.zeros((9, 9, 3), np.uint8)
  model.predict(image)
  program = stream.forward(segmenter, False)
  before = program._cache_size()
  model.predict([image, image[:4]])
  assert program._cache_size() == before == 1 and model._variables is model._variables


def test_what_is_printed(make_segmenter, segmenter, classifier):
  image = np.zeros((30, 40, 3), np.uint8)
  text = repr(Model(segmenter))
  told = 'RGB images of any size, seen at 16 x 16 pixels; masks of lesion)'
  assert text == f'Model(run, step 7: {told}'
  assert repr(Model(segmenter, classifier)).endswith(
    'masks of lesion, diagnoses benign, malignant by run)'
  )
  grey = repr(Model(make_segmenter(('spot', 'ring'), 1)))
  assert grey.endswith('grey images of any size, seen at 16 x 16 pixels; masks of spot, ring)')
  everything = Model(segmenter).predict(image, threshold=1e-6)
  assert repr(everything) == (
    f'Prediction(image, 40 x 30 pixels: lesion, 100.0% of the image, confidence '
    f'{everything.confidence:.3f})'
  )
  nothing = Model(segmenter).predict(image, threshold=1 - 1e-6)
  assert 'pixels: background, 0.0% of the image, confidence 0.' in repr(nothing)
  told = Model(segmenter, classifier).predict(image, threshold=1e-6)
  assert f': {told.class_name} (0.' in repr(told) and 'lesion 100.0% of the image' in repr(told)


def test_overlays_have_the_border(segmenter, images):
  model = Model(segmenter)
  found = model.predict(images / 'b.png', threshold=middle(model, images))
  picture, image = found.overlay(), pixels(images / 'b.png')
  changed = (picture != image).any(-1)
  assert picture.dtype == np.uint8 and picture.shape == image.shape
  assert 0 < changed.sum() < changed.size
  assert {tuple(colour) for colour in picture[changed]} == {(255, 159, 28)}
  before = found.overlay()
  picture[:] = 0
  np.testing.assert_array_equal(found.overlay(), before)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('nowhere',), 'path=nowhere: there is no such folder; give the workdir of a segment run'),
    (('.',), 'holds no run; give the --workdir of a segment run'),
  ],
)
def test_loading_what_is_not_there(tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    ahm_jax.load(*arguments)
