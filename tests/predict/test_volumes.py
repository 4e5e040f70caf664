"""Predictions of NIfTI images as volumes: where the images are, scored by hand, and made again."""

import csv
import json
from pathlib import Path

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from nibabel import orientations

from ahm_jax.config import Config, DataConfig
from ahm_jax.data.readers.base import Case
from ahm_jax.errors import UserError
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.predict import made, volumes
from ahm_jax.predict.options import Options
from ahm_jax.predict.run import predict
from ahm_jax.runs.trained import Trained

HALF = Options(0.5)
AFFINE = np.array([[0.8, 0.1, 0, -40], [-0.1, 0.7, 0, 30], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])


def bright(classes=(), name='folder', axis=2, modalities=()):
  """A network that finds what is bright: lesion from 128 on, or class k at 60 k."""

  def probabilities(network, variables, images):
    del network, variables
    grey = images[..., 0].astype(jnp.float32)
    if not classes:
      return grey / 255
    return (jnp.round(grey / 60)[..., None] == jnp.arange(len(classes) + 1)).astype(jnp.float32)

  fields = {'channels': 1}
  if modalities:  # Values from 0 to 255 are as they are.
    fields = {'modalities': modalities, 'intensity': ('window/127.5/255',)}
  data = DataConfig(
    name=name, root='.', image_size=16, mask_classes=classes, slice_axis=axis, **fields
  )
  stage = SEGMENT._replace(network=lambda *_: None, probabilities=probabilities)
  return Trained(Path('run'), stage, Config(data=data), 1, {'params': {}})


def blob(shape, classes=1):
  """Asymmetric blobs in RAS+ orientation, uint8 indices."""
  labels = np.zeros(shape, np.uint8)
  for k in range(1, classes + 1):
    labels[k : k + 2 + shape[0] // 3, 2 * k : 2 * k + 3, k - 1 : 2] = k
  labels[-1, 0, -1] = 1
  return labels


def save(path, values, code='RAS', affine=AFFINE):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = nibabel.Nifti1Image(values, affine).as_reoriented(
    orientations.ornt_transform(orientations.axcodes2ornt('RAS'), orientations.axcodes2ornt(code))
  )
  image.to_filename(path)
  return image


def dice(found, truth, k):
  """Of a whole volume."""
  return 2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum())


@pytest.mark.parametrize('code', ['RAS', 'LPS', 'PIR', 'SAL', 'ILP'])
@pytest.mark.parametrize(('axis', 'shape'), [(0, (5, 16, 16)), (1, (16, 5, 16)), (2, (16, 16, 5))])
def test_masks_lie_where_the_images_do(tmp_path, code, axis, shape):
  labels = blob(shape)
  save(tmp_path / 'images/scan.nii.gz', labels * np.uint8(200), code)
  predict(bright(axis=axis), tmp_path / 'images', tmp_path / 'out', HALF)
  found = nibabel.load(tmp_path / 'out/volumes/scan.nii.gz')
  image = nibabel.load(tmp_path / 'images/scan.nii.gz')
  assert found.shape == image.shape and found.get_data_dtype() == np.uint8
  np.testing.assert_array_equal(found.affine, image.affine)
  np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(image.dataobj) // 200)
  turned = np.asarray(nibabel.as_closest_canonical(found).dataobj)
  np.testing.assert_array_equal(turned, labels)


@pytest.mark.parametrize('code', ['RAS', 'PIR'])
@pytest.mark.parametrize('form', ['a fourth axis', 'a file each'])
def test_a_case_of_several_modalities_has_one_volume_where_they_are(tmp_path, form, code):
  labels = blob((16, 16, 5))
  both = [labels * np.uint8(200), 255 - labels * np.uint8(255)]
  images, out = tmp_path / 'images', tmp_path / 'out'
  if form == 'a file each':
    for k, values in enumerate(both):
      save(images / f'scan_{k:04d}.nii.gz', values, code)
  else:
    parts = [save(tmp_path / f'{k}.nii', values, code) for k, values in enumerate(both)]
    images.mkdir()
    stacked = np.stack([np.asarray(part.dataobj) for part in parts], -1)
    nibabel.Nifti1Image(stacked, parts[0].affine).to_filename(images / 'scan.nii.gz')
  segmenter = bright(modalities=('flair', 't1'))
  assert predict(segmenter, images, out, HALF) == (1, 0)
  (path,) = (out / 'volumes').iterdir()
  assert path.name == 'scan.nii.gz'
  found = nibabel.load(path)
  first = nibabel.load(sorted(images.iterdir())[0])
  assert found.shape == first.shape[:3] and found.get_data_dtype() == np.uint8
  np.testing.assert_array_equal(found.affine, first.affine)
  turned = np.asarray(nibabel.as_closest_canonical(found).dataobj)
  np.testing.assert_array_equal(turned, labels)
  before = path.stat().st_mtime_ns
  assert predict(segmenter, images, out, HALF) == (1, 0)
  assert path.stat().st_mtime_ns == before
  path.unlink()
  assert predict(segmenter, images, out, HALF) == (1, 0) and path.exists()


