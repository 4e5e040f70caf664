"""Cases of several modalities: what belongs together, what is read, and what is refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import cases
from ahm_jax.data.readers.base import Case, Unreadable, UnsupportedImage
from ahm_jax.data.readers.intensity import MISSING, modality_range, to_bytes

NAMES = ('flair', 't1', 't2')
WINDOW = ('window/127.5/255',)  # Shows 0..255 as it is.
PLAIN = WINDOW * 3
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 256, (6, 5, 4, 3)).astype(np.int16)
AFFINE = np.array([[0, -0.8, 0, 9], [0.7, 0, 0, 4], [0, 0, 5.0, 1], [0, 0, 0, 1]])


def together(*names):
  paths = {Path(name).name.split('.')[0]: Path('images', name) for name in names}
  return cases.together(paths, NAMES)


def files_of(found):
  return {name: [path and path.name for path in case.files] for name, case in found.items()}


def pages(path, planes):
  first, *others = (Image.fromarray(plane) for plane in planes)
  first.save(path, save_all=True, append_images=others)
  return path


def numbered(folder, write, volumes, suffix='.nii.gz', name='ID'):
  """A case of a file a modality; None leaves one out."""
  places = [folder / f'{name}_{index:04d}{suffix}' for index in range(len(volumes))]
  for place, values in zip(places, volumes, strict=True):
    if values is not None:
      write(place, values)
  return Case(name, tuple(place if place.exists() else None for place in places))


@pytest.fixture
def nifti(write_nifti):
  return lambda path, values: write_nifti(path, values, AFFINE)


# Names.


def test_numbered_files_are_one_case():
  found, problems = together('b_0000.nii.gz', 'a_0001.png', 'a_0000.png', 'a_0002.tif', 'c.nii')
  assert files_of(found) == {
    'c': ['c.nii'],
    'b': ['b_0000.nii.gz', None, None],
    'a': ['a_0000.png', 'a_0001.png', 'a_0002.tif'],
  }
  assert not problems
  assert [cases.lacking(found[name], NAMES) for name in 'abc'] == [[], ['t1', 't2'], []]
  told = cases.incomplete(found['b'], NAMES)
  assert told.startswith('case images/b lacks t1, t2; add b_0001, b_0002 beside images/b_0000')
  assert not cases.incomplete(found['c'], NAMES)


def test_numbers_of_no_modality_are_parts_of_names():
  found, problems = together('scan_0007.nii', 'scan_0008.nii', 'x_00001.nii', 'x_001.nii')
  assert files_of(found)['scan_0007'] == ['scan_0007.nii'] and len(found) == 4
  assert not problems


def of_file(folder, name, modalities=NAMES):
  return cases.of_file(folder / name, modalities, cases.numbered)


def test_a_file_says_which_case_it_is_of(tmp_path):
  for name in (
    *('b_0000.nii.gz', 'b_0002.NII.GZ', 'bb_0001.nii.gz', 'b_0001.txt', '.b_0001.nii', 'b.nii'),
    *('scan_0007.nii', 'scan_0008.nii', 'c_0001'),
  ):
    (tmp_path / name).touch()
  both = Case('b', (tmp_path / 'b_0000.nii.gz', None, tmp_path / 'b_0002.NII.GZ'))
  for name in ('b_0000.nii.gz', 'b_0002.NII.GZ'):
    assert of_file(tmp_path, name) == (both, [])
  assert of_file(tmp_path, 'b.nii') == (Case('b', (tmp_path / 'b.nii',)), [])
  assert of_file(tmp_path, 'scan_0007.nii') == (
    Case('scan_0007', (tmp_path / 'scan_0007.nii',)),
    [],
  )
  assert of_file(tmp_path, 'c_0001') == (Case('c', (None, tmp_path / 'c_0001', None)), [])
  (tmp_path / 'bb_0001.nii.gz').rename(tmp_path / 'b_0003.png')
  for name in ('b_0000.nii.gz', 'b_0003.png'):
    (problem,) = of_file(tmp_path, name)[1]
    assert 'b_0003.png is numbered 0003, but config.data.modalities names 3' in problem
  (tmp_path / 'b_0000.png').touch()
  for name in ('b_0000.nii.gz', 'b_0000.png'):
    (problem,) = of_file(tmp_path, name)[1]
    assert 'are one modality of one case; keep one of them' in problem
    assert '/b_0000.nii.gz' in problem and '/b_0000.png' in problem


def test_a_folder_is_listed_once_for_many_files(tmp_path):
  for number in range(3):
    (tmp_path / f'a_{number:04d}.nii').touch()
  listed = []

  def beside(folder):
    listed.append(folder)
    return cases.numbered(folder)

  found, problems = cases.of_file(tmp_path / 'a_0001.nii', NAMES, beside)
  assert listed == [tmp_path] and not problems and len(found.present) == 3
  cases.of_file(tmp_path / 'a.nii', NAMES, beside)
  assert listed == [tmp_path]


def test_what_is_numbered_too_high_or_twice_is_told():
  _, problems = together('a_0000.nii', 'a_0001.nii', 'a_0002.nii', 'a_0003.nii')
  assert len(problems) == 1
  assert problems[0].startswith('images/a_0003.nii is numbered 0003, but config.data.modalities')
  assert 'where it holds them all, rename it' in problems[0]
  _, problems = together('a_0000.nii', 'a.nii')
  assert problems == ['images/a.nii and images/a_0000.nii are of one case; keep one of them']


# What is read.


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_layouts_of_nifti_give_the_same_pictures(tmp_path, nifti, axis):
  numbers = numbered(tmp_path, nifti, list(np.moveaxis(VOLUME, -1, 0)))
  whole = tmp_path / 'whole.nii.gz'
  nifti(whole, VOLUME)
  vectors = tmp_path / 'vectors.nii'  # As ITK writes them: one time, then the components.
  nifti(vectors, VOLUME[:, :, :, None])
  expected = nibabel.as_closest_canonical(nibabel.load(whole)).get_fdata()
  assert expected.shape == (5, 6, 4, 3)  # Turned to RAS+.
  expected = np.moveaxis(expected, axis, 0)
  for case in (numbers, Case('whole', (whole,)), Case('vectors', (vectors,))):
    found = cases.read_slices(case, PLAIN, axis)
    assert [ending for ending, _ in found] == [f'_s{index:04d}' for index in range(len(expected))]
    np.testing.assert_array_equal([picture.pixels for _, picture in found], expected)
    spacing = [0.8, 0.7, 5.0]
    spacing.pop(axis)
    np.testing.assert_allclose(found[0][1].spacing, spacing, rtol=1e-6)


def test_intensities_are_those_of_each_modality_of_the_whole_volume(tmp_path, write_nifti):
  volume = (VOLUME * [1, 10, 100]).astype(np.float32)
  volume[:2] = 0
  path = write_nifti(tmp_path / 'a.nii.gz', volume)
  wanted = ('percentile', 'zscore', 'window/9000/20000')
  found = cases.read_slices(Case('a', (path,)), wanted)
  for k, entry in enumerate(wanted):
    values = volume[..., k].astype(np.float64)
    expected = to_bytes(values, *modality_range(values, entry))
    read = np.stack([picture.pixels[..., k] for _, picture in found], -1)
    np.testing.assert_array_equal(read, expected)
  assert cases.entries(('zscore',), NAMES) == ('zscore',) * 3
  assert cases.entries(wanted, NAMES) == wanted


def test_scaled_volumes_keep_their_foreground(tmp_path, write_nifti):
  """Air is what is 0 after scl_slope and scl_inter."""
  values = np.concatenate([np.full(900, 5.0), np.linspace(10, 20, 100)]).reshape(10, 10, 10)
  scaled = write_nifti(tmp_path / 'a.nii', values.astype(np.float32), slope=2.0, inter=-10.0)
  plain = write_nifti(tmp_path / 'b.nii', (values * 2 - 10).astype(np.float32))
  one, other = (cases.read_slices(Case('x', (path,)), ('percentile',)) for path in (scaled, plain))
  stored = nibabel.load(scaled).get_fdata()
  np.testing.assert_allclose(stored, nibabel.load(plain).get_fdata(), atol=1e-4)
  np.testing.assert_array_equal([p.pixels for _, p in one], [p.pixels for _, p in other])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_pages_of_a_tiff(tmp_path, dtype):
  planes = RNG.integers(0, 256, (3, 7, 9)).astype(dtype)
  path = pages(tmp_path / 'a.TIF', planes)
  ((ending, picture),) = cases.read_slices(Case('a', (path,)), PLAIN)
  assert ending == '' and picture.size == (7, 9) and picture.spacing is None
  np.testing.assert_array_equal(picture.pixels, planes.transpose(1, 2, 0))


def test_a_raster_file_a_modality(tmp_path):
  planes = RNG.integers(0, 256, (3, 7, 9)).astype(np.uint8)
  grey = Image.fromarray(planes[0])
  files = tmp_path / 'a_0000.png', tmp_path / 'a_0001.TIFF', tmp_path / 'a_0002.bmp'
  grey.convert('RGB').save(files[0])  # Grey, though in three channels.
  Image.fromarray(planes[1].astype(np.uint16)).save(files[1])
  Image.fromarray(planes[2]).save(files[2])
  ((_, picture),) = cases.read_slices(Case('a', files), PLAIN)
  np.testing.assert_array_equal(picture.pixels, planes.transpose(1, 2, 0))


def test_one_modality(tmp_path, nifti):
  nifti(tmp_path / 'a_0000.nii.gz', VOLUME[..., 0])
  ((_, first), *_) = cases.read_slices(Case('a', (tmp_path / 'a_0000.nii.gz',)), WINDOW)
  assert first.pixels.shape == (5, 6, 1)


def test_a_modality_that_is_lacking_is_mid_grey(tmp_path, nifti):
  case = numbered(tmp_path, nifti, [None, VOLUME[..., 1], None])
  found = cases.read_slices(case, PLAIN)
  pixels = np.stack([picture.pixels for _, picture in found])
  assert (pixels[..., [0, 2]] == MISSING).all()
  assert len(np.unique(pixels[..., 1])) > 50


# What is refused.


def refused(case, said, wanted=PLAIN, kind=UnsupportedImage):
  with pytest.raises(kind, match=said) as error:
    cases.read_slices(case, wanted)
  assert '\n' not in str(error.value)


def test_another_number_of_modalities_is_refused(tmp_path, nifti):
  nifti(tmp_path / 'a.nii.gz', VOLUME[..., :2])
  said = r'a\.nii\.gz holds 2 modalities \(it is 6x5x4x2\), where 3 should be; give'
  refused(Case('a', (tmp_path / 'a.nii.gz',)), said)
  nifti(tmp_path / 'b.nii.gz', VOLUME[..., 0])
  refused(Case('b', (tmp_path / 'b.nii.gz',)), r'holds 1 modality \(it is 6x5x4\)')
  case = numbered(tmp_path, nifti, [VOLUME[..., 0], VOLUME, VOLUME[..., 2]])
  refused(case, r'ID_0001\.nii\.gz holds 3 modalities .* where 1 should be')
  planes = RNG.integers(0, 256, (4, 7, 9)).astype(np.uint8)
  refused(Case('c', (pages(tmp_path / 'c.tif', planes),)), r'c\.tif holds 4 modalities \(pages\)')
  Image.fromarray(planes[0]).save(tmp_path / 'd.png')
  refused(Case('d', (tmp_path / 'd.png',)), r'd\.png holds 1 modality \(pages\), where 3 should')
  pages(tmp_path / 'e.png', planes[:3])  # Frames of an animation.
  refused(Case('e', (tmp_path / 'e.png',)), 'has frames, which are no modalities')


def test_volumes_without_modalities_are_as_before(tmp_path, nifti):
  from ahm_jax.data.readers import dispatch

  nifti(tmp_path / 'a.nii.gz', VOLUME)
  with pytest.raises(UnsupportedImage, match='has 4 axes of 6x5x4x3; save each volume in a file'):
    dispatch.read_slices(tmp_path / 'a.nii.gz', 1)


@pytest.mark.parametrize(
  ('other', 'said'),
  [
    ((VOLUME[:, :4, :, 1], AFFINE), r'ID_0001.* is 6x4 with 4 slices, and .*ID_0000.* 6x5 with 4'),
    ((VOLUME[:, :, :3, 1], AFFINE), r'ID_0001.* is 6x5 with 3 slices, and .*ID_0000.* 6x5 with 4'),
    ((VOLUME[..., 1], AFFINE + np.eye(4)[:, 2:3] * [0, 0, 0, 9]), 'does not lie where'),
    ((VOLUME[..., 1], np.diag([0.7, 0.8, 5, 1])), 'does not lie where|is 5x6'),
  ],
)
def test_files_of_other_geometry_are_refused(tmp_path, write_nifti, other, said):
  values = iter([(VOLUME[..., 0], AFFINE), other, (VOLUME[..., 2], AFFINE)])
  case = numbered(tmp_path, lambda path, _: write_nifti(path, *next(values)), [0, 1, 2])
  refused(case, said)


def test_files_of_one_place_that_are_stored_otherwise_are_read(tmp_path, write_nifti):
  """Within half a voxel, and with axes in other order."""
  values = np.moveaxis(VOLUME, -1, 0)
  flipped = AFFINE @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
  near = AFFINE.copy()
  near[2, 3] += 0.1
  stored = iter([(values[0], AFFINE), (values[1, ::-1], flipped), (values[2], near)])
  case = numbered(tmp_path, lambda path, _: write_nifti(path, *next(stored)), [0, 1, 2])
  found = cases.read_slices(case, PLAIN)
  whole = write_nifti(tmp_path / 'whole.nii', VOLUME, AFFINE)
  expected = cases.read_slices(Case('whole', (whole,)), PLAIN)
  for (_, one), (_, other) in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_other_refusals(tmp_path, nifti, write_dicom):
  colour = RNG.integers(0, 256, (7, 9, 3), np.uint8)
  grey = colour[..., 0]

  def save(path, values):
    Image.fromarray(values).save(path)

  refused(numbered(tmp_path, save, [grey, colour, grey], '.png'), r'ID_0001\.png is in colour')
  case = numbered(tmp_path, save, [grey, grey.T.copy(), grey], '.bmp')
  refused(case, r'ID_0001\.bmp is 7x9, and .*ID_0000\.bmp 9x7')
  first = pages(tmp_path / 'p.tif', [grey, grey.T.copy(), grey])
  refused(Case('p', (first,)), r'p\.tif: page 1 is 9x7, and page 2 7x9')
  nifti(tmp_path / 'm_0000.nii', VOLUME[:, :, :1, 0])
  mixed = tmp_path / 'm_0000.nii', tmp_path / 'ID_0000.png', tmp_path / 'ID_0002.png'
  refused(Case('m', mixed), 'are not both NIfTI')
  dicom = write_dicom(tmp_path / 'd_0000.dcm', grey.astype(np.uint16))
  refused(Case('d', (dicom, dicom, dicom)), r'd_0000\.dcm is DICOM, of which no modalities')


@pytest.mark.parametrize('suffix', ['.nii.gz', '.nii', '.png', '.tif'])
@pytest.mark.parametrize('content', [b'', b'nonsense' * 100])
def test_damaged_files_are_unreadable(tmp_path, suffix, content):
  path = tmp_path / f'a_0000{suffix}'
  path.write_bytes(content)
  refused(Case('a', (path, None, None)), 'a_0000', kind=Unreadable)
