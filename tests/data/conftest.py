"""Writers of DICOM and NIfTI files, for the tests of readers and of folders."""

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def _write_dicom(path, values, **attributes):
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


def _write_nifti(path, values, affine=None, slope=None, inter=None):
  image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
  image.header.set_xyzt_units('mm')
  if slope is not None:
    image.header.set_slope_inter(slope, inter)
  image.to_filename(path)
  return path


@pytest.fixture(scope='session', autouse=True)
def few_buckets():
  """TFDS sorts sets that do not fit into memory by a thousand files, whose paths it forms for every
  set; that takes longer than the rest of a tiny one.
  """
  from tensorflow_datasets.core import shuffle

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shuffle, 'BUCKETS_NUMBER', 2)
    yield


@pytest.fixture(scope='session')
def write_dicom():
  return _write_dicom


@pytest.fixture(scope='session')
def write_nifti():
  return _write_nifti