def test_a_case_whose_own_name_ends_in_a_number_keeps_it(tmp_path):
  images, out = tmp_path / 'images', tmp_path / 'out'
  for case in range(2):
    for k in range(2):
      save(images / f'case_{case:04d}_{k:04d}.nii.gz', blob((16, 16, 2)))
  segmenter = bright(name='nnunet', modalities=('flair', 't1'))
  assert predict(segmenter, images, out, HALF) == (2, 0)
  found = sorted(path.name for path in (out / 'volumes').iterdir())
  assert found == ['case_0000.nii.gz', 'case_0001.nii.gz']


def test_a_case_is_named_by_its_files_whatever_dots_it_has():
  case = Case('scan.png', (Path('scan.png_0000.nii.gz'), Path('scan.png_0001.nii.gz')))
  assert volumes.named('scan.png', case) == 'scan.png.nii.gz'
  assert volumes.named('a/X.NII.GZ', Case('X', (Path('X.NII.GZ'),))) == 'a/X.NII.GZ'
  assert volumes.named('a.png', Case('a', (Path('a_0000.png'),))) == 'a.png'
  assert volumes.named('b.tif', Path('b.tif')) == 'b.tif'


def test_a_dice_of_whole_volumes(tmp_path):
  """Of images that are not as large as what the network sees, class by class."""
  labels = np.zeros((40, 31, 4), np.uint8)
  labels[3:17, 4:18, 1:], labels[22:34, 12:28, 2] = 1, 2
  truth = save(tmp_path / 'labels/x.nii.gz', labels, 'LPS')
  save(tmp_path / 'images/x_0000.nii.gz', labels * np.uint8(60), 'LPS')
  save(tmp_path / 'images/sub/y_0000.nii', labels[::-1] * np.uint8(60))
  segmenter = bright(('liver', 'tumour'), 'nnunet')
  assert predict(segmenter, tmp_path / 'images', tmp_path / 'out', HALF, batch_size=3) == (2, 0)
  assert sorted(path.name for path in (tmp_path / 'out/volumes').rglob('*.nii*')) == [
    *('x.nii.gz', 'y.nii'),
  ]
  found = np.asarray(nibabel.load(tmp_path / 'out/volumes/x.nii.gz').dataobj)
  for k in (1, 2):
    assert 0.75 < dice(found, np.asarray(truth.dataobj), k) <= 1
  mirrored = np.asarray(nibabel.load(tmp_path / 'out/volumes/sub/y.nii').dataobj)
  for k in (1, 2):
    assert 0.75 < dice(mirrored, labels[::-1], k) <= 1
    assert dice(mirrored, labels, k) < 0.5
  with (tmp_path / 'out/predictions.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 8 and all((tmp_path / 'out' / row['mask']).is_file() for row in rows)


@pytest.mark.parametrize(
  ('image', 'of_folder', 'of_nnunet'),
  [
    ('case_0000.nii.gz', 'volumes/case_0000.nii.gz', 'volumes/case.nii.gz'),
    ('sub/Case_0000.NII.GZ', 'volumes/sub/Case_0000.nii.gz', 'volumes/sub/Case.nii.gz'),
    ('case.nii', 'volumes/case.nii', 'volumes/case.nii'),
    ('case_0001.nii', 'volumes/case_0001.nii', 'volumes/case_0001.nii'),
    ('sub/_0000.nii.gz', 'volumes/sub/_0000.nii.gz', 'volumes/sub/_0000.nii.gz'),
    ('a_0000_0000.nii', 'volumes/a_0000_0000.nii', 'volumes/a_0000.nii'),
  ],
)
def test_names(image, of_folder, of_nnunet):
  assert volumes.place(image, False) == of_folder
  assert volumes.place(image, True) == of_nnunet


def test_two_images_of_one_name_are_refused(tmp_path):
  for name in ('x', 'x_0000'):
    save(tmp_path / f'images/{name}.nii.gz', blob((16, 16, 2)))
  with pytest.raises(UserError, match=r'x.nii.gz and x_0000.nii.gz would have the same volume'):
    predict(bright(name='nnunet'), tmp_path / 'images', tmp_path / 'out', HALF)
  assert not (tmp_path / 'out').exists()
  assert predict(bright(), tmp_path / 'images', tmp_path / 'out', HALF) == (2, 0)
  names = ['X.nii', 'x_0000.nii', 'x_0000.png']
  assert volumes.clash(names, True) is None
  assert volumes.clash(names, True, folds_case=True) == ('X.nii', 'x_0000.nii')
  assert volumes.clash(names, False, folds_case=True) is None


def test_other_images_have_no_volume(tmp_path, segmenter, images):
  predict(segmenter, images, tmp_path / 'out', HALF)
  assert not (tmp_path / 'out/volumes').exists()


def test_an_image_of_one_slice(tmp_path):
  labels = blob((16, 16, 2))[..., :1]
  save(tmp_path / 'images/a.nii.gz', labels * np.uint8(255))
  predict(bright(), tmp_path / 'images', tmp_path / 'out', HALF)
  found = np.asarray(nibabel.load(tmp_path / 'out/volumes/a.nii.gz').dataobj)
  np.testing.assert_array_equal(found, labels)
  assert (tmp_path / 'out/masks/a.png').is_file()


# Again.


@pytest.fixture
def done(tmp_path):
  for name in 'ab':
    save(tmp_path / f'images/{name}.nii.gz', blob((16, 16, 3)) * np.uint8(255))
  predict(bright(), tmp_path / 'images', tmp_path / 'out', HALF)
  return tmp_path / 'out'


def contents(out):
  return {path: path.read_bytes() for path in out.rglob('*.nii.gz')}


def test_nothing_is_done_twice(done, tmp_path):
  before = {path: path.stat().st_mtime_ns for path in contents(done)}
  assert len(before) == 2 and predict(bright(), tmp_path / 'images', done, HALF) == (2, 0)
  assert {path: path.stat().st_mtime_ns for path in contents(done)} == before


@pytest.mark.parametrize('fault', ['gone', 'cut', 'a link'])
def test_a_volume_that_is_not_as_it_was_written_is_made_again(done, tmp_path, capsys, fault):
  before = contents(done)
  path = done / 'volumes/b.nii.gz'
  data = path.read_bytes()
  path.unlink()
  if fault == 'cut':
    path.write_bytes(data[:-1])
  elif fault == 'a link':
    path.symlink_to(done / 'volumes/a.nii.gz')
  assert predict(bright(), tmp_path / 'images', done, HALF) == (2, 0)
  assert (
    'done again, as the image or its files have changed: 1 (b.nii.gz)' in capsys.readouterr().err
  )
  assert contents(done) == before and not path.is_symlink()


def test_what_was_made_before_there_were_volumes_is_made_again(done, tmp_path, capsys):
  before = contents(done)
  header, *lines = (done / made.FILE).read_bytes().splitlines(keepends=True)
  entries = [made._entry(line) for line in lines]
  for entry in entries:
    del entry.files[next(filter(volumes.is_place, entry.files))]
  (done / made.FILE).write_bytes(header + b''.join(map(made.line, entries)))
  for path in before:
    path.unlink()
  (done / 'volumes').rmdir()
  assert predict(bright(), tmp_path / 'images', done, HALF) == (2, 0)
  assert '2 (a.nii.gz, b.nii.gz)' in capsys.readouterr().err
  assert contents(done) == before


def test_an_image_that_was_removed_leaves_a_volume_that_is_named(done, tmp_path, capsys):
  (tmp_path / 'images/b.nii.gz').unlink()
  predict(bright(), tmp_path / 'images', done, HALF)
  assert 'images that are gone or were renamed: 4 (masks/b_s0000.png' in capsys.readouterr().err
  assert json.loads((done / 'predict.json').read_text())['made_by']


def test_an_image_that_changes_while_it_is_read_is_said(done, tmp_path, monkeypatch):
  layout = volumes.Volume.slices
  monkeypatch.setattr(volumes.Volume, 'slices', property(lambda self: layout.fget(self)[1:]))
  save(tmp_path / 'images/c.nii.gz', blob((16, 16, 3)))
  assert predict(bright(), tmp_path / 'images', done, HALF) == (2, 1)
  assert 'c.nii.gz has changed while it was read' in (done / 'predictions.csv').read_text()


def test_a_disk_that_loses_bytes_ends_it_in_a_line(tmp_path, monkeypatch):
  from ahm_jax.data import mask_nifti

  save(tmp_path / 'images/a.nii.gz', blob((16, 16, 3)) * np.uint8(255))
  encoded = mask_nifti._encoded
  monkeypatch.setattr(mask_nifti, '_encoded', lambda *args: encoded(*args)[:-1])
  with pytest.raises(
    UserError, match=r'what was written cannot be read back .*run the same command'
  ):
    predict(bright(), tmp_path / 'images', tmp_path / 'out', HALF)
  assert not list((tmp_path / 'out').rglob('*.nii.gz'))
