"""Folders of cases of several modalities, from files to arrays, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset, originals
from ahm_jax.data.audit.inspection import inspect
from ahm_jax.data.prepare import cache_key
from ahm_jax.data.readers.intensity import MISSING
from ahm_jax.data.sets import folder
from ahm_jax.errors import UserError
from ahm_jax.report import data_page

NAMES = ('flair', 't1', 't2', 't1ce')
PLAIN = ('window/127.5/255',)
RNG = np.random.default_rng(0)


def config_of(root, **fields):
  for part in ('images', 'masks'):
    (root / part).mkdir(parents=True, exist_ok=True)
  fields = {'modalities': NAMES, 'intensity': PLAIN, **fields}
  return DataConfig(name='folder', root=str(root), image_size=16, **fields)


@pytest.fixture
def volumes(tmp_path, write_nifti):
  """Two cases of a file a modality, one of one file with all; a mask each; and the values."""
  root = tmp_path / 'set'
  config = config_of(root, every_slice=2)
  values = RNG.integers(0, 256, (3, 16, 16, 4, 4)).astype(np.int16)
  for name, volume in zip(('P1', 'P2.5'), values[:2], strict=True):
    for k in range(4):
      write_nifti(root / 'images' / f'{name}_{k:04d}.nii.gz', volume[..., k])
  write_nifti(root / 'images' / 'P3.nii.gz', values[2])
  for name, volume in zip(('P1', 'P2.5', 'P3'), values, strict=True):
    write_nifti(root / 'masks' / f'{name}.nii.gz', (volume[..., 0] > 127).astype(np.uint8))
  return config, values


def test_cases_of_volumes(tmp_path, volumes):
  config, values = volumes
  (tmp_path / 'set' / 'labels.csv').write_text(
    'image,split\nP1,train\nP2.5_0001.nii.gz,validation\nP3.nii.gz,test\n'
  )
  data = dataset.load(config, tmp_path)
  for index, (split, name) in enumerate([('train', 'P1'), ('validation', 'P2.5'), ('test', 'P3')]):
    found = data.splits[split]
    assert found.ids == (f'{name}_s0000', f'{name}_s0002')
    assert found.groups == (name, name)
    assert found.images.shape == (2, 16, 16, 4)
    np.testing.assert_array_equal(found.images, np.moveaxis(values[index][:, :, ::2], 2, 0))
    np.testing.assert_array_equal(found.full_mask(1), values[index][:, :, 2, 0] > 127)
    kept = list(originals.pictures(config, split, found))
    np.testing.assert_array_equal(kept, found.images)


def test_a_row_names_a_case_by_any_of_its_files_with_or_without_suffix(volumes):
  config, _ = volumes
  table = Path(config.root) / 'labels.csv'
  table.write_text('image,label\nP1_0002,x\nP2.5_0001.nii.gz,y\nP3,z\n')
  found = folder.list_items(config)
  assert not found.problems and [item.label for item in found.items] == ['x', 'y', 'z']
  table.write_text('image,label\nP1_0002,x\nP1_0003,x\n')
  assert "line 3: 'P1_0003' has a row already" in folder.list_items(config).problems[0]


def test_cases_of_rasters_larger_than_the_network_sees(tmp_path):
  """Each channel is resized by itself, as the only one of a grey image would be."""
  config = config_of(tmp_path / 'set', modalities=NAMES[:2])
  planes = RNG.integers(0, 256, (2, 40, 30)).astype(np.uint8)
  for k, plane in enumerate(planes):
    Image.fromarray(plane).save(tmp_path / 'set' / 'images' / f'a_{k:04d}.png')
  images = dataset.load(config, tmp_path).splits['train'].images
  for k, plane in enumerate(planes):
    expected = Image.fromarray(plane).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(images[0, ..., k], expected)


def test_a_case_that_lacks_a_modality_is_refused_before_anything_is_read(tmp_path, volumes):
  config, _ = volumes
  (tmp_path / 'set' / 'images' / 'P2.5_0002.nii.gz').unlink()
  with pytest.raises(UserError) as error:
    dataset.load(config, tmp_path)
  assert 'case images/P2.5 lacks t2; add P2.5_0002 beside' in str(error.value)
  assert '\n' not in str(error.value)


def test_with_modality_dropout_it_is_mid_grey(tmp_path, volumes):
  config, values = volumes
  (tmp_path / 'set' / 'images' / 'P2.5_0002.nii.gz').unlink()
  table = 'image,split\nP1,train\nP2.5,train\nP3,test\n'
  (tmp_path / 'set' / 'labels.csv').write_text(table)
  lenient = dataclasses.replace(config, modality_dropout=0.2)
  data = dataset.load(lenient, tmp_path)
  images = data.splits['train'].images
  assert (images[2:, ..., 2] == MISSING).all()
  for k in (0, 1, 3):
    expected = np.moveaxis(values[1][:, :, ::2, k], 2, 0)
    np.testing.assert_array_equal(images[2:, ..., k], expected)
  (note,) = [note for note in data.notes if 'lack' in note]
  assert note == "cases that lack modalities, which are mid-grey there: 1 ('P2.5')"
  with pytest.raises(UserError, match=r'P2\.5 lacks t2'):  # Not what was prepared for the other.
    dataset.load(config, tmp_path)


def test_another_number_of_modalities_is_refused(tmp_path, volumes):
  config, _ = volumes
  fewer = config_of(tmp_path / 'set', modalities=NAMES[:3])
  with pytest.raises(UserError, match=r'P1_0003\.nii\.gz is numbered 0003, but .*names 3'):
    dataset.load(fewer, tmp_path)
  none = config_of(tmp_path / 'set', modalities=(), intensity=('percentile',))
  with pytest.raises(UserError, match='end in _0000') as error:
    dataset.load(none, tmp_path)
  assert 'config.data.modalities' in str(error.value)
  del config


def test_the_mask_of_a_case_must_lie_where_its_image_does(tmp_path, volumes, write_nifti):
  config, values = volumes
  write_nifti(
    tmp_path / 'set' / 'masks' / 'P3.nii.gz',
    (values[2][..., 0] > 127).astype(np.uint8),
    np.diag([1, 1, 3, 1]),
  )
  with pytest.raises(UserError, match=r'masks/P3\S* does not lie where images/P3\S* does'):
    dataset.load(config, tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path, volumes):
  config, _ = volumes
  place = tmp_path / 'set' / 'images' / 'P1_0001.nii.gz'
  place.rename(tmp_path / 'elsewhere.nii.gz')
  place.symlink_to(tmp_path / 'elsewhere.nii.gz')
  with pytest.raises(UserError, match=r'P1_0001\S* is a link that leads out of the folder'):
    dataset.load(config, tmp_path)


def test_the_check_looks_at_cases(tmp_path, volumes):
  config, _ = volumes
  found = inspect(config, data_page.thumbnail)
  assert not found.problems and not found.layout
  assert [image.name for image in found.images[:2]] == ['P1_s0000', 'P1_s0002']
  assert {image.kind for image in found.images} == {'volumes of slices, modalities'}
  assert all(image.thumbnail and image.mask is not None for image in found.images)
  del tmp_path


def test_prepared_data_depend_on_modalities_and_intensity(tmp_path):
  root = tmp_path / 'set'
  keys = {
    cache_key(folder.SOURCE, config_of(root, **fields))
    for fields in (
      {},
      {'modalities': (*NAMES[1:], NAMES[0])},
      {'intensity': ('zscore',)},
      {'modalities': (), 'intensity': ('percentile',)},
    )
  }
  assert len(keys) == 4
