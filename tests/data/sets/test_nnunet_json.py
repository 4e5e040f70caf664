"""dataset.json: what is read of it, and every wrong one refused in a line."""

import json
import os
import re

import pytest

from ahm_jax.config.ranges import modality_names
from ahm_jax.data.sets import nnunet_json
from ahm_jax.errors import UserError
from tests.data.sets.nnunet_set import NnUNet
from tests.hostile_json import DAMAGES, VALUES

NEW = {
  'channel_names': {'0': 'CT'},
  'labels': {'background': 0, 'liver': 1, 'tumour': 2},
  'file_ending': '.nii.gz',
  'numTraining': 3,
}
OLD = {
  'modality': {'0': 'CT'},
  'labels': {'0': 'background', '1': 'liver', '2': 'tumour'},
  'numTraining': 1,
  'training': [{'image': './imagesTr/x_1.nii.gz', 'label': './labelsTr/x_1.nii.gz'}],
}


def read(root, tree):
  (root / 'dataset.json').write_text(json.dumps(tree))
  return nnunet_json.read(root)


def refusal(root, tree):
  with pytest.raises(UserError) as caught:
    read(root, tree)
  message = str(caught.value)
  assert '\n' not in message and len(message) < 1000
  assert str(root / 'dataset.json') in message
  return message


def test_both_kinds(tmp_path):
  new, old = read(tmp_path, NEW), read(tmp_path, OLD)
  for found in (new, old):
    assert found.channels == ('CT',) and found.classes == ('liver', 'tumour')
    assert found.ending == '.nii.gz' and not found.is_colour
  assert (new.listed, new.told, new.is_decathlon) == (None, 3, False)
  case = ('x_1', ('./imagesTr/x_1.nii.gz',), './labelsTr/x_1.nii.gz')
  assert (old.listed, old.told, old.is_decathlon) == ((case,), 1, True)


def test_labels_in_any_order_and_as_text_or_lists_of_one(tmp_path):
  labels = {'tumour': '2', 'background': 0, 'liver': [1]}
  assert read(tmp_path, NEW | {'labels': labels}).classes == ('liver', 'tumour')


def test_names_of_classes_are_made_to_fit(tmp_path):
  names = ['left atrium', 'left-atrium', 'left/atrium', 'mm', '\u00f6', 'a' * 99, 'Edema (2)']
  labels = {'background': 0, **{name: k for k, name in enumerate(names, 1)}}
  assert read(tmp_path, NEW | {'labels': labels}).classes == (
    *('left_atrium', 'left-atrium', 'left_atrium_2', 'mm_2', 'name', 'a' * 60, 'Edema_2'),
  )


@pytest.mark.parametrize(
  ('changed', 'said'),
  [
    ({'labels': {'background': 0, 'x': 1, 'ignore': 2}}, "labels has 'ignore' (value 2)"),
    ({'labels': {'background': 0, 'whole': [1, 2], 'core': 2}}, "'whole' is the region [1, 2]"),
    ({'labels': {'background': 0, 'x': 2}}, 'labels has the values 0, 2; they must be 0'),
    ({'labels': {'background': 0, 'x': 1, 'y': 1}}, 'labels has the values 0, 1, 1'),
    ({'labels': {'background': 0}}, 'with one beside background'),
    ({'labels': {}}, 'they must be 0 (background), 1, 2'),
    ({'labels': {'x': 0, 'background': 1}}, "names the value 0 'x', and 0 must be 'background'"),
    ({'labels': {'x': 0, 'y': 1}}, "0 must be 'background'"),
    ({'labels': {'background': 0, 'x': 'y'}}, "label 'x' has the value 'y'"),
    ({'labels': {'background': 0, 'x': 1.0}}, 'labels['),
    ({'labels': {'background': 0, 'x': -1}}, 'labels['),
    ({'labels': {'0': 'background', '1': 'x', '2': 'x'}}, "labels has the name 'x' twice"),
    ({'labels': {'background': 0, **{f'c{k}': k for k in range(1, 300)}}}, 'have room for 255'),
    ({'labels': ['background', 'x']}, 'labels is a list, not an object'),
    ({'labels': {'background': 'a' * 5000}}, "label 'background' has the value 'aaa"),
    ({'labels': {'background': 0, 'a' * 5000: [1, 2]}}, 'is the region'),
    ({'file_ending': 'a' * 5000}, 'those that are read'),
    ({'dataset': {'a': {'images': ['a' * 5000], 'label': 'y.png'}}}, 'which is no path'),
    ({'channel_names': {'a' * 5000: 'CT'}}, 'has the keys'),
    ({'channel_names': {}}, 'they must be "0", "1", ...'),
    ({'channel_names': {'0': 'T1', '2': 'T2'}}, "has the keys '0', '2'"),
    ({'channel_names': {'a': 'T1'}}, "has the keys 'a'"),
    ({'channel_names': {'0': 1}}, 'channel_names'),
    (
      {'file_ending': '.nrrd'},
      "file_ending of its images is '.nrrd'; those that are read are .png",
    ),
    ({'file_ending': 'nii.gz'}, "is 'nii.gz'; those that are read"),
    ({'file_ending': '.jpg'}, "is '.jpg'"),
    ({'file_ending': '.NII.GZ'}, "is '.NII.GZ'"),
    ({'numTraining': '3'}, 'numTraining'),
    ({'overwrite_image_reader_writer': 'Tiff3DIO'}, 'volumes in TIFF'),
    ({'dataset': {'a/b': {'images': ['x'], 'label': 'y'}}}, "the case 'a/b'"),
    ({'dataset': {}}, 'names no training cases'),
    (
      {'dataset': {'a': {'images': ['../x.png'], 'label': 'y.png'}}},
      "names '../x.png', which is no",
    ),
    ({'dataset': {'a': {'images': ['x.png'], 'label': '/etc/y.png'}}}, "'/etc/y.png', which is no"),
    ({'dataset': {'a': {'images': ['x\n.png'], 'label': 'y.png'}}}, 'which is no path'),
    ({'dataset': {'a': {'images': ['x\ud800.png'], 'label': 'y.png'}}}, 'which is no path'),
  ],
)
def test_what_is_refused(tmp_path, changed, said):
  assert said in refusal(tmp_path, NEW | changed)


