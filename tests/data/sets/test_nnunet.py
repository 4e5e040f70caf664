"""Data sets of nnU-Net and the Decathlon: what becomes of them, and whole sets that are refused."""

import shutil

import nibabel
import numpy as np
import pytest

from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.prepare import prepare
from ahm_jax.data.sets import nnunet
from ahm_jax.data.sets.table import composed
from tests.data.sets.nnunet_set import LPS, SIX, NnUNet, image, label, save_nifti, save_picture


@pytest.fixture
def several(tmp_path):
  """Six cases of two labels, with a fold."""
  made = NnUNet(tmp_path / 'Dataset002_Set', ('left atrium', 'tumour')).add(*SIX)
  return made.folds(('abcd', 'ef'), ('cdef', 'ab'))


def test_slices_of_a_case_are_images_of_one_group(plain):
  data = plain.load()
  assert data.name == 'Dataset001_Set' and data.class_names == () and data.mask_classes == ()
  found = {split.ids: split for split in data.splits.values()}
  ids = sorted(name for names in found for name in names)
  assert ids == sorted(f'{case}_s000{k}' for case in SIX for k in range(3))
  train = data.splits['train']
  assert [name[0] for name in train.ids] == list(train.groups)
  assert train.has_mask.all() and (train.labels == -1).all()
  np.testing.assert_allclose(train.spacing, [[0.8, 0.7]] * len(train))
  for index, name in enumerate(train.ids):
    mask = train.full_mask(index)
    stored = label(ord(name[0]))[..., int(name[-1])]
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, stored[::-1, ::-1] > 0)  # LPS, turned to RAS+.
  said = f'there is no {plain.root / "splits_final.json"}, so the cases are split by'
  assert any(said in note for note in data.notes)


def test_cases_are_split_whole_by_a_seed(plain):
  first, again = plain.cases(), plain.cases()
  assert first == again and sorted(''.join(first.values())) == list(SIX)
  assert {name: len(cases) for name, cases in first.items()} == {
    'train': 4,
    'validation': 1,
    'test': 1,
  }
  assert plain.cases(split_seed=1) != first


def test_several_labels_are_the_mask_classes(several):
  several.refused(
    r'names 2 labels .*mask_classes is \(\); give --config.data.mask_classes=left_atrium,tumour$'
  )
  several.refused('give --config.data', mask_classes=('tumour', 'left_atrium'))
  data = several.load(mask_classes=('left_atrium', 'tumour'), split_fractions=(0.8, 0.0, 0.2))
  train = data.splits['train']
  index = train.ids.index(f'{train.groups[0]}_s0001')
  stored = label(ord(train.groups[0]), 2)[::-1, ::-1, 1]
  np.testing.assert_array_equal(train.full_mask(index), stored)


def test_one_label_may_be_a_class(plain):
  data = plain.load(mask_classes=('tumour',))
  assert data.splits['train'].full_mask(1).dtype == np.uint8
  plain.refused(
    'names 1 label beside background.*mask_classes=tumour, or none', mask_classes=('x',)
  )


def test_colour_images_of_one_file(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=('R', 'G', 'B'), ending='.png').add(*SIX)
  data = made.load(channels=3)
  train = data.splits['train']
  assert train.images.shape[1:] == (16, 16, 3) and set(train.ids) < set(SIX)
  assert (train.images[..., 0] != train.images[..., 1]).any()
  np.testing.assert_array_equal(train.full_mask(0), label(ord(train.ids[0]))[..., 1] > 0)


@pytest.mark.parametrize('ending', ['.nii', '.bmp', '.tif'])
def test_other_endings(tmp_path, ending):
  made = NnUNet(tmp_path / 'set', ending=ending).add(*SIX)
  assert sorted(''.join(made.cases().values())) == list(SIX)


