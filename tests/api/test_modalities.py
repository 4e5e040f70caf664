"""Cases of several modalities from Python: what `launch.predict` writes of them."""

import dataclasses

import jax
import nibabel
import numpy as np
import pytest
from PIL import Image

import ahm_jax
from ahm_jax.api.model import Model
from ahm_jax.config import ClassifyConfig
from ahm_jax.errors import UserError
from ahm_jax.export.export import export
from ahm_jax.models.layers import init_variables
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.predict.options import Options
from ahm_jax.predict.run import predict
from ahm_jax.runs.trained import Trained
from tests.api.test_model import check_as_written
from tests.predict.conftest import SIZE

NAMES = ('flair', 't1')
DATA = {'modalities': NAMES, 'intensity': ('percentile', 'window/300/600')}
AFFINE = np.array([[0, -0.8, 0, 9], [0.7, 0, 0, 4], [0, 0, 5.0, 1], [0, 0, 0, 1]])
ALL = Options(0.5, probabilities=True)


@pytest.fixture(scope='module')
def segmenter(make_segmenter):
  return make_segmenter(**DATA)


@pytest.fixture(scope='module')
def lenient(make_segmenter):
  return make_segmenter(**DATA, modality_dropout=0.3)


@pytest.fixture
def volume():
  """int16 [x, y, slices, modalities]."""
  return np.random.default_rng(0).integers(0, 700, (12, 10, 3, 2)).astype(np.int16)


@pytest.fixture
def pages():
  """uint8 [h, w] of each modality."""
  return np.random.default_rng(1).integers(0, 200, (2, 20, 30), np.uint8)


def save(path, values):
  nibabel.Nifti1Image(values, AFFINE).to_filename(path)
  return path


def numbered(folder, volume):
  folder.mkdir()
  return [save(folder / f'x_{k:04d}.nii.gz', volume[..., k]) for k in range(volume.shape[-1])]


def equal(found, expected):
  assert found.probabilities.tobytes() == expected.probabilities.tobytes()
  assert found.mask.tobytes() == expected.mask.tobytes()
  assert found.lacking == expected.lacking
  np.testing.assert_array_equal(found.overlay(), expected.overlay())


def test_files_of_a_case_are_predicted_as_the_command_does(segmenter, volume, tmp_path):
  images = tmp_path / 'images'
  files = numbered(images, volume)
  predict(segmenter, images, tmp_path / 'out', ALL)
  model = Model(segmenter)
  results = model.predict(files[1])
  check_as_written(results, tmp_path / 'out')
  assert [result.slice for result in results] == [0, 1, 2]
  assert {result.image for result in results} == {str(files[1])} and not results[0].lacking
  by_name = model.predict(dict(zip(NAMES, files, strict=True)))
  whole = model.predict(save(tmp_path / 'whole.nii.gz', volume))
  for expected, *others in zip(results, by_name, whole, strict=True):
    for other in others:
      equal(other, expected)
      assert other.measured == expected.measured
  assert results[0].measured['area_mm2'] == pytest.approx(results[0].measured['area_px'] * 0.56)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_masks_of_slices_are_stacked_to_the_volume_that_the_command_writes(
  make_segmenter, volume, tmp_path, axis
):
  segmenter = make_segmenter(**DATA, slice_axis=axis)
  files = numbered(tmp_path / 'images', volume)
  model = Model(segmenter)
  first = model.predict(files[0])
  threshold = float(np.median([result.probabilities for result in first]))
  predict(segmenter, tmp_path / 'images', tmp_path / 'out', Options(threshold))
  results = model.predict(files[0], threshold=threshold)
  written = nibabel.as_closest_canonical(nibabel.load(tmp_path / 'out/volumes/x.nii.gz'))
  stacked = np.stack([result.mask for result in results], model.slice_axis)
  np.testing.assert_array_equal(stacked, np.asarray(written.dataobj))
  assert 0 < stacked.sum() < stacked.size


def test_arrays_are_what_files_of_them_are(segmenter, pages, tmp_path):
  first, second = map(Image.fromarray, pages)
  path = tmp_path / 'x.tif'
  first.save(path, save_all=True, append_images=[second])
  model = Model(segmenter)
  expected = model.predict(path)
  equal(model.predict(np.moveaxis(pages, 0, -1)), expected)
  equal(model.predict(np.moveaxis(pages, 0, -1).astype(np.float64)), expected)
  equal(model.predict(dict(zip(NAMES, pages, strict=True))), expected)
  batch = model.predict(np.moveaxis([pages, pages[::-1]], 1, -1))
  assert len(batch) == 2
  equal(batch[0], expected)
  assert batch[1].probabilities.tobytes() != expected.probabilities.tobytes()
  mapped = model.predict(np.moveaxis(pages, 0, -1), range=(0, 255))
  assert mapped.probabilities.tobytes() != expected.probabilities.tobytes()
  several = model.predict([path, {'t1': pages[1], 'flair': pages[0]}])
  equal(several[1], expected)
  assert [result.image for result in several] == [str(path), 'images[1]']


