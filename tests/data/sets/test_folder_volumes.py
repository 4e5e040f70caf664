"""Folders of DICOM and NIfTI files: slices, masks, patients, and what a missing package says."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ahm_jax
from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.sets import folder
from ahm_jax.errors import UserError

VOLUME = np.random.default_rng(0).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)


def make_folder(root, **config):
  for part in ('images', 'masks'):
    (root / part).mkdir(parents=True)
  return DataConfig(name='folder', root=str(root), image_size=16, **config)


def test_a_folder_of_volumes(tmp_path, write_nifti):
  config = make_folder(
    tmp_path / 'set', mask_classes=('liver', 'tumour'), every_slice=3, window=(40.0, 400.0)
  )
  labels = np.zeros((20, 24, 8), np.uint8)
  labels[5:15, 5:15, 2:6] = 1
  labels[8:12, 8:12, 3:5] = 2
  values = labels * 50.0
  for name in 'abc':
    affine = np.diag([0.8, 0.7, 5, 1])
    write_nifti(tmp_path / 'set' / 'images' / f'{name}.nii.gz', values.astype(np.int16), affine)
    write_nifti(tmp_path / 'set' / 'masks' / f'{name}.nii.gz', labels, affine)
  write_nifti(tmp_path / 'set' / 'images' / 'd.nii.gz', values.astype(np.int16))
  (tmp_path / 'set' / 'labels.csv').write_text(
    'image,split\na,train\nb,validation\nc,test\nd.nii.gz,train\n'
  )
  data = dataset.load(config, tmp_path)
  train = data.splits['train']
  assert data.mask_classes == ('liver', 'tumour')
  assert train.ids == ('a_s0000', 'a_s0003', 'a_s0006', 'd_s0000', 'd_s0003', 'd_s0006')
  assert train.groups == ('a', 'a', 'a', 'd', 'd', 'd')
  assert train.has_mask.tolist() == [True, True, True, False, False, False]
  np.testing.assert_allclose(train.spacing, [[0.8, 0.7]] * 3 + [[1, 1]] * 3)
  assert train.spacing.dtype == np.float32
  full = train.full_mask(1)
  assert full.dtype == np.uint8
  np.testing.assert_array_equal(full, labels[:, :, 3])
  assert set(np.unique(train.masks)) == {0, 1, 2}
  assert not train.full_mask(0).any()
  assert (
    'slices of volumes with an empty mask, which count as images without lesion: 6' in data.notes
  )
  assert train.take([4]).spacing.tolist() == [[1, 1]]


def test_dicom_is_taken_whatever_its_name(tmp_path, write_dicom):
  config = make_folder(tmp_path / 'set')
  names = ('IM0001', 'scan.IMA', '1.2.840.7', 'a.dcm')
  for index, name in enumerate(names):
    values = np.full((20, 20), 40 * index, np.uint8)
    write_dicom(tmp_path / 'set' / 'images' / name, values, PatientID=f'P{index}')
  write_dicom(tmp_path / 'set' / 'masks' / 'IM0001', np.eye(20, dtype=np.uint8))
  (tmp_path / 'set' / 'images' / 'README').write_text('Of 2024.')
  (tmp_path / 'set' / 'labels.csv').write_text(
    'image,split\nIM0001,train\nscan.IMA,train\n1.2.840.7,validation\na,test\n'
  )
  data = dataset.load(config, tmp_path)
  train = data.splits['train']
  assert (train.ids, train.groups) == (('IM0001', 'scan'), ('P0', 'P1'))
  assert train.has_mask.tolist() == [True, False]
  np.testing.assert_array_equal(train.full_mask(0), np.eye(20, dtype=bool))
  np.testing.assert_array_equal(train.images[1], np.full((16, 16, 3), 40))
  assert (data.splits['validation'].ids, data.splits['test'].ids) == (('1.2.840.7',), ('a',))
  assert "what is ignored in images/: 1 ('README')" in data.notes[0]


def test_patients_are_groups_unless_labels_csv_says_otherwise(tmp_path, write_dicom):
  config = make_folder(tmp_path / 'set')
  for index in range(6):
    values = np.full((20, 20), 40 * index, np.uint8)
    write_dicom(
      tmp_path / 'set' / 'images' / f'{index}.dcm',
      values,
      PatientID=f'P{index // 2}',
      PixelSpacing=[2, 1],
    )
    Image.fromarray(np.eye(20, dtype=bool)).save(tmp_path / 'set' / 'masks' / f'{index}.png')
  splits = dataset.load(config, tmp_path).splits
  assert sorted(sum((split.groups for split in splits.values()), ())) == [
    'P0',
    'P0',
    'P1',
    'P1',
    'P2',
    'P2',
  ]
  assert not set(splits['train'].groups) & set(splits['test'].groups)
  assert splits['train'].spacing.tolist() == [[2, 1]] * len(splits['train'])
  (tmp_path / 'set' / 'labels.csv').write_text('image,group\n0,x\n1,\n')
  splits = dataset.load(config, tmp_path).splits
  assert {'x', 'P0'} <= set(sum((split.groups for split in splits.values()), ()))
  (tmp_path / 'set' / 'labels.csv').write_text(
    'image,split\n0,train\n1,test\n2,train\n3,train\n4,validation\n5,validation\n'
  )
  with pytest.raises(
    UserError, match=r"group 'P0' is in split train \(image '0'\) and in test \(image '1'\)"
  ):
    dataset.load(config, tmp_path)


@pytest.mark.parametrize('patient', ['', None, ' '])
def test_without_a_patient_the_study_is_the_group_and_then_the_series(
  tmp_path, patient, write_dicom
):
  config = make_folder(tmp_path / 'set')
  attributes = {} if patient is None else {'PatientID': patient}
  sources = {
    'StudyInstanceUID': ['1.2.3', '1.2.3', '1.2.4'],
    'SeriesInstanceUID': ['1.5', '1.6', '1.6'],
  }
  values = np.zeros((20, 20), np.uint8)
  for index in range(3):
    uids = {tag: each[index] for tag, each in sources.items()}
    write_dicom(tmp_path / 'set' / 'images' / f'study{index}.dcm', values, **attributes, **uids)
    write_dicom(
      tmp_path / 'set' / 'images' / f'series{index}.dcm',
      values,
      **attributes,
      SeriesInstanceUID=f'1.7.{index // 2}',
    )
  write_dicom(tmp_path / 'set' / 'images' / 'unknown.dcm', values, **attributes)
  groups = {item.name: item.group for item in folder.list_items(config).items}
  assert [groups[f'study{index}'] for index in range(3)] == sources['StudyInstanceUID']
  assert [groups[f'series{index}'] for index in range(3)] == ['1.7.0', '1.7.0', '1.7.1']
  assert groups['unknown'] == 'unknown'


def test_one_patient_id_over_several_studies_is_told(tmp_path, write_dicom):
  config = make_folder(tmp_path / 'set')
  values = np.zeros((20, 20), np.uint8)

  def notes(patients, studies, table=None):
    for index, (patient, study) in enumerate(zip(patients, studies, strict=True)):
      write_dicom(
        tmp_path / 'set' / 'images' / f'{index}.dcm',
        values,
        PatientID=patient,
        StudyInstanceUID=study,
      )
    if table:
      (tmp_path / 'set' / 'labels.csv').write_text(table)
    return folder.list_items(config).notes

  assert notes(['ANON', 'ANON', 'ANON'], ['1.1', '1.1', '1.1']) == []
  assert notes(['ANON', 'ANON', 'B'], ['1.1', '1.1', '1.2']) == []
  assert notes(['', '', ''], ['1.1', '1.1', '1.2']) == []
  (note,) = notes(['ANON', 'ANON', 'ANON'], ['1.1', '1.1', '1.2'])
  assert note.startswith(
    'all 3 DICOM images without a group in labels.csv have the same PatientID, though they come '
    'from 2 studies'
  )
  assert note.endswith('tell them apart in a column group of labels.csv') and 'ANON' not in note
  assert note in dataset.load(config, tmp_path).notes
  assert (
    notes(['ANON', 'ANON', 'ANON'], ['1.1', '1.1', '1.2'], 'image,group\n0,x\n1,x\n2,y\n') == []
  )


@pytest.mark.parametrize(
  ('image', 'mask', 'message'),
  [
    ('a.nii', ('a.png', np.zeros((6, 5), np.uint8)), 'are not both NIfTI'),
    (
      'a.nii',
      ('a.nii', np.zeros((6, 5, 3), np.uint8)),
      r'masks/a\.nii holds 3 slices but images/a\.nii holds 4',
    ),
    (
      'a.nii',
      ('a.nii.gz', np.zeros((7, 5, 4), np.uint8)),
      r'masks/a\.nii\.gz is 5x7 but images/a\.nii is 5x6',
    ),
    (
      'a.nii',
      ('a.nii', np.diag([-1, 1, 1, 1])),
      r'masks/a\.nii does not lie where images/a\.nii does: by their affines .* up to 5 voxels',
    ),
    (
      'a.nii',
      ('a.nii', np.diag([1, 1, 2, 1])),
      r'masks/a\.nii does not lie where images/a\.nii does: by their affines .* up to 3 voxels',
    ),
    ('a.dcm', ('a.nii', np.zeros((8, 8, 1), np.uint8)), 'are not both NIfTI'),
    (
      'a.dcm',
      ('a.png', np.zeros((8, 9), np.uint8)),
      r'masks/a\.png is 9x8 but images/a\.dcm is 8x8',
    ),
  ],
)
def test_masks_that_do_not_fit_are_refused(
  tmp_path, image, mask, message, write_dicom, write_nifti
):
  config = make_folder(tmp_path / 'set')
  path = tmp_path / 'set' / 'images' / image
  write_nifti(path, VOLUME) if path.suffix == '.nii' else write_dicom(
    path, np.zeros((8, 8), np.uint8)
  )
  name, values = mask
  path = tmp_path / 'set' / 'masks' / name
  if path.suffix == '.png':
    Image.fromarray(values).save(path)
  elif values.shape == (4, 4):
    write_nifti(path, np.zeros(VOLUME.shape, np.uint8), affine=values)
  else:
    write_nifti(path, values)
  with pytest.raises(UserError, match=message):
    dataset.load(config, tmp_path)


def test_slices_that_would_take_the_name_of_an_image_are_refused(tmp_path, write_nifti):
  config = make_folder(tmp_path / 'set')
  write_nifti(tmp_path / 'set' / 'images' / 'a.nii', VOLUME)
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'set' / 'images' / 'a_s0001.png')
  with pytest.raises(
    UserError,
    match=r"images/a\.nii and images/a_s0001\.png both give an image named 'a_s0001'; rename one",
  ):
    dataset.load(config, tmp_path)


def test_a_small_lesion_that_vanishes_by_resizing_is_no_empty_mask(tmp_path, write_nifti):
  config = make_folder(tmp_path / 'set', split_fractions=(1.0, 0.0, 0.0))
  labels = np.zeros((64, 64, 3), np.uint8)
  labels[5, 5, 0] = 1
  write_nifti(tmp_path / 'set' / 'images' / 'a.nii', labels)
  write_nifti(tmp_path / 'set' / 'masks' / 'a.nii', labels)
  data = dataset.load(config, tmp_path)
  assert not data.splits['train'].masks.any()
  assert (
    'slices of volumes with an empty mask, which count as images without lesion: 2' in data.notes
  )


@pytest.mark.parametrize(('name', 'package'), [('a.dcm', 'pydicom'), ('a.nii.gz', 'nibabel')])
def test_without_the_package_it_says_what_to_install(tmp_path, name, package):
  make_folder(tmp_path / 'set')
  (tmp_path / 'set' / 'images' / name).write_bytes(b'x')
  script = (
    f'import sys; sys.modules[{package!r}] = None; from ahm_jax.config import DataConfig; from '
    'ahm_jax.data import dataset\n'
    f'from ahm_jax.errors import UserError\n'
    f'try: dataset.load(DataConfig(name="folder", root={str(tmp_path / "set")!r}), '
    f'{str(tmp_path)!r})\n'
    f'except UserError as error: print(error)'
  )
  result = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=True
  )
  assert result.stdout.startswith(
    f"images/{name} needs the package {package}; pip install 'ahm_jax[medical]'"
  )
  assert result.stdout.count('\n') == 1


def test_the_packages_are_imported_only_for_their_files(tmp_path):
  make_folder(tmp_path / 'set')
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'set' / 'images' / 'a.png')
  script = (
    'import sys; from ahm_jax.config import DataConfig; from ahm_jax.data import dataset\n'
    f'dataset.load(DataConfig(name="folder", root={str(tmp_path / "set")!r}, image_size=16), '
    f'{str(tmp_path)!r})\n'
    'assert "pydicom" not in sys.modules and "nibabel" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', script], check=True)


def test_the_extra_is_installed_for_the_tests_and_pinned():
  root = Path(ahm_jax.__file__).parents[1]
  extras = tomllib.loads((root / 'pyproject.toml').read_text())['project']['optional-dependencies']
  assert set(extras['medical']) == {'nibabel', 'pydicom'} <= set(extras['test'])
  pinned = {
    line.partition('==')[0]
    for line in (root / 'launch' / 'constraints.txt').read_text().splitlines()
  }
  wanted = {name.partition('>=')[0] for name in extras['test']}
  assert {*wanted, 'sortedcontainers', 'importlib-resources'} <= pinned