def test_a_file_that_says_neither_ending_nor_cases(tmp_path):
  tree = {key: value for key, value in NEW.items() if key != 'file_ending'}
  assert 'has no file_ending' in refusal(tmp_path, tree)
  assert 'has no file_ending' in refusal(tmp_path, OLD | {'training': []})
  assert 'image is missing' in refusal(tmp_path, OLD | {'training': [{'label': 'x'}]})


@pytest.mark.parametrize('name', DAMAGES)
def test_damage(tmp_path, name):
  (tmp_path / 'dataset.json').write_bytes(DAMAGES[name])
  with pytest.raises(UserError) as caught:
    nnunet_json.read(tmp_path)
  assert str(tmp_path / 'dataset.json') in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize('kind', [NEW, OLD], ids=['new', 'old'])
def test_wrong_values_are_refused_or_make_no_difference(tmp_path, kind):
  expected = read(tmp_path, kind)
  free = {'numTraining'}
  for field in kind:
    for value in VALUES:
      try:
        found = read(tmp_path, kind | {field: value})
      except UserError as error:
        assert '\n' not in str(error)
      else:
        assert field in free and found._replace(told=expected.told) == expected, (field, value)


def test_what_is_no_file(tmp_path):
  with pytest.raises(UserError, match=r'there is no dataset.json; give the folder that holds it'):
    nnunet_json.read(tmp_path)
  with pytest.raises(UserError, match=r'nor such a folder; set config.data.root'):
    nnunet_json.read(tmp_path / 'none')
  os.mkfifo(tmp_path / 'dataset.json')
  with pytest.raises(UserError, match='must be a file'):
    nnunet_json.read(tmp_path)


def test_a_folder_of_data_sets_is_told(tmp_path):
  made = NnUNet(tmp_path / 'Dataset007_X')
  with pytest.raises(UserError, match=f'give one of the folders that hold one, as {made.root}'):
    nnunet_json.read(tmp_path)


def test_a_folder_of_images_and_masks_is_told(tmp_path):
  (tmp_path / 'images').mkdir()
  with pytest.raises(UserError, match=r'is data.name=folder'):
    nnunet_json.read(tmp_path)


@pytest.mark.parametrize('decathlon', [False, True])
def test_several_channels_are_named(tmp_path, decathlon):
  made = NnUNet(tmp_path / 'set', channels=('T2', 'ADC'), decathlon=decathlon)
  made.add(*'abc').refused(
    r'names 2 channels \(0 T2, 1 ADC\), and config.data.modalities is \(\); give '
    r'--config.data.modalities=T2,ADC'
  )
  made.refused('give --config.data.modalities=T2,ADC', modalities=('T2', 'ADC', 'DWI'))
  made.refused('give --config.data.modalities=T2,ADC', modalities=('adc', 't2'), channels=3)
  found = nnunet_json.read(made.root)
  for names in (('t2', 'adc'), ('T2', 'diffusion')):
    nnunet_json.check_channels(found, made.config(modalities=names))


def test_channels_that_nobody_named_get_names_that_differ(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=('noNorm', 'noNorm', 'T1 weighted', '???'))
  made.add(*'abc').refused('give --config.data.modalities=noNorm,noNorm_2,T1_weighted,name$')


def test_channels_that_begin_with_a_digit_get_a_letter(tmp_path):
  long = '18F-FDG PET of the whole body, attenuation corrected'
  made = NnUNet(tmp_path / 'set', channels=('2CH', long, *[long] * 10, '1', 'T1'))
  names = re.search('modalities=(.*)$', made.add(*'abc').refused('names 14 channels'))[1].split(',')
  whole = 'c_18F-FDG_PET_of_the_whole_b'
  assert names == ['c_2CH', whole, *(f'{whole}_{k}' for k in range(2, 12)), 'c_1', 'T1']
  nnunet_json.check_channels(nnunet_json.read(made.root), made.config(modalities=tuple(names)))
  assert not modality_names(tuple(names))


def test_more_channels_than_images_have_room_for(tmp_path):
  made = NnUNet(tmp_path / 'set', channels=[f'c{k}' for k in range(17)]).add('a')
  made.refused(r'channel_names \(or modality\) has 17 names; images have room for 16$')
  NnUNet(tmp_path / 'most', channels=[f'c{k}' for k in range(16)]).add('a').refused(',c14,c15$')


def test_one_channel_and_colours_have_no_modalities(tmp_path):
  made = NnUNet(tmp_path / 'set').add(*'abc')
  made.refused(r"names 1 channel \(0 CT\).* is \('ct',\); leave it empty", modalities=('ct',))


def test_which_channels_are_colours(tmp_path):
  def is_colour(names, ending):
    channels = {str(k): name for k, name in enumerate(names)}
    return read(tmp_path, NEW | {'channel_names': channels, 'file_ending': ending}).is_colour

  assert is_colour('RGB', '.png') and is_colour(('rgb_to_0_1',) * 3, '.bmp')
  assert is_colour(('Red', 'Green', 'Blue'), '.tif')
  assert not is_colour('RGB', '.nii.gz') and not is_colour('RG', '.png')
  assert not is_colour(('T1', 'T2', 'PD'), '.png')
