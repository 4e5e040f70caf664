"""Masks as NIfTI volumes, read by nibabel: where their images are, whatever the header says."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest
from nibabel import orientations

from ahm_jax.data import mask_nifti
from ahm_jax.data.readers import nifti

CODES = [
  ''.join(code)
  for letters in itertools.permutations(('RL', 'AP', 'SI'))
  for code in itertools.product(*letters)
]
AFFINE = np.array([[0.8, 0.1, 0, -40], [-0.1, 0.7, 0.05, 30], [0, -0.05, 2.5, 7], [0, 0, 0, 1.0]])


def canonical(shape=(7, 5, 4)):
  """A volume in RAS+ orientation, int16, and an asymmetric blob in it, uint8."""
  labels = np.zeros(shape, np.uint8)
  labels[1, 1, 0], labels[2, 1, 0], labels[5, 3, -1] = 1, 2, 3
  return np.arange(labels.size, dtype=np.int16).reshape(shape), labels


def stored(values, code, affine=AFFINE):
  """The same volume with its axes in another order and direction."""
  image = nibabel.Nifti1Image(values, affine)
  return image.as_reoriented(
    orientations.ornt_transform(orientations.axcodes2ornt('RAS'), orientations.axcodes2ornt(code))
  )


def written(tmp_path, labels, image, compressed=True):
  image.to_filename(tmp_path / 'image.nii.gz')
  layout = nifti.layout(tmp_path / 'image.nii.gz')
  mask_nifti.write(tmp_path / 'scratch', labels, layout, compressed)
  name = tmp_path / ('mask.nii.gz' if compressed else 'mask.nii')
  (tmp_path / 'scratch').rename(name)
  return nibabel.load(name)


@pytest.mark.parametrize('code', CODES)
def test_every_orientation(tmp_path, code):
  values, labels = canonical()
  image, expected = stored(values, code), stored(labels, code)
  assert ''.join(nibabel.aff2axcodes(image.affine)) == code
  found = written(tmp_path, labels, image)
  assert found.shape == image.shape and found.get_data_dtype() == np.uint8
  np.testing.assert_array_equal(found.affine, nibabel.load(tmp_path / 'image.nii.gz').affine)
  np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
  index = np.argwhere(np.asarray(found.dataobj) == 3)[0]
  np.testing.assert_allclose(found.affine @ [*index, 1], AFFINE @ [5, 3, 3, 1], atol=1e-4)


def test_the_header_is_that_of_the_image_but_for_values(tmp_path):
  values, labels = canonical()
  image = nibabel.Nifti1Image(values, AFFINE)
  image.header.set_slope_inter(0.5, -1000)
  image.header.set_xyzt_units('micron')
  image.header['cal_max'], image.header['descrip'] = 7, b'a scanner'
  image.set_qform(np.diag([1, 1, 2, 1]), 1)
  image.header.extensions.append(nibabel.nifti1.Nifti1Extension('comment', b'long ' * 100))
  found = written(tmp_path, labels, image)
  np.testing.assert_array_equal(np.asarray(found.dataobj), labels)
  held = nibabel.load(tmp_path / 'image.nii.gz').header
  for name in ('pixdim', 'sform_code', 'qform_code', 'srow_x', 'qoffset_z', 'xyzt_units', 'dim'):
    np.testing.assert_array_equal(found.header[name], held[name])
  assert found.header['descrip'] == b'a scanner'
  assert found.header['cal_max'] == 0 and not found.header.extensions
  assert found.dataobj.slope == 1 and found.dataobj.inter == 0


@pytest.mark.parametrize('kind', ['big-endian', 'second', 'plain', 'flat', 'trailing', 'no codes'])
def test_kinds_of_headers(tmp_path, kind):
  values, labels = canonical((7, 5, 1) if kind == 'flat' else (7, 5, 4))
  image = nibabel.Nifti1Image(values, AFFINE)
  if kind == 'big-endian':
    header = nibabel.Nifti1Header(endianness='>')
    image = nibabel.Nifti1Image(values, AFFINE, header)
    assert image.header.endianness == '>'
  elif kind == 'second':
    image = nibabel.Nifti2Image(values, AFFINE)
  elif kind == 'flat':
    image = nibabel.Nifti1Image(values[..., 0], AFFINE)
  elif kind == 'trailing':
    image = nibabel.Nifti1Image(values[..., None], AFFINE)
  elif kind == 'no codes':
    image.set_sform(None, 0)
    image.set_qform(None, 0)
  found = written(tmp_path, labels, image, compressed=kind != 'plain')
  held = nibabel.load(tmp_path / 'image.nii.gz')
  assert type(found) is type(held) and found.shape == held.shape
  np.testing.assert_array_equal(found.affine, held.affine)
  if kind == 'no codes':  # nibabel then lays x from right to left.
    labels = labels[::-1]
  np.testing.assert_array_equal(np.asarray(found.dataobj).reshape(labels.shape), labels)
  assert kind != 'plain' or (tmp_path / 'mask.nii').stat().st_size == 352 + labels.size


def test_the_same_masks_give_the_same_bytes(tmp_path):
  values, labels = canonical()
  found = []
  for name in 'ab':
    (tmp_path / name).mkdir()
    written(tmp_path / name, labels, nibabel.Nifti1Image(values, AFFINE))
    found.append((tmp_path / name / 'mask.nii.gz').read_bytes())
  assert found[0] == found[1]


def test_empty_masks_of_large_volumes_are_read_again(tmp_path):
  """No file is too small for what its header promises."""
  labels = np.zeros((300, 300, 40), np.uint8)
  found = written(tmp_path, labels, nibabel.Nifti1Image(labels, AFFINE))
  assert not np.asarray(found.dataobj).any()


@pytest.mark.parametrize('fault', ['cut', 'changed'])
def test_what_is_not_read_back_is_an_error_of_the_disk(tmp_path, monkeypatch, fault):
  values, labels = canonical()
  nibabel.Nifti1Image(values, AFFINE).to_filename(tmp_path / 'image.nii.gz')
  layout = nifti.layout(tmp_path / 'image.nii.gz')
  encoded = mask_nifti._encoded

  def spoilt(*args):
    data = encoded(*args)
    return data[:-3] if fault == 'cut' else data[:-1] + bytes([data[-1] ^ 1])

  monkeypatch.setattr(mask_nifti, '_encoded', spoilt)
  with pytest.raises(OSError, match='what was written') as caught:
    mask_nifti.write(tmp_path / 'mask', labels, layout, True)
  assert caught.value.filename == str(tmp_path / 'mask')
  with gzip.open(tmp_path / 'mask') as file:
    assert len(file.read()) >= 352
