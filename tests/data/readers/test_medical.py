"""DICOM and NIfTI: values against pydicom and nibabel, slices, spacing, masks, and headers that
lie.
"""

import gzip
import subprocess
import sys
import tomllib
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale, apply_windowing
from pydicom.uid import (
  CTImageStorage,
  DeflatedExplicitVRLittleEndian,
  ExplicitVRLittleEndian,
  generate_uid,
)

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.readers import files, medical
from ahm_jax.data.readers.files import Unreadable, UnsupportedImage
from ahm_jax.data.sets import folder
from ahm_jax.errors import UserError

EXAMPLES = Path(pydicom.__file__).parent / 'data' / 'test_files'
VOLUME = np.random.default_rng(0).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)


def stretched(values, low, high):
  return np.floor(np.clip((np.asarray(values, float) - low) / (high - low), 0, 1) * 255 + 0.5)


def dicom(path, values, **attributes):
  """Writes a DICOM file of stored values [H, W], [frames, H, W] where NumberOfFrames is given,
  or colours [..., 3].
  """
  meta = FileMetaDataset()
  meta.TransferSyntaxUID = attributes.pop('syntax', ExplicitVRLittleEndian)
  meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
  data = Dataset()
  data.file_meta = meta
  data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
  is_colour = values.shape[-1] == 3
  data.Rows, data.Columns = values.shape[-3:-1] if is_colour else values.shape[-2:]
  data.SamplesPerPixel = 3 if is_colour else 1
  data.PhotometricInterpretation = 'RGB' if is_colour else 'MONOCHROME2'
  if is_colour:
    data.PlanarConfiguration = 0
  data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
  data.HighBit = data.BitsStored - 1
  data.PixelRepresentation = int(values.dtype.kind == 'i')
  data.PixelData = values.tobytes() + b'\0' * (values.nbytes % 2)
  for name, value in attributes.items():
    setattr(data, name, value)
  data.save_as(path, enforce_file_format=True)
  return path


def nifti(path, values, affine=None, slope=None, inter=None):
  image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
  image.header.set_xyzt_units('mm')
  if slope is not None:
    image.header.set_slope_inter(slope, inter)
  image.to_filename(path)
  return path


def grey(path, **options):
  return [picture.pixels[..., 0] for _, picture in files.read_slices(path, 1, **options)]


# DICOM.


def test_stored_values_are_rescaled_and_windowed(tmp_path):
  values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 10
  path = dicom(
    tmp_path / 'a.dcm',
    values,
    RescaleSlope=2,
    RescaleIntercept=-1000,
    WindowCenter=[40, 500],
    WindowWidth=[400, 9],
  )
  hounsfield = values * 2.0 - 1000
  np.testing.assert_array_equal(
    grey(path)[0], stretched(hounsfield, 40 - 0.5 - 199.5, 40 - 0.5 + 199.5)
  )
  np.testing.assert_array_equal(grey(path, window=(0, 1000))[0], stretched(hounsfield, -500, 500))
  whole = pydicom.dcmread(path)
  official = apply_windowing(apply_rescale(whole.pixel_array, whole), whole)
  np.testing.assert_allclose(
    grey(path)[0], stretched(official, official.min(), official.max()), atol=1
  )


def test_the_window_of_a_real_file_is_pydicoms():
  whole = pydicom.dcmread(EXAMPLES / 'MR_small.dcm')
  official = apply_windowing(
    apply_rescale(whole.pixel_array, whole), whole
  )  # Onto the range of its 16 signed bits.
  np.testing.assert_allclose(
    grey(EXAMPLES / 'MR_small.dcm')[0], stretched(official, -(2**15), 2**15 - 1), atol=1
  )


def test_without_a_window_it_goes_from_percentile_to_percentile(tmp_path):
  values = np.random.default_rng(1).integers(0, 4096, (30, 30)).astype(np.uint16)
  low, high = np.percentile(values * 0.5 - 3, (0.5, 99.5))
  path = dicom(tmp_path / 'a.dcm', values, RescaleSlope=0.5, RescaleIntercept=-3)
  np.testing.assert_array_equal(grey(path)[0], stretched(values * 0.5 - 3, low, high))