def test_a_case_that_lacks_a_modality(lenient, segmenter, volume, pages, tmp_path):
  images = tmp_path / 'images'
  _, kept = numbered(images, volume)
  (images / 'x_0000.nii.gz').unlink()
  predict(lenient, images, tmp_path / 'out', ALL)
  model = Model(lenient)
  results = model.predict(kept)
  check_as_written(results, tmp_path / 'out')
  assert results[0].lacking == ('flair',)
  assert f'{kept}, slice 0, without flair, 12 x 10 pixels' in repr(results[0])
  for found, expected in zip(model.predict({'t1': kept}), results, strict=True):
    equal(found, expected)
  Image.fromarray(pages[1]).save(tmp_path / 'p_0001.png')
  equal(model.predict({'t1': pages[1]}), model.predict(tmp_path / 'p_0001.png'))
  with pytest.raises(
    UserError, match=r'case images/x lacks flair; add x_0000 beside images/x_0001'
  ):
    Model(segmenter).predict(kept)
  with pytest.raises(UserError, match=r'^image lacks flair; add it'):
    Model(segmenter).predict({'t1': kept})


def test_files_that_do_not_go_together_are_refused_in_one_line(segmenter, volume, tmp_path):
  model = Model(segmenter)
  both = numbered(tmp_path / 'images', volume)
  shorter = save(tmp_path / 'short.nii', volume[:, :, :2, 0])
  three = save(tmp_path / 'three.nii', np.concatenate([volume, volume[..., :1]], -1))
  for images, message in (
    ({'flair': both[0], 't1': shorter}, 'slices'),
    (three, r'holds 3 modalities \(it is 12x10x3x3\), where 2 should be; give a case one file'),
    (shorter, r'holds 1 modality \(it is 12x10x2\), where 2 should be'),
    ({'flair': three, 't1': both[1]}, 'holds 3 modalities'),
  ):
    with pytest.raises(UserError, match=message) as refused:
      model.predict([images])
    assert '\n' not in str(refused.value)


def test_a_classifier_sees_modalities_too(segmenter, volume, tmp_path):
  classify = dataclasses.replace(ClassifyConfig(), input='image')
  model = dataclasses.replace(segmenter.config.model, vgg_width=2, vgg_hidden=8, vgg_norm='batch')
  config = dataclasses.replace(segmenter.config, classify=classify, model=model)
  bare = Trained(segmenter.path, CLASSIFY, config, 1, {}, ('benign', 'malignant'))
  variables = init_variables(bare.network, jax.random.key(1), (1, SIZE, SIZE, 2))
  kept = {part: jax.tree.map(np.asarray, variables[part]) for part in variables}
  classifier = dataclasses.replace(bare, variables=kept)
  files = numbered(tmp_path / 'images', volume)
  predict(segmenter, tmp_path / 'images', tmp_path / 'out', ALL, classifier)
  results = Model(segmenter, classifier).predict(files[0])
  check_as_written(results, tmp_path / 'out')
  assert all(set(result.class_probabilities) == {'benign', 'malignant'} for result in results)


def test_what_is_told_of_the_network(segmenter):
  model = Model(segmenter)
  assert (model.modalities, model.channels, model.slice_axis) == (NAMES, 2, 2)
  assert 'flair + t1 images of any size, seen at 16 x 16 pixels' in repr(model)


@pytest.fixture
def told(make_segmenter, monkeypatch):
  """A network of modalities, classes and diagnoses."""
  segmenter = make_segmenter(('core', 'oedema'), diagnoses=('a', 'b'), **DATA)
  monkeypatch.setattr('ahm_jax.export.export.load', lambda *_: segmenter)
  return segmenter


def test_an_export_is_loaded_as_the_run_is(told, volume, tmp_path):
  export(tmp_path, 'orbax', tmp_path / 'exported')
  files = numbered(tmp_path / 'images', volume)
  loaded = ahm_jax.load(tmp_path / 'exported')
  expected = Model(told).predict(files[0])
  assert loaded.modalities == NAMES and loaded.class_names == ('a', 'b')
  for found, result in zip(loaded.predict(files[0]), expected, strict=True):
    equal(found, result)
    assert found.class_probabilities == result.class_probabilities
    assert found.class_name == max(found.class_probabilities, key=found.class_probabilities.get)
    assert sum(found.class_probabilities.values()) == pytest.approx(1, abs=1e-5)
  predict(told, tmp_path / 'images', tmp_path / 'out', ALL)
  check_as_written(expected, tmp_path / 'out', ('core', 'oedema'))


@pytest.mark.usefixtures('told')
def test_an_export_in_another_format_is_refused_in_one_line(tmp_path):
  export(tmp_path, 'npz', tmp_path / 'exported')
  message = r'^path=.*exported is an export in the format npz; give one of --format=orbax'
  with pytest.raises(UserError, match=message):
    ahm_jax.load(tmp_path / 'exported')
