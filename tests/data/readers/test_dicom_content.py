"""DICOM known by its content, whatever its name is."""

import errno
import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import UnavailableFile, stem

EXAMPLES = Path(pydicom.__file__).parent / 'data' / 'test_files'
VALUES = np.arange(64, dtype=np.uint8).reshape(8, 8)


def without_meta(source, path, implicit=False, little=True):
  """The elements of a DICOM file alone, without preamble and meta header."""
  buffer = pydicom.filebase.DicomBytesIO()
  buffer.is_little_endian, buffer.is_implicit_VR = little, implicit
  elements = pydicom.Dataset({element.tag: element for element in pydicom.dcmread(source)})
  pydicom.filewriter.write_dataset(buffer, elements)
  path.write_bytes(buffer.getvalue())
  return path


@pytest.mark.parametrize(
  'name', ['IM0001', '1.2.840.113619.2.5', 'scan.IMA', 'a.DICOM', 'b.dat', 'naïve ß']
)
def test_a_name_of_any_kind(tmp_path, name, write_dicom):
  path = write_dicom(tmp_path / name, np.stack([VALUES, 255 - VALUES]), NumberOfFrames=2)
  assert dispatch.is_image_file(path) and dispatch.is_volume_file(path)
  (_, first), (_, second) = dispatch.read_slices(path, 1)
  np.testing.assert_array_equal(first.pixels[..., 0], VALUES)
  np.testing.assert_array_equal(second.pixels[..., 0], 255 - VALUES)


@pytest.mark.parametrize('implicit', [False, True])
def test_without_a_preamble(tmp_path, implicit, write_dicom):
  path = without_meta(write_dicom(tmp_path / 'a.dcm', VALUES), tmp_path / 'x', implicit)
  assert dispatch.is_image_file(path)


@pytest.mark.parametrize(
  'name', ['ExplVR_LitEndNoMeta.dcm', 'ExplVR_BigEndNoMeta.dcm', 'MR_small.dcm']
)
def test_pydicoms_examples(tmp_path, name):
  path = tmp_path / 'x'
  path.write_bytes((EXAMPLES / name).read_bytes())
  assert dispatch.is_image_file(path)


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'DICM',
    b'\x08\x00',
    bytes(400),
    b'\xff' * 400,
    b'some notes of mine, DICM and others' * 20,
    struct.pack('<HHI', 8, 5, 2**32 - 1) * 50,
    struct.pack('<HHI', 8, 5, 0) * 50,
    b'\x7fELF' + bytes(500),
  ],
)
def test_what_is_no_dicom(tmp_path, data):
  (tmp_path / 'x').write_bytes(data)
  assert not dispatch.is_image_file(tmp_path / 'x')


def test_what_lists_other_files_is_no_image():
  assert not dispatch.is_image_file(EXAMPLES / 'dicomdirtests' / 'DICOMDIR')


def test_what_is_no_regular_file_is_not_opened(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'nothing')
  for name in ('pipe', 'folder', 'link', 'none'):
    assert not dispatch.is_image_file(tmp_path / name)


@pytest.mark.parametrize('code', [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_cannot_be_looked_at_is_not_called_something_else(tmp_path, monkeypatch, code):
  (tmp_path / 'IM0001').write_bytes(b'')

  def refuse(*_, **__):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(Path, 'open', refuse)
  for look in (dispatch.is_image_file, dispatch.is_volume_file):
    with pytest.raises(UnavailableFile, match=rf'/IM0001 cannot be read \({os.strerror(code)}'):
      look(tmp_path / 'IM0001')
  assert dispatch.is_image_file(tmp_path / 'a.png')


def test_our_suffixes_are_taken_at_their_word(tmp_path, write_dicom):
  """A listing does not open the files that it knows by name."""
  assert dispatch.is_image_file(tmp_path / 'none.png')
  assert dispatch.is_volume_file(tmp_path / 'none.nii.gz')
  write_dicom(tmp_path / 'a.png', VALUES)
  assert not dispatch.is_volume_file(tmp_path / 'a.png')


def test_raster_files_without_a_suffix_are_still_read(tmp_path):
  Image.fromarray(VALUES).save(tmp_path / 'x', 'PNG')
  assert not dispatch.is_image_file(tmp_path / 'x')
  ((_, picture),) = dispatch.read_slices(tmp_path / 'x', 1)
  np.testing.assert_array_equal(picture.pixels[..., 0], VALUES)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('a.png', 'a'),
    ('scan.IMA', 'scan'),
    ('v.nii.gz', 'v'),
    ('IM0001', 'IM0001'),
    ('1.2.840.7', '1.2.840.7'),
    ('1.2.840.7.dcm', '1.2.840.7'),
  ],
)
def test_the_name_without_its_suffix(name, expected):
  assert stem(name) == expected