def test_8_bits_stay_and_monochrome1_is_inverted(tmp_path):
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = dicom(tmp_path / 'a.dcm', values)
  np.testing.assert_array_equal(grey(path, window=(3, 2))[0], values)
  path = dicom(tmp_path / 'b.dcm', values, PhotometricInterpretation='MONOCHROME1')
  np.testing.assert_array_equal(grey(path)[0], 255 - values)
  assert files.read(path, 3).pixels.shape == (8, 8, 3)


def test_colours(tmp_path):
  values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  np.testing.assert_array_equal(files.read(dicom(tmp_path / 'a.dcm', values), 3).pixels, values)
  as_grey = np.asarray(Image.fromarray(values).convert('L'))
  np.testing.assert_array_equal(files.read(tmp_path / 'a.dcm', 1).pixels[..., 0], as_grey)


@pytest.mark.parametrize(
  'name',
  [
    'SC_rgb_dcmtk_+eb+cy+n1.dcm',  # YBR_FULL
    'SC_ybr_full_422_uncompressed.dcm',
    'SC_rgb_rle.dcm',
    'SC_rgb_rle_16bit.dcm',
    'SC_rgb_jpeg_dcmtk.dcm',
    'SC_rgb_gdcm_KY.dcm',  # JPEG 2000
  ],
)
def test_one_colour_chart_in_several_encodings(name):
  """pydicom's own examples of one picture.

  Its uncompressed form, in RGB, is the truth. Lossy ones differ by a few levels.
  """
  truth = files.read(EXAMPLES / 'SC_rgb_rle_32bit.dcm', 3).pixels.astype(int)
  found = files.read(EXAMPLES / name, 3).pixels.astype(int)
  assert np.median(np.abs(found - truth)) <= 2


def test_palettes_are_looked_up():
  picture = files.read(EXAMPLES / 'examples_palette.dcm', 3).pixels
  whole = pydicom.dcmread(EXAMPLES / 'examples_palette.dcm')
  official = pydicom.pixels.apply_color_lut(whole.pixel_array, whole)
  np.testing.assert_array_equal(picture, official >> 8 if official.dtype == np.uint16 else official)
  assert (picture[..., 0] != picture[..., 1]).any()


def test_frames_are_slices_on_one_scale(tmp_path):
  values = np.random.default_rng(0).integers(0, 4096, (3, 6, 7)).astype(np.uint16)
  path = dicom(tmp_path / 'a.dcm', values, NumberOfFrames=3, PixelSpacing=[0.5, 0.25])
  found = files.read_slices(path, 3)
  assert [suffix for suffix, _ in found] == ['_s0000', '_s0001', '_s0002']
  low, high = np.percentile(values, (0.5, 99.5))
  for (_, picture), frame in zip(found, values, strict=True):
    assert picture.spacing == (0.5, 0.25)
    assert picture.size == (6, 7)
    np.testing.assert_array_equal(picture.pixels[..., 1], stretched(frame, low, high))
  with pytest.raises(UnsupportedImage, match='holds 3 slices where one image is needed'):
    files.read(path, 3)


def test_functional_groups_of_enhanced_files(tmp_path):
  """What a frame says of itself goes before what all share."""

  def group(**macros):
    item = Dataset()
    for macro, fields in macros.items():
      inner = Dataset()
      for name, value in fields.items():
        setattr(inner, name, value)
      setattr(item, macro, [inner])
    return item

  values = np.stack([np.arange(16, dtype=np.uint16).reshape(4, 4)] * 2)
  path = dicom(
    tmp_path / 'a.dcm',
    values,
    NumberOfFrames=2,
    SharedFunctionalGroupsSequence=[
      group(
        PixelMeasuresSequence={'PixelSpacing': [2, 3]},
        FrameVOILUTSequence={
          'WindowCenter': 20,
          'WindowWidth': 40,
          'VOILUTFunction': 'LINEAR_EXACT',
        },
      )
    ],
    PerFrameFunctionalGroupsSequence=[
      group(PixelValueTransformationSequence={'RescaleSlope': slope, 'RescaleIntercept': 0})
      for slope in (1, 2)
    ],
  )
  found = files.read_slices(path, 1)
  assert [picture.spacing for _, picture in found] == [(2, 3), (2, 3)]
  for slope, (_, picture) in zip((1, 2), found, strict=True):
    np.testing.assert_array_equal(picture.pixels[..., 0], stretched(values[0] * slope, 0, 40))


