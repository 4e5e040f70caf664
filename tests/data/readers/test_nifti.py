"""NIfTI: values against nibabel, slices, spacing, masks, and headers that lie."""

import gzip

import nibabel
import numpy as np
import pytest

from ahm_jax.data.readers import dispatch
from ahm_jax.data.readers.base import Unreadable, UnsupportedImage
from tests.data.readers.memory import refused_in_little_memory

VOLUME = np.random.default_rng(0).integers(-1000, 2000, (6, 5, 4)).astype(np.int16)


def stretched(values, low, high):
  return np.floor(np.clip((np.asarray(values, float) - low) / (high - low), 0, 1) * 255 + 0.5)


def grey(path, **options):
  return [picture.pixels[..., 0] for _, picture in dispatch.read_slices(path, 1, **options)]


@pytest.fixture
def lying_nifti(write_nifti):
  def write(path, **fields):
    """A NIfTI file of 120 voxels of 2 bytes whose header says otherwise."""
    write_nifti(path, VOLUME)
    header = nibabel.load(path).header
    header['vox_offset'] = 352
    for name, value in fields.items():
      header[name] = value
    data = header.binaryblock + bytes(4) + VOLUME.tobytes('F')
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)
    return path

  return write


@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slices_lie_across_the_axis(tmp_path, suffix, axis, write_nifti):
  path = write_nifti(tmp_path / f'a{suffix}', VOLUME, np.diag([0.5, 0.75, 3, 1]))
  low, high = np.percentile(VOLUME, (0.5, 99.5))
  found = dispatch.read_slices(path, 1, axis=axis)
  assert len(found) == VOLUME.shape[axis]
  assert found[1][0] == '_s0001'
  spacing = {0: (0.75, 3), 1: (0.5, 3), 2: (0.5, 0.75)}[axis]
  for index, (_, picture) in enumerate(found):
    assert picture.spacing == pytest.approx(spacing)
    np.testing.assert_array_equal(
      picture.pixels[..., 0], stretched(np.take(VOLUME, index, axis), low, high)
    )


def test_values_are_scaled(tmp_path, write_nifti):
  path = write_nifti(tmp_path / 'a.nii', VOLUME, slope=2.0, inter=-1024.0)
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
  found = dispatch.read_slices(path, 1, window=(0, 4000))
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
  found = dispatch.read_slices(tmp_path / 'a.nii', 1)
  np.testing.assert_array_equal(np.stack([p.pixels[..., 0] for _, p in found], -1), values)
  assert found[0][1].spacing == (1000, 1000)


def test_label_volumes(tmp_path, write_nifti):
  values = np.random.default_rng(0).integers(0, 3, (5, 4, 3)).astype(np.float32)
  path = write_nifti(tmp_path / 'a.nii.gz', values)
  for axis in range(3):
    np.testing.assert_array_equal(
      dispatch.read_mask_slices(path, ('a', 'b'), axis=axis), np.moveaxis(values, axis, 0)
    )
  values[0, 0, 0] = 1.5
  with pytest.raises(UnsupportedImage, match=r'holds the value 1\.5'):
    dispatch.read_mask_slices(write_nifti(tmp_path / 'b.nii.gz', values), ('a', 'b'))


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
    (dict(magic=b'ni1'), UnsupportedImage),
    (dict(magic=b''), UnsupportedImage),
    (dict(magic=b'xyz'), Unreadable),
    (dict(datatype=999), Unreadable),
    (dict(datatype=32, bitpix=64), UnsupportedImage),
    (dict(datatype=128, bitpix=24), UnsupportedImage),
    (dict(datatype=1, bitpix=1), UnsupportedImage),
    (dict(sform_code=1, srow_x=[np.nan] * 4), UnsupportedImage),
    (dict(sform_code=1, srow_x=[0] * 4), UnsupportedImage),
  ],
)
def test_nifti_with_a_lying_header(tmp_path, suffix, fields, error, lying_nifti):
  path = lying_nifti(tmp_path / f'a{suffix}', **fields)
  for read in (lambda: dispatch.read_slices(path, 3), lambda: dispatch.read_mask_slices(path)):
    with pytest.raises(error):
      read()