def test_the_decathlon(tmp_path):
  made = NnUNet(tmp_path / 'Task02_Heart', ('left atrium',), ('MRI',), decathlon=True)
  made.add(*SIX).add('x', kind='Ts', labelled=False)
  (made.root / 'imagesTr' / '._a.nii.gz').write_bytes(b'of macOS')
  data = made.load()
  assert sorted({name for split in data.splits.values() for name in split.groups}) == list(SIX)
  assert any('images in imagesTs/ are NOT used' in note for note in data.notes)
  save_nifti(made.image('unlisted'), image(label()))
  assert any("NOT used, as dataset.json does not name them: 1 ('unlisted.nii.gz')" in note
             for note in made.load().notes)  # fmt: skip


def test_version_1_of_nnunet_lists_images_without_their_number(tmp_path):
  made = NnUNet(tmp_path / 'Task500_X', decathlon=True).add(*SIX).add('x', kind='Ts')
  for path in (*made.root.glob('images*/*'),):
    path.rename(path.with_name(path.name.replace('.nii', '_0000.nii')))
  found = made.cases()
  assert found['test'] == 'x' and sorted(found['train'] + found['validation']) == list(SIX)


def test_version_1_of_nnunet_lists_one_name_for_all_channels(tmp_path):
  """And the Decathlon's own cases may end in four digits: they are no numbers of channels."""
  cases, fields = [f'x_{k:04d}' for k in range(6)], {'channels': 3, 'modalities': ('flair', 't1')}
  made = NnUNet(tmp_path / 'Task500_X', channels=('FLAIR', 'T1'), decathlon=True)
  made.add(*cases).add('y_0000', 'y_0007', kind='Ts')
  before = made.load(**fields)
  assert set(before.splits['test'].groups) == {'y_0000', 'y_0007'}
  for path in (*made.root.glob('images*/*'),):
    stored = nibabel.load(path)
    for k in range(2):
      name = path.name.replace('.nii', f'_{k:04d}.nii')
      save_nifti(path.with_name(name), np.asarray(stored.dataobj)[..., k], stored.affine)
    path.unlink()
  data = made.load(**fields)
  assert not any('imagesTr/ that are NOT used' in note for note in data.notes)
  for name, split in before.splits.items():
    assert data.splits[name].ids == split.ids
    np.testing.assert_array_equal(data.splits[name].images, split.images)
  (made.root / 'imagesTr/x_0002_0000.nii.gz').unlink()
  made.refused('case imagesTr/x_0002 lacks flair; add x_0002_0000 beside', **fields)
  lacking = made.load(**fields, modality_dropout=0.2)
  assert any('cases that lack modalities' in n and "1 ('x_0002')" in n for n in lacking.notes)


def test_a_dataset_of_paths(tmp_path):
  made = NnUNet(tmp_path / 'set').add(*SIX)
  (made.root / 'imagesTr').rename(made.root / 'elsewhere')
  listed = {
    f'case {name}': {
      'images': [f'elsewhere/{name}_0000.nii.gz'],
      'label': f'labelsTr/{name}.nii.gz',
    }
    for name in 'abc'
  }
  made.write(dataset=listed, numTraining=3, file_ending='.nii.gz')
  data = made.load()
  groups = {group for split in data.splits.values() for group in split.groups}
  assert groups == {'case a', 'case b', 'case c'}
  before = nnunet.depends_on(made.config())
  shutil.copy(made.root / 'elsewhere/e_0000.nii.gz', made.root / 'elsewhere/a_0000.nii.gz')
  assert nnunet.depends_on(made.config()) != before


@pytest.mark.parametrize('name', ['dataset.json', 'splits_final.json'])
def test_tables_that_are_links_out(plain, tmp_path, name):
  plain.folds(('abcd', 'ef'))
  (plain.root / name).rename(tmp_path / name)
  (plain.root / name).symlink_to(tmp_path / name)
  plain.refused(f'{name} is a link that leads out of the folder; put a copy in its place')


# Splits, and what is never trained on.


def test_the_folds_of_nnunet(several):
  classes = ('left_atrium', 'tumour')
  for fold, (train, validation) in enumerate((('abcd', 'ef'), ('cdef', 'ab'))):
    found = several.cases(fold=fold, mask_classes=classes)
    assert found['validation'] == validation
    assert sorted(found['train'] + found['test']) == list(train) and len(found['test']) == 1