@pytest.mark.parametrize('spacing', [None, [0, 1], [-1, 1]])
def test_spacing_that_is_none(tmp_path, spacing):
  attributes = {} if spacing is None else {'PixelSpacing': spacing}
  assert (
    files.read(dicom(tmp_path / 'a.dcm', np.zeros((4, 4), np.uint8), **attributes), 1).spacing
    is None
  )


def test_dicom_masks(tmp_path):
  values = np.array([[[0, 1], [2, 0]], [[0, 0], [1, 1]]], np.uint8)
  path = dicom(
    tmp_path / 'a.dcm', values, NumberOfFrames=2, RescaleSlope=7
  )  # Masks are not rescaled.
  np.testing.assert_array_equal(files.read_mask_slices(path, ('a', 'b')), values)
  with pytest.raises(UnsupportedImage, match='holds the value 2'):
    files.read_mask_slices(path, ('a',))


# NIfTI.


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slices_lie_across_the_axis(tmp_path, suffix, axis):
  path = nifti(tmp_path / f'a{suffix}', VOLUME, np.diag([0.5, 0.75, 3, 1]))
  low, high = np.percentile(VOLUME, (0.5, 99.5))
  found = files.read_slices(path, 1, axis=axis)
  assert len(found) == VOLUME.shape[axis]
  assert found[1][0] == '_s0001'
  spacing = {0: (0.75, 3), 1: (0.5, 3), 2: (0.5, 0.75)}[axis]
  for index, (_, picture) in enumerate(found):
    assert picture.spacing == pytest.approx(spacing)
    np.testing.assert_array_equal(
      picture.pixels[..., 0], stretched(np.take(VOLUME, index, axis), low, high)
    )


def test_values_are_scaled(tmp_path):
  path = nifti(tmp_path / 'a.nii', VOLUME, slope=2.0, inter=-1024.0)
  scaled = np.asarray(nibabel.load(path).dataobj)  # What nibabel makes of the header.
  np.testing.assert_array_equal(
    np.stack(grey(path, window=(0, 2000)), -1), stretched(scaled, -1000, 1000)
  )