@pytest.mark.parametrize(
  ('fields', 'spacing'),
  [
    (dict(xyzt_units=5), (1, 2, 3)),  # None of the list.
    (dict(xyzt_units=1), (1000, 2000, 3000)),
    (dict(xyzt_units=3 + 8), (0.001, 0.002, 0.003)),
    (dict(pixdim=[1, -1, 2, -3, 0, 0, 0, 0]), (1, 2, 3)),
    (dict(pixdim=[0, 1, 2, 3, 0, 0, 0, 0]), (1, 2, 3)),
    (dict(sform_code=0, qform_code=1, pixdim=[1, -1, 2, -3, 0, 0, 0, 0]), (1, 2, 3)),
    (dict(sform_code=9, qform_code=1), (1, 2, 3)),
    (dict(sform_code=1, srow_x=[0] * 4, qform_code=1), (1, 2, 3)),
    (dict(sform_code=1, srow_x=[np.nan] * 4, qform_code=1), (1, 2, 3)),
    (dict(sform_code=0, qform_code=-3, quatern_b=np.nan), (1, 2, 3)),
    (dict(scl_slope=0, scl_inter=7), (1, 2, 3)),
    (dict(scl_slope=np.nan, scl_inter=np.nan), (1, 2, 3)),
    (dict(scl_slope=np.inf, scl_inter=0), (1, 2, 3)),
    (dict(scl_slope=1, scl_inter=np.nan), (1, 2, 3)),
    (dict(bitpix=0, sizeof_hdr=0), (1, 2, 3)),
    (dict(cal_min=np.nan, cal_max=-np.inf, slice_code=99, intent_code=-7), (1, 2, 3)),
    (dict(sform_code=0, qform_code=1, pixdim=[1, 0, 2, np.nan, 0, 0, 0, 0]), (None, 2, None)),
  ],
)
def test_odd_metadata_of_sound_voxels(tmp_path, fields, spacing, lying_nifti):
  """What makes no sense is left out; the voxels are what they are."""
  sound = dict(pixdim=[1, 1, 2, 3, 0, 0, 0, 0], srow_y=[0, 2, 0, 0], srow_z=[0, 0, 3, 0])
  path = lying_nifti(tmp_path / 'a.nii', **{**sound, **fields})
  for axis in range(3):
    found = dispatch.read_slices(path, 1, window=(0, 4000), axis=axis)
    expected = stretched(VOLUME, -2000, 2000)
    if fields.get('sform_code', 1) not in range(1, 6) and fields['qform_code'] not in range(1, 6):
      expected = expected[::-1]  # As nibabel takes what has no affine.
    np.testing.assert_array_equal(
      np.stack([picture.pixels[..., 0] for _, picture in found]), np.moveaxis(expected, axis, 0)
    )
    across = tuple(length for index, length in enumerate(spacing) if index != axis)
    got = found[0][1].spacing
    assert got is None if None in across else got == pytest.approx(across)
    assert found[0][1].remark == ''


def test_a_quaternion_longer_than_1_by_rounding(tmp_path, lying_nifti):
  path = lying_nifti(
    tmp_path / 'a.nii',
    sform_code=0,
    qform_code=1,
    quatern_b=0.707107,
    quatern_c=0.707107,
    pixdim=[1, 1, 2, 3, 0, 0, 0, 0],
  )
  found = dispatch.read_slices(path, 1, window=(0, 4000))
  turned = np.swapaxes(VOLUME, 0, 1)[:, :, ::-1]  # x becomes y, and z its opposite.
  np.testing.assert_array_equal(
    np.stack([p.pixels[..., 0] for _, p in found], -1), stretched(turned, -2000, 2000)
  )
  assert found[0][1].spacing == pytest.approx((2, 1))


@pytest.mark.parametrize(('written', 'name'), [('a.nii', 'b.nii.gz'), ('a.nii.gz', 'b.nii')])
def test_compression_is_known_by_content(tmp_path, written, name, write_nifti):
  path = write_nifti(tmp_path / written, VOLUME).rename(tmp_path / name)
  np.testing.assert_array_equal(
    np.stack(grey(path, window=(0, 4000)), -1), stretched(VOLUME, -2000, 2000)
  )
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 1)


