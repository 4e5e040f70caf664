"""Images and labels of cases: those that do not belong together are refused by name."""

import shutil

import pytest
from PIL import Image

from tests.data.sets.nnunet_set import SIX, NnUNet, image, label, save_nifti


@pytest.fixture
def old(tmp_path):
  return NnUNet(tmp_path / 'old', decathlon=True).add(*SIX)


def test_an_image_without_a_label(plain):
  plain.label('c').unlink()
  plain.refused(r'imagesTr/c_0000.nii.gz has no label; add labelsTr/c.nii.gz, or remove the image$')


def test_a_label_without_an_image(plain):
  plain.image('c').unlink()
  plain.refused(r'labelsTr/c.nii.gz has no image; add imagesTr/c_0000.nii.gz, or remove the label$')


def test_a_test_image_without_a_label(plain):
  plain.add('x', kind='Ts').add('y', kind='Ts', labelled=False)
  plain.refused('imagesTs/y_0000.nii.gz has no label; add labelsTs/y.nii.gz')


def test_test_labels_without_images(plain):
  plain.add('x', kind='Ts')
  shutil.rmtree(plain.root / 'imagesTs')
  plain.refused('there is no folder imagesTs/')


def test_a_case_to_train_and_to_test_on(plain, old):
  for made in (plain, old):
    made.add('c', kind='Ts')
    made.refused("case 'c' is in both imagesTr/c.* and imagesTs/c.*must not be trained on")


@pytest.mark.parametrize('number', [0, 5, 7])
def test_another_number_of_cases(plain, old, number):
  for made in (plain, old):
    made.write(numTraining=number)
    made.refused(f'says numTraining {number}, but there are 6 training cases')


def test_no_number_of_cases(plain):
  plain.write(numTraining=None)
  assert sorted(''.join(plain.cases().values())) == list(SIX)


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('b_0001.nii.gz', 'imagesTr/b_0001.nii.gz is of channel 0001, but one file a case is read'),
    ('g.nii.gz', 'imagesTr/g.nii.gz has no number of a channel; name it g_0000.nii.gz'),
    ('g_000.nii.gz', 'imagesTr/g_000.nii.gz has no number of a channel'),
    ('g_0000.nii', 'imagesTr/g_0000.nii does not end in .nii.gz, the file_ending of dataset.json'),
    ('g_0000.NII.GZ', 'imagesTr/g_0000.NII.GZ does not end in .nii.gz'),
    ('g_0000.png', 'imagesTr/g_0000.png does not end in .nii.gz'),
    ('b_0000.nii', 'imagesTr/b_0000.nii and imagesTr/b_0000.nii.gz have the same name'),
    ('g\x07_0000.nii.gz', 'has control characters in its name'),
  ],
)
def test_names_that_do_not_fit(plain, name, said):
  shutil.copy(plain.image('b'), plain.root / 'imagesTr' / name)
  plain.refused(said)


def test_a_label_of_another_ending(plain):
  shutil.copy(plain.label('b'), plain.root / 'labelsTr' / 'g.nii')
  plain.refused('labelsTr/g.nii does not end in .nii.gz')


def test_what_is_no_image_is_passed_over(plain):
  (plain.root / 'imagesTr' / 'readme.txt').write_text('x')
  (plain.root / 'imagesTr' / '.hidden_0000.nii.gz').write_text('x')
  (plain.root / 'labelsTr' / 'folder').mkdir()
  notes = plain.load().notes
  assert any("ignored in imagesTr/: 1 ('readme.txt')" in note for note in notes)
  assert any("ignored in labelsTr/: 1 ('folder')" in note for note in notes)


def test_links_stay_within_the_folder(plain, tmp_path):
  plain.image('c').rename(plain.root / 'kept.nii.gz')
  plain.image('c').symlink_to(plain.root / 'kept.nii.gz')
  assert sorted(''.join(plain.cases().values())) == list(SIX)
  plain.image('c').unlink()
  shutil.move(plain.root / 'kept.nii.gz', tmp_path / 'outside.nii.gz')
  plain.image('c').symlink_to(tmp_path / 'outside.nii.gz')
  plain.refused('imagesTr/c_0000.nii.gz is a link that leads out of the folder')
  plain.image('c').unlink()
  plain.image('c').symlink_to(tmp_path / 'nothing')
  plain.refused('imagesTr/c_0000.nii.gz is a link to nothing')


def test_a_folder_that_is_a_link_out(old, tmp_path):
  shutil.move(old.root / 'imagesTr', tmp_path / 'outside')
  (old.root / 'imagesTr').symlink_to(tmp_path / 'outside')
  old.refused('imagesTr is a link that leads out of the folder')


# By a list.


def test_listed_files_that_are_not_there(old):
  old.label('e').unlink()
  old.refused("names 'labelsTr/e.nii.gz' of case 'e', which is not there")
  old.image('e').unlink()
  old.refused("names 'imagesTr/e.nii.gz' of case 'e', which is not there")


def test_a_case_listed_twice(old):
  pairs = old.tree['training']
  old.write(training=[*pairs, pairs[2]]).refused("names case 'c', or its image or label, twice")
  other = {'image': pairs[2]['image'], 'label': './labelsTr/../labelsTr/d.nii.gz'}
  old.write(training=[*pairs[:3], other]).refused('which is no path below')
  other = {'image': pairs[2]['image'], 'label': pairs[3]['label']}
  old.write(training=[*pairs[:3], other]).refused("names case 'd', or its image or label, twice")
  other = {'image': './imagesTr/f.nii.gz', 'label': pairs[0]['label'].replace('a.', 'e.')}
  old.write(training=[*pairs[:5], other]).refused("case 'e', or its image or label, twice")


def test_a_label_of_two_listed_cases(plain):
  told = {
    case: {'images': [f'imagesTr/{case}_0000.nii.gz'], 'label': 'labelsTr/a.nii.gz'}
    for case in 'ab'
  }
  plain.write(dataset=told, numTraining=2)
  plain.refused("names case 'b', or its image or label, twice")


def test_a_listed_file_of_another_ending(old):
  save_nifti(old.root / 'imagesTr' / 'g.nii', image(label()))
  save_nifti(old.root / 'labelsTr' / 'g.nii.gz', label())
  pair = {'image': 'imagesTr/g.nii', 'label': 'labelsTr/g.nii.gz'}
  old.write(training=[*old.tree['training'], pair], numTraining=7)
  old.refused('imagesTr/g.nii does not end in .nii.gz, as others do')


def test_a_case_of_several_listed_files(plain):
  told = {'images': ['imagesTr/a_0000.nii.gz'] * 2, 'label': 'labelsTr/a.nii.gz'}
  plain.write(dataset={'a': told}, numTraining=1)
  plain.refused("names 2 images of case 'a'; give 1")
  plain.write(dataset={'a': told | {'images': []}})
  plain.refused("names 0 images of case 'a'; give 1")


# Volumes in TIFF.


def test_pages_of_a_tiff(tmp_path):
  made = NnUNet(tmp_path / 'set', ending='.tif').add(*SIX)
  page = Image.fromarray(label()[..., 1])
  page.save(made.label('c'), save_all=True, append_images=[page, page])
  made.refused('labelsTr/c.tif holds 3 pages, a volume in TIFF, which is not read')