@pytest.mark.parametrize('kind', [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize('axes', ['RAS', 'LPS', 'PIR', 'SAL'])
def test_orientation_and_versions(tmp_path, kind, axes):
  """However the array is stored, axis 2 runs from inferior to superior.

  Nibabel says where each axis points.
  """
  whole = nibabel.Nifti1Image(VOLUME, np.diag([1, 2, 3, 1]))
  turn = nibabel.orientations.ornt_transform(
    nibabel.io_orientation(whole.affine), nibabel.orientations.axcodes2ornt(axes)
  )
  turned = whole.as_reoriented(turn)
  path = tmp_path / 'a.nii.gz'
  kind(np.asarray(turned.dataobj), turned.affine).to_filename(path)
  found = files.read_slices(path, 1, window=(0, 4000))
  np.testing.assert_array_equal(
    np.stack([p.pixels[..., 0] for _, p in found], -1), stretched(VOLUME, -2000, 2000)
  )
  assert found[0][1].spacing == pytest.approx((1, 2))


def test_big_endian_floats_and_what_is_not_finite(tmp_path):
  values = np.linspace(0, 1, 60).reshape(5, 4, 3)
  values[0, 0, 0], values[1, 0, 0] = np.nan, np.inf
  header = nibabel.Nifti1Header(endianness='>')
  header.set_data_dtype('>f4')
  nibabel.Nifti1Image(values.astype('>f4'), np.eye(4), header).to_filename(tmp_path / 'a.nii')
  found = np.stack(grey(tmp_path / 'a.nii', window=(0.5, 1)), -1)
  assert found[0, 0, 0] == 0 and found[1, 0, 0] == 255
  np.testing.assert_allclose(found[2:], stretched(values[2:], 0, 1), atol=1)


def test_bytes_stay_as_they_are_and_units_count(tmp_path):
  values = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
  image = nibabel.Nifti1Image(values, np.diag([1, 1, 1, 1]))
  image.header.set_xyzt_units('meter')
  image.to_filename(tmp_path / 'a.nii')
  found = files.read_slices(tmp_path / 'a.nii', 1)
  np.testing.assert_array_equal(np.stack([p.pixels[..., 0] for _, p in found], -1), values)
  assert found[0][1].spacing == (1000, 1000)


def test_label_volumes(tmp_path):
  values = np.random.default_rng(0).integers(0, 3, (5, 4, 3)).astype(np.float32)
  path = nifti(tmp_path / 'a.nii.gz', values)
  for axis in range(3):
    np.testing.assert_array_equal(
      files.read_mask_slices(path, ('a', 'b'), axis=axis), np.moveaxis(values, axis, 0)
    )
  values[0, 0, 0] = 1.5
  with pytest.raises(UnsupportedImage, match=r'holds the value 1\.5'):
    files.read_mask_slices(nifti(tmp_path / 'b.nii.gz', values), ('a', 'b'))


# Folders.


def make_folder(root, **config):
  for part in ('images', 'masks'):
    (root / part).mkdir(parents=True)
  return DataConfig(name='folder', root=str(root), image_size=16, **config)


def test_a_folder_of_volumes(tmp_path):
  config = make_folder(
    tmp_path / 'set', mask_classes=('liver', 'tumour'), every_slice=3, window=(40.0, 400.0)
  )
  labels = np.zeros((20, 24, 8), np.uint8)
  labels[5:15, 5:15, 2:6] = 1
  labels[8:12, 8:12, 3:5] = 2
  values = labels * 50.0
  for name in 'abc':
    nifti(
      tmp_path / 'set' / 'images' / f'{name}.nii.gz',
      values.astype(np.int16),
      np.diag([0.8, 0.7, 5, 1]),
    )
    nifti(tmp_path / 'set' / 'masks' / f'{name}.nii.gz', labels)
  nifti(tmp_path / 'set' / 'images' / 'd.nii.gz', values.astype(np.int16))
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


def test_patients_are_groups_unless_labels_csv_says_otherwise(tmp_path):
  config = make_folder(tmp_path / 'set')
  for index in range(6):
    values = np.full((20, 20), 40 * index, np.uint8)
    dicom(
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
def test_without_a_patient_the_study_is_the_group_and_then_the_series(tmp_path, patient):
  config = make_folder(tmp_path / 'set')
  attributes = {} if patient is None else {'PatientID': patient}
  sources = {
    'StudyInstanceUID': ['1.2.3', '1.2.3', '1.2.4'],
    'SeriesInstanceUID': ['1.5', '1.6', '1.6'],
  }
  values = np.zeros((20, 20), np.uint8)
  for index in range(3):
    uids = {tag: each[index] for tag, each in sources.items()}
    dicom(tmp_path / 'set' / 'images' / f'study{index}.dcm', values, **attributes, **uids)
    dicom(
      tmp_path / 'set' / 'images' / f'series{index}.dcm',
      values,
      **attributes,
      SeriesInstanceUID=f'1.7.{index // 2}',
    )
  dicom(tmp_path / 'set' / 'images' / 'unknown.dcm', values, **attributes)
  groups = {item.name: item.group for item in folder.list_folder(config)}
  assert [groups[f'study{index}'] for index in range(3)] == sources['StudyInstanceUID']
  assert [groups[f'series{index}'] for index in range(3)] == ['1.7.0', '1.7.0', '1.7.1']
  assert groups['unknown'] == 'unknown'


def test_one_patient_id_over_several_studies_is_told(tmp_path):
  config = make_folder(tmp_path / 'set')
  values = np.zeros((20, 20), np.uint8)

  def notes(patients, studies, table=None):
    for index, (patient, study) in enumerate(zip(patients, studies, strict=True)):
      dicom(
        tmp_path / 'set' / 'images' / f'{index}.dcm',
        values,
        PatientID=patient,
        StudyInstanceUID=study,
      )
    if table:
      (tmp_path / 'set' / 'labels.csv').write_text(table)
    found = []
    folder.list_folder(config, notes=found)
    return found

  assert notes(['ANON', 'ANON', 'ANON'], ['1.1', '1.1', '1.1']) == []
  assert notes(['ANON', 'ANON', 'B'], ['1.1', '1.1', '1.2']) == []
  assert notes(['', '', ''], ['1.1', '1.1', '1.2']) == []
  (note,) = notes(['ANON', 'ANON', 'ANON'], ['1.1', '1.1', '1.2'])
  assert note.startswith(
    'all 3 DICOM images without a group in labels.csv have the same PatientID, though they come from 2 studies'
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
      r'stored in orientation LAS but images/a\.nii in RAS; give the mask the affine',
    ),
    ('a.dcm', ('a.nii', np.zeros((8, 8, 1), np.uint8)), 'are not both NIfTI'),
    (
      'a.dcm',
      ('a.png', np.zeros((8, 9), np.uint8)),
      r'masks/a\.png is 9x8 but images/a\.dcm is 8x8',
    ),
  ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, image, mask, message):
  config = make_folder(tmp_path / 'set')
  path = tmp_path / 'set' / 'images' / image
  nifti(path, VOLUME) if path.suffix == '.nii' else dicom(path, np.zeros((8, 8), np.uint8))
  name, values = mask
  path = tmp_path / 'set' / 'masks' / name
  if path.suffix == '.png':
    Image.fromarray(values).save(path)
  elif values.shape == (4, 4):
    nifti(path, np.zeros(VOLUME.shape, np.uint8), affine=values)
  else:
    nifti(path, values)
  with pytest.raises(UserError, match=message):
    dataset.load(config, tmp_path)


def test_slices_that_would_take_the_name_of_an_image_are_refused(tmp_path):
  config = make_folder(tmp_path / 'set')
  nifti(tmp_path / 'set' / 'images' / 'a.nii', VOLUME)
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'set' / 'images' / 'a_s0001.png')
  with pytest.raises(
    UserError,
    match=r"images/a\.nii and images/a_s0001\.png both give an image named 'a_s0001'; rename one",
  ):
    dataset.load(config, tmp_path)


def test_a_small_lesion_that_vanishes_by_resizing_is_no_empty_mask(tmp_path):
  config = make_folder(tmp_path / 'set', split_fractions=(1.0, 0.0, 0.0))
  labels = np.zeros((64, 64, 3), np.uint8)
  labels[5, 5, 0] = 1
  nifti(tmp_path / 'set' / 'images' / 'a.nii', labels)
  nifti(tmp_path / 'set' / 'masks' / 'a.nii', labels)
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
    f'import sys; sys.modules[{package!r}] = None; from ahm_jax.config import DataConfig; from ahm_jax.data import dataset\n'
    f'from ahm_jax.errors import UserError\n'
    f'try: dataset.load(DataConfig(name="folder", root={str(tmp_path / "set")!r}), {str(tmp_path)!r})\n'
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
    f'dataset.load(DataConfig(name="folder", root={str(tmp_path / "set")!r}, image_size=16), {str(tmp_path)!r})\n'
    'assert "pydicom" not in sys.modules and "nibabel" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', script], check=True)