def test_a_labelled_test_set_is_the_test_split(plain):
  plain.add('x', 'y', kind='Ts').folds(('abcd', 'ef'))
  assert plain.cases() == {'train': 'abcd', 'validation': 'ef', 'test': 'xy'}
  (plain.root / 'splits_final.json').unlink()
  found = plain.cases()
  assert found['test'] == 'xy' and sorted(found['train'] + found['validation']) == list(SIX)


def test_an_unlabelled_test_set_is_not_looked_at(plain):
  before = plain.load()
  plain.add('x', 'y', kind='Ts', labelled=False)
  (plain.root / 'imagesTs' / 'damaged_0000.nii.gz').write_bytes(b'damaged')
  data = plain.load()
  assert {name: split.ids for name, split in data.splits.items()} == {
    name: split.ids for name, split in before.splits.items()
  }
  assert any('are NOT used, since there are no labels' in n and ': 3;' in n for n in data.notes)


def test_prepared_data_follow_the_files(plain, tmp_path):
  config, work = plain.config(), tmp_path / 'work'
  first = prepare(config, work)
  assert prepare(config, work) == first
  plain.folds(('abcd', 'ef'))
  second = prepare(config, work)
  plain.write(description='another')
  assert len({first, second, prepare(config, work)}) == 3


# The check of a data set.


def codes(made, **fields):
  config = made.config(**fields)
  seen = inspection.inspect(config, lambda *_: b'')
  return {finding.code: finding for finding in findings.find(seen, config)}


def test_the_check_finds_leakage_across_cases(plain):
  rng = np.random.default_rng(0)
  for name in SIX:
    save_nifti(plain.image(name), rng.normal(size=(32, 32, 3)).astype(np.float32))
    save_nifti(plain.label(name), label(shape=(32, 32, 3)))
  plain.folds(('abcd', 'ef'))
  assert not {code for code in codes(plain) if 'across' in code}
  shutil.copy(plain.image('e'), plain.image('a'))
  found = codes(plain, split_fractions=(0.9, 0.1, 0.0))['same_image_across_splits']
  assert found.level == 'error'
  assert any('train/a_s0000 and validation/e_s0000' in case.text for case in found.cases)


def test_the_check_names_classes_that_are_never_seen(several):
  for name in SIX:
    save_nifti(several.label(name), label())
  found = codes(several, mask_classes=('left_atrium', 'tumour'))['rare_mask_class']
  assert 'tumour: in 0 masks of train' in [case.text for case in found.cases]


def test_the_check_says_all_that_does_not_fit(plain):
  plain.label('a').unlink()
  moved = LPS.copy()
  moved[0, 3] += 40
  save_nifti(plain.label('b'), label(), moved)
  save_nifti(plain.label('c'), label() * 7)
  plain.image('d').write_bytes(b'damaged')
  plain.folds(('abcd', 'ef'))
  found = codes(plain)
  assert {'layout', 'unsupported', 'unreadable'} <= set(found)
  lines = [case.text for case in found['unsupported'].cases]
  assert any(
    'labelsTr/b.nii.gz does not lie where imagesTr/b_0000.nii.gz' in line for line in lines
  )
  assert any('labelsTr/c.nii.gz holds the value 7, but dataset.json names 1' in x for x in lines)
  layout = [case.text for case in found['layout'].cases]
  assert any(
    'imagesTr/a_0000.nii.gz has no label; add labelsTr/a.nii.gz' in line for line in layout
  )
  assert any("names case 'a', which is not among" in line for line in layout)


# What preparation refuses.


def test_images_and_labels_that_do_not_fit(plain):
  save_nifti(plain.label('c'), label(shape=(12, 10, 4)))
  plain.refused(r'labelsTr/c.nii.gz holds 4 slices but imagesTr/c_0000.nii.gz holds 3')
  save_nifti(plain.label('c'), label(shape=(10, 12, 3)))
  plain.refused('labelsTr/c.nii.gz is .* but imagesTr/c_0000.nii.gz is')
  save_nifti(plain.label('c'), label(), np.eye(4))
  plain.refused('labelsTr/c.nii.gz does not lie where imagesTr/c_0000.nii.gz does')