def test_spacing_and_orientation_have_one_source(tmp_path, lying_nifti):
  """The affine that turns the axes also gives their lengths."""
  fields = dict(srow_x=[0, 2, 0, 0], srow_y=[0.5, 0, 0, 0], srow_z=[0, 0, 3, 0])
  path = lying_nifti(tmp_path / 'a.nii', pixdim=[1, 0.5, 1, 3, 0, 0, 0, 0], **fields)
  found = dispatch.read_slices(path, 1)
  assert found[0][1].size == (5, 6)
  assert found[0][1].spacing == pytest.approx((2, 0.5))
  assert found[0][1].remark == '0.5x2x3 by its sform, 0.5x1x3 by its pixdim'
  path = lying_nifti(tmp_path / 'b.nii', pixdim=[1, 0.5, 2, 3, 0, 0, 0, 0], **fields)
  assert dispatch.read_slices(path, 1)[0][1].remark == ''


@pytest.mark.parametrize('dtype', ['i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8', 'f4', 'f8'])
@pytest.mark.parametrize('order', '<>')
def test_every_type_of_numbers(tmp_path, dtype, order):
  values = np.arange(120).reshape(6, 5, 4).astype(f'{order}{dtype}')
  header = nibabel.Nifti1Header(endianness=order)
  header.set_data_dtype(values.dtype)
  nibabel.Nifti1Image(values, np.eye(4), header).to_filename(tmp_path / 'a.nii')
  found = np.stack(grey(tmp_path / 'a.nii', window=(50, 100)), -1)
  expected = np.arange(120).reshape(6, 5, 4)
  np.testing.assert_array_equal(found, expected if dtype == 'u1' else stretched(expected, 0, 100))


def moved(affine, **changes):
  affine = np.array(affine, float)
  affine[:3, 3] += changes.get('by', 0)
  affine[:3, :3] *= changes.get('times', 1)
  return affine


IMAGE = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -120], [0, 0, 5, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize(
  ('affine', 'message'),
  [
    (moved(IMAGE), None),
    (moved(IMAGE, by=[0.3, 0, 0]), None),
    (moved(IMAGE, by=[0, 0, 2.4]), None),
    (moved(IMAGE, times=1.01), None),
    (moved(IMAGE, by=[0.4, 0, 0]), r'are up to 0\.571 voxels \(0\.4 mm\) apart; resample'),
    (moved(IMAGE, by=[0, 0, 2.6]), r'up to 0\.52 voxels \(2\.6 mm\)'),
    (moved(IMAGE, by=[0, -7, 0]), r'up to 10 voxels \(7 mm\)'),
    (moved(IMAGE, times=[1, 1, 0.5]), r'up to 1\.5 voxels \(7\.5 mm\)'),
    (moved(IMAGE, times=1.2), r'up to 1 voxels \(3\.13 mm'),
    (moved(IMAGE, times=[-1, 1, 1]), r'up to 5 voxels \(3\.5 mm\)'),
  ],
)
@pytest.mark.parametrize('unit', ['mm', 'meter'])
def test_a_mask_lies_where_its_image_does(tmp_path, affine, message, unit):
  scale = np.diag([*[{'mm': 1, 'meter': 1e-3}[unit]] * 3, 1])
  for name, each in (('image.nii', IMAGE), ('mask.nii.gz', scale @ affine)):
    volume = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), each)
    volume.header.set_xyzt_units('mm' if name == 'image.nii' else unit)
    volume.to_filename(tmp_path / name)
  if message is None:
    dispatch.read_mask_slices(tmp_path / 'mask.nii.gz', image=tmp_path / 'image.nii')
    return
  with pytest.raises(UnsupportedImage, match=message):
    dispatch.read_mask_slices(tmp_path / 'mask.nii.gz', image=tmp_path / 'image.nii')


@pytest.mark.parametrize('unit', ['mm', 'meter', 'micron'])
@pytest.mark.parametrize('silent', ['image', 'mask'])
def test_a_unit_that_one_file_does_not_tell_is_the_others(tmp_path, unit, silent):
  """As nibabel writes masks with the affine of their image."""
  for name in ('image', 'mask'):
    volume = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), IMAGE)
    volume.header.set_xyzt_units('unknown' if name == silent else unit)
    volume.to_filename(tmp_path / f'{name}.nii')
  dispatch.read_mask_slices(tmp_path / 'mask.nii', image=tmp_path / 'image.nii')
  volume = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), moved(IMAGE, by=[0, -7, 0]))
  volume.header.set_xyzt_units('unknown' if silent == 'mask' else unit)
  volume.to_filename(tmp_path / 'mask.nii')
  with pytest.raises(UnsupportedImage, match='up to 10 voxels'):
    dispatch.read_mask_slices(tmp_path / 'mask.nii', image=tmp_path / 'image.nii')