# Headers that lie.


@pytest.mark.parametrize(
  'changes',
  [dict(Rows=60000, Columns=60000), dict(NumberOfFrames=2**31 - 1, Rows=4000, Columns=4000)],
)
def test_dicom_that_claims_to_be_huge(tmp_path, changes):
  path = dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), **changes)
  with pytest.raises(UnsupportedImage, match='claims to hold more than'):
    files.read_slices(path, 3)


@pytest.mark.parametrize(
  'changes', [dict(Rows=9), dict(Rows=0), dict(NumberOfFrames=50), dict(BitsAllocated=16)]
)
def test_dicom_with_less_than_it_claims(tmp_path, changes):
  path = dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), **changes)
  with pytest.raises(Unreadable):
    files.read_slices(path, 3)


def test_dicom_that_is_no_image_or_cannot_be_decoded(tmp_path):
  with pytest.raises(UnsupportedImage, match=r'rtplan\.dcm is DICOM without an image; remove it'):
    files.read(EXAMPLES / 'rtplan.dcm', 3)
  with pytest.raises(
    UnsupportedImage,
    match=r'is compressed as JPEG-LS Lossless.*; decompress it, as by gdcmconv --raw',
  ):
    files.read(EXAMPLES / 'MR_small_jpeg_ls_lossless.dcm', 3)
  with pytest.raises(
    UnsupportedImage, match='is deflated as a whole; save it with another transfer syntax'
  ):
    files.read(
      dicom(tmp_path / 'a.dcm', np.zeros((8, 8), np.uint8), syntax=DeflatedExplicitVRLittleEndian),
      3,
    )


def test_padding_of_dicom_is_no_damage(tmp_path):
  values = np.arange(64, dtype=np.uint8).reshape(8, 8)
  path = dicom(tmp_path / 'a.dcm', values, PixelData=values.tobytes() + bytes(1000))
  np.testing.assert_array_equal(grey(path)[0], values)