@pytest.mark.parametrize(
  ('values', 'shown'), [(2, '2'), (255, '255'), (0.5, '0.5'), (np.nan, 'nan')]
)
def test_values_that_are_no_labels(plain, values, shown):
  save_nifti(plain.label('d'), (label() * np.float32(values)).astype(np.float32))
  plain.refused(
    rf'labelsTr/d.nii.gz holds the value {shown}, but dataset.json names 1 \(0 background'
  )


def test_masks_of_a_picture_are_indices_and_not_black_and_white(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=('R', 'G', 'B'), ending='.png').add(*SIX)
  save_picture(made.label('b'), label()[..., 1] * 255)
  made.refused('labelsTr/b.png holds the value 255, but dataset.json names 1', channels=3)


def test_a_volume_of_4_axes(plain):
  save_nifti(plain.image('b'), np.zeros((12, 10, 3, 2), np.int16))
  plain.refused('imagesTr/b_0000.nii.gz has 4 axes of 12x10x3x2')


def test_a_folder_that_is_none(plain):
  for name in ('imagesTr', 'labelsTr'):
    (plain.root / name).rename(plain.root / 'away')
    plain.refused(f'there is no folder {name}/')
    (plain.root / 'away').rename(plain.root / name)
  shutil.rmtree(plain.root / 'imagesTr')
  shutil.rmtree(plain.root / 'labelsTr')
  for name in ('imagesTr', 'labelsTr'):
    (plain.root / name).mkdir()
  plain.write(numTraining=0).refused('there is no image in imagesTr')


def test_names_are_compared_composed(tmp_path):
  made = NnUNet(tmp_path / 'set').add('Zoe\u0308', *SIX)
  made.label('Zoe\u0308').rename(made.label('Zo\u00eb'))
  assert composed('Zoe\u0308') in {g for s in made.load().splits.values() for g in s.groups}


@pytest.mark.parametrize('decathlon', [False, True])
def test_channels_are_modalities_in_files_of_their_own_or_on_a_fourth_axis(tmp_path, decathlon):
  made = NnUNet(tmp_path / 'set', channels=('T2', 'ADC'), decathlon=decathlon).add(*SIX)
  data = made.load(modalities=('T2', 'ADC'), intensity=('window/500/1000',))
  train = data.splits['train']
  assert train.images.shape[-1] == 2
  assert not np.array_equal(train.images[..., 0], train.images[..., 1])
  alone = NnUNet(tmp_path / 'one', channels=('T2',)).add(*SIX)
  single = alone.load(window=(500.0, 1000.0)).splits['train']
  assert single.ids == train.ids
  np.testing.assert_array_equal(train.full_mask(0), single.full_mask(0))
  np.testing.assert_allclose(train.images[..., :1], single.images, atol=1)


def test_a_case_that_lacks_a_channel_is_refused_unless_modalities_are_dropped(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=('T2', 'ADC')).add(*SIX)
  made.image('b', channel=1).unlink()
  names = ('T2', 'ADC')
  made.refused(r'case imagesTr/b lacks ADC; add b_0001 beside imagesTr/b_0000', modalities=names)
  data = made.load(modalities=names, modality_dropout=0.2)
  assert any('cases that lack modalities' in note and "('b')" in note for note in data.notes)
  made.image('a', channel=1).rename(made.root / 'imagesTr/a_0002.nii.gz')
  made.refused('a_0002.nii.gz is numbered 0002, but .* names 2', modalities=names)


def test_channels_that_dataset_json_lists(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=('T2', 'ADC')).add(*SIX)

  def listed(count):
    return {
      case: {
        'images': [f'imagesTr/{case}_{k:04d}.nii.gz' for k in range(count)],
        'label': f'labelsTr/{case}.nii.gz',
      }
      for case in SIX
    }

  plain = made.load(modalities=('T2', 'ADC')).splits['train']
  again = made.write(dataset=listed(2)).load(modalities=('T2', 'ADC')).splits['train']
  np.testing.assert_array_equal(plain.images, again.images)
  made.write(dataset=listed(3)).refused(
    'names 3 images of case .a.; give 1 or 2', modalities=('T2', 'ADC')
  )