def test_a_mask_that_is_stored_otherwise_goes_with_its_image(tmp_path, write_nifti):
  """As tools that turn volumes to their own orientation write it."""
  labels = np.zeros((6, 5, 4), np.uint8)
  labels[1, 2, 3] = labels[5, 0, 0] = 1
  image = write_nifti(tmp_path / 'a.nii', labels, IMAGE)
  expected = dispatch.read_mask_slices(image)
  for axes in (('R', 'A', 'S'), ('L', 'P', 'S'), ('S', 'A', 'R'), ('P', 'I', 'L')):
    turn = nibabel.orientations.ornt_transform(
      nibabel.io_orientation(IMAGE), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = nibabel.Nifti1Image(labels, IMAGE).as_reoriented(turn)
    nibabel.save(turned, tmp_path / 'mask.nii')
    found = dispatch.read_mask_slices(tmp_path / 'mask.nii', image=image)
    np.testing.assert_array_equal(found, expected)
    nibabel.save(nibabel.Nifti1Image(labels[::-1], IMAGE).as_reoriented(turn), tmp_path / 'b.nii')
    assert not np.array_equal(dispatch.read_mask_slices(tmp_path / 'b.nii', image=image), expected)


def test_a_mask_may_have_the_other_affine_of_its_image(tmp_path):
  """As programs that write a qform alone make it from an image that has two."""
  tilted = moved(IMAGE, by=[0, 12, 0])
  image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), IMAGE)
  image.set_sform(tilted, 2)
  image.set_qform(IMAGE, 1)
  nibabel.save(image, tmp_path / 'a.nii')
  for name, affine in (
    ('qform', IMAGE),
    ('sform', tilted),
    ('neither', moved(IMAGE, by=[0, 5, 0])),
  ):
    mask = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), None)
    mask.set_sform(None, 0)
    mask.set_qform(affine, 1)
    nibabel.save(mask, tmp_path / 'mask.nii')
    if name == 'neither':
      with pytest.raises(UnsupportedImage, match='does not lie where'):
        dispatch.read_mask_slices(tmp_path / 'mask.nii', image=tmp_path / 'a.nii')
    else:
      dispatch.read_mask_slices(tmp_path / 'mask.nii', image=tmp_path / 'a.nii')


def test_without_an_affine_only_the_axes_are_compared(tmp_path, lying_nifti, write_nifti):
  bare = lying_nifti(tmp_path / 'mask.nii', sform_code=0, qform_code=0)
  image = write_nifti(tmp_path / 'a.nii', VOLUME, moved(IMAGE))
  with pytest.raises(UnsupportedImage, match='is not binary'):
    dispatch.read_mask_slices(bare, image=image)
  image = write_nifti(tmp_path / 'b.nii', VOLUME, np.diag([2, 2, 2, 1]))
  with pytest.raises(UnsupportedImage, match=r'in orientation LAS but .* in RAS'):
    dispatch.read_mask_slices(bare, image=image)


@pytest.mark.parametrize('cut', [5, 100, -20, -4])
def test_truncated_gzip(tmp_path, cut, write_nifti):
  path = write_nifti(tmp_path / 'a.nii.gz', VOLUME)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 3)


def test_gzip_with_a_wrong_sum(tmp_path, write_nifti):
  path = write_nifti(tmp_path / 'a.nii.gz', VOLUME)
  data = bytearray(path.read_bytes())
  data[-8] ^= 1
  path.write_bytes(data)
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 3)


def test_a_gzip_bomb_is_not_inflated(tmp_path, write_nifti):
  """What a header does not ask for is not read, but for a little."""
  whole = write_nifti(tmp_path / 'a.nii', VOLUME).read_bytes()
  path = tmp_path / 'b.nii.gz'
  with gzip.open(path, 'wb', compresslevel=1) as file:
    file.write(whole)
    for _ in range(64):
      file.write(bytes(2**20))
  with pytest.raises(Unreadable):
    dispatch.read_slices(path, 3)


def test_what_headers_promise_takes_no_memory(tmp_path, lying_nifti):
  """Half a gigabyte each, and files of a kilobyte."""
  dim = [3, 640, 640, 640, 1, 1, 1, 1]
  paths = [lying_nifti(tmp_path / name, dim=dim) for name in ('a.nii', 'b.nii.gz')]
  refused_in_little_memory(paths)