def lying_nifti(path, **fields):
  """A NIfTI file of 120 voxels of 2 bytes whose header says otherwise."""
  nifti(path, VOLUME)
  header = nibabel.load(path).header
  header['vox_offset'] = 352
  for name, value in fields.items():
    header[name] = value
  data = header.binaryblock + bytes(4) + VOLUME.tobytes('F')
  path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
  return path


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize(
  ('fields', 'error'),
  [
    (dict(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), UnsupportedImage),
    (dict(dim=[3, 600, 600, 600, 1, 1, 1, 1]), Unreadable),
    (dict(dim=[3, 7, 5, 4, 1, 1, 1, 1]), Unreadable),
    (dict(dim=[3, -6, 5, 4, 1, 1, 1, 1]), Unreadable),
    (dict(dim=[3, 0, 5, 4, 1, 1, 1, 1]), Unreadable),
    (dict(dim=[4, 6, 5, 2, 2, 1, 1, 1]), UnsupportedImage),
    (dict(vox_offset=1e9), Unreadable),
    (dict(vox_offset=np.nan), Unreadable),
    (dict(magic=b'ni1'), Unreadable),
    (dict(datatype=999), Unreadable),
    (dict(datatype=32, bitpix=64), UnsupportedImage),
    (dict(sform_code=1, srow_x=[np.nan] * 4), Unreadable),
  ],
)
def test_nifti_with_a_lying_header(tmp_path, suffix, fields, error):
  path = lying_nifti(tmp_path / f'a{suffix}', **fields)
  for read in (lambda: files.read_slices(path, 3), lambda: files.read_mask_slices(path)):
    with pytest.raises(error):
      read()


@pytest.mark.parametrize('cut', [5, 100, -20, -4])
def test_truncated_gzip(tmp_path, cut):
  path = nifti(tmp_path / 'a.nii.gz', VOLUME)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(Unreadable):
    files.read_slices(path, 3)


def test_gzip_with_a_wrong_sum(tmp_path):
  path = nifti(tmp_path / 'a.nii.gz', VOLUME)
  data = bytearray(path.read_bytes())
  data[-8] ^= 1
  path.write_bytes(data)
  with pytest.raises(Unreadable):
    files.read_slices(path, 3)


def test_a_gzip_bomb_is_not_inflated(tmp_path):
  """What a header does not ask for is not read, but for a little."""
  whole = nifti(tmp_path / 'a.nii', VOLUME).read_bytes()
  path = tmp_path / 'b.nii.gz'
  with gzip.open(path, 'wb', compresslevel=1) as file:
    file.write(whole)
    for _ in range(64):
      file.write(bytes(2**20))
  with pytest.raises(Unreadable):
    files.read_slices(path, 3)


def test_origin_of_a_broken_file(tmp_path):
  (tmp_path / 'a.dcm').write_bytes(b'nothing')
  assert medical.origin(tmp_path / 'a.dcm') == ('', '', '')


def test_what_headers_promise_takes_no_memory(tmp_path):
  """Half a gigabyte each, and files of a kilobyte."""
  whole = np.zeros((8, 8), np.uint8)
  paths = [
    lying_nifti(tmp_path / 'a.nii', dim=[3, 640, 640, 640, 1, 1, 1, 1]),
    lying_nifti(tmp_path / 'b.nii.gz', dim=[3, 640, 640, 640, 1, 1, 1, 1]),
    dicom(tmp_path / 'c.dcm', whole, Rows=8000, Columns=8000, NumberOfFrames=4, BitsAllocated=16),
  ]
  tracemalloc.start()
  try:
    for path in paths:
      with pytest.raises(Unreadable):
        files.read_slices(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
  finally:
    tracemalloc.stop()


def test_the_extra_is_installed_for_the_tests_and_pinned():
  root = Path(dataset.__file__).parents[2]
  extras = tomllib.loads((root / 'pyproject.toml').read_text())['project']['optional-dependencies']
  assert set(extras['medical']) == {'nibabel', 'pydicom'} <= set(extras['test'])
  pinned = {
    line.partition('==')[0]
    for line in (root / 'launch' / 'constraints.txt').read_text().splitlines()
  }
  assert {*extras['test'], 'sortedcontainers', 'importlib-resources'} <= pinned
