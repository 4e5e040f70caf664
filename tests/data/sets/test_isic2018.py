"""ISIC 2018 from tiny archives with the official names and layout: what is read, and what is
refused.
"""

import io
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.prepare import prepare
from ahm_jax.data.readers import archives
from ahm_jax.data.sets import isic2018
from ahm_jax.errors import UserError

PARTS = {'Training': (0, 1, 2, 3), 'Validation': (10, 11), 'Test': (20, 21, 22)}
TASK3 = {'Training': (30, 31, 32), 'Test': (40,)}
LABELS = {30: 'MEL', 31: 'NV', 32: 'NV', 40: 'VASC'}


def name(number: int) -> str:
  return f'ISIC_{number:07d}'


def encoded(pixels: np.ndarray, kind: str) -> bytes:
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, kind)
  return stream.getvalue()


def image(number: int) -> bytes:
  return encoded(np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8), 'JPEG')


def truth(number: int) -> np.ndarray:
  mask = np.zeros((24, 32), bool)
  mask[4 : 8 + number % 10, 5:20] = True
  return mask


def write_zip(root, stem: str, files: dict[str, bytes]) -> None:
  """An archive as the challenge has them: everything in a folder of its name, with a licence."""
  with zipfile.ZipFile(root / f'{stem}.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(f'{stem}/', b'')
    for file, data in {'LICENSE.txt': b'CC', 'ATTRIBUTION.txt': b'ISIC', **files}.items():
      archive.writestr(f'{stem}/{file}', data)


def write_task1(root) -> None:
  for part, numbers in PARTS.items():
    write_zip(root, f'ISIC2018_Task1-2_{part}_Input', {f'{name(n)}.jpg': image(n) for n in numbers})
    masks = {
      f'{name(n)}_segmentation.png': encoded(truth(n).astype(np.uint8) * 255, 'PNG')
      for n in numbers
    }
    write_zip(root, f'ISIC2018_Task1_{part}_GroundTruth', masks)


def table(numbers, labels=LABELS) -> bytes:
  rows = [
    ','.join([name(n), *(f'{float(labels[n] == c)}' for c in isic2018.CLASSES)]) for n in numbers
  ]
  return '\n'.join(['image,' + ','.join(isic2018.CLASSES), *rows, '']).encode()


def write_task3(root) -> None:
  for part, numbers in TASK3.items():
    write_zip(root, f'ISIC2018_Task3_{part}_Input', {f'{name(n)}.jpg': image(n) for n in numbers})
    truths = f'ISIC2018_Task3_{part}_GroundTruth'
    write_zip(root, truths, {f'{truths}.csv': table(numbers)})
  (root / 'ISIC2018_Task3_Training_LesionGroupings.csv').write_text(
    f'image,lesion_id,diagnosis_confirm_type\n{name(30)},HAM_1,histopathology\n{name(31)},HAM_2,x\n{name(32)},HAM_2,x\n'
  )


@pytest.fixture
def root(tmp_path):
  root = tmp_path / 'isic'
  root.mkdir()
  write_task1(root)
  return root


def config(root, **fields):
  return DataConfig(name='isic2018', root=str(root), image_size=16, **fields)


def load(root, **fields):
  return dataset.load(config(root, **fields), root.parent / 'work')


def refused(root, *patterns):
  with pytest.raises(UserError) as caught:
    load(root)
  message = str(caught.value)
  assert '\n' not in message
  for pattern in patterns:
    assert re.search(pattern, message), message
  return message


def test_task_1_has_its_official_splits_and_masks(root):
  data = load(root)
  assert (data.name, data.class_names, data.notes) == ('isic2018', (), ())
  assert {split: part.ids for split, part in data.splits.items()} == {
    split: tuple(name(n) for n in PARTS[part]) for split, part in isic2018.PARTS.items()
  }
  for part in data.splits.values():
    assert part.has_mask.all() and (part.labels == -1).all() and part.groups == part.ids
  test = data.splits['test']
  for i, number in enumerate(PARTS['Test']):
    np.testing.assert_array_equal(test.full_mask(i), truth(number))
    expected = Image.open(io.BytesIO(image(number))).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(test.images[i], np.asarray(expected))


def test_nothing_is_unpacked_or_changed(root):
  before = {path: path.read_bytes() for path in root.iterdir()}
  load(root)
  assert {path: path.read_bytes() for path in root.iterdir()} == before


@pytest.mark.parametrize('nested', [False, True])
def test_unpacked_folders_give_the_same(root, nested):
  write_task3(root)
  packed = load(root)
  for path in list(root.glob('*.zip')):
    shutil.unpack_archive(path, root / path.stem if nested else root)
    path.unlink()
  unpacked = load(root)
  assert packed.class_names == unpacked.class_names
  for split in packed.splits:
    for field in ('ids', 'groups', 'full_masks'):
      assert getattr(packed.splits[split], field) == getattr(unpacked.splits[split], field)
    np.testing.assert_array_equal(packed.splits[split].images, unpacked.splits[split].images)
    np.testing.assert_array_equal(packed.splits[split].labels, unpacked.splits[split].labels)


def test_task_3_gives_diagnoses_and_lesions(root):
  write_task3(root)
  data = load(root)
  assert data.class_names == ('MEL', 'NV', 'VASC')
  train, test = data.splits['train'], data.splits['test']
  assert train.ids == tuple(map(name, (0, 1, 2, 3, 30, 31, 32)))
  assert train.has_mask.tolist() == [True] * 4 + [False] * 3
  assert train.labels.tolist() == [-1] * 4 + [0, 1, 1]
  assert train.groups[4:] == ('HAM_1', 'HAM_2', 'HAM_2')
  assert test.ids[-1] == name(40) and test.labels[-1] == 2 and test.groups[-1] == name(40)
  assert re.search(
    r'pre-training only: 3 \(without a mask: 3, of which 3 have a label', data.notes[0]
  )


def test_an_image_of_both_tasks_keeps_the_split_of_task_1(root):
  labels = {20: 'BCC', 30: 'NV'}
  write_zip(root, 'ISIC2018_Task3_Training_Input', {f'{name(n)}.jpg': image(n) for n in labels})
  truths = 'ISIC2018_Task3_Training_GroundTruth'
  write_zip(root, truths, {f'{truths}.csv': table(labels, labels)})
  data = load(root)
  assert name(20) not in data.splits['train'].ids
  assert data.splits['test'].labels.tolist() == [0, -1, -1] and data.splits['test'].has_mask.all()


def test_other_files_are_prepared_anew(root):
  first = prepare(config(root), root.parent / 'work')
  assert prepare(config(root), root.parent / 'work') == first
  write_task3(root)
  assert prepare(config(root), root.parent / 'work') != first


# What is refused.


def test_missing_archives_are_named_in_one_line_with_the_site(root):
  (root / 'ISIC2018_Task1-2_Test_Input.zip').unlink()
  (root / 'ISIC2018_Task1_Training_GroundTruth.zip').unlink()
  message = refused(root, 'challenge.isic-archive.com')
  assert (
    'lacks ISIC2018_Task1_Training_GroundTruth.zip, ISIC2018_Task1-2_Test_Input.zip; download'
    in message
  )


def test_images_of_task_3_need_their_table(root):
  write_zip(root, 'ISIC2018_Task3_Training_Input', {f'{name(30)}.jpg': image(30)})
  refused(root, r'lacks ISIC2018_Task3_Training_GroundTruth.zip, which belongs to')


def test_a_download_that_broke_off_is_refused(root):
  path = root / 'ISIC2018_Task1-2_Training_Input.zip'
  path.write_bytes(path.read_bytes()[:2000])
  refused(
    root, r'Training_Input.zip cannot be read as a zip archive .*; download it again from challenge'
  )


def test_a_damaged_member_is_unreadable_as_a_file_is(root):
  path = root / 'ISIC2018_Task1-2_Training_Input.zip'
  data = bytearray(path.read_bytes())
  at = (
    data.index(image(1)[200:260])
    if image(1)[200:260] in data
    else data.index(f'{name(1)}.jpg'.encode()) + 400
  )
  data[at : at + 20] = bytes(20)
  path.write_bytes(data)
  refused(root, r'ISIC2018_Task1-2_Training_Input.zip/ISIC_0000001.jpg is damaged or not an image')
  assert load(root, skip_unreadable=True).splits['train'].ids == (name(0), name(2), name(3))


@pytest.mark.parametrize(
  'evil',
  ['../ISIC_0000009.jpg', '/ISIC_0000009.jpg', 'a/../../ISIC_0000009.jpg', 'C:\\ISIC_0000009.jpg'],
)
def test_names_that_lead_out_of_an_archive_are_refused(root, evil):
  with zipfile.ZipFile(root / 'ISIC2018_Task1-2_Training_Input.zip', 'a') as archive:
    info = zipfile.ZipInfo('x')
    info.filename = evil
    archive.writestr(info, b'')
  refused(root, 'a name that leads out of it')
  assert not list(root.parent.glob('**/ISIC_0000009.jpg'))


def test_a_name_with_control_characters_is_escaped(root):
  with zipfile.ZipFile(root / 'ISIC2018_Task1-2_Training_Input.zip', 'a') as archive:
    archive.writestr('../a\n\x1b[31m.jpg', b'')
  refused(root, r'\.\./a\\\\n\\\\x1b')


def test_a_zip_bomb_is_refused_before_it_is_unpacked(root, monkeypatch):
  monkeypatch.setattr(archives, 'MAX_BYTES', 100_000)
  with zipfile.ZipFile(
    root / 'ISIC2018_Task1_Test_GroundTruth.zip', 'a', zipfile.ZIP_DEFLATED
  ) as archive:
    archive.writestr('ISIC_0000020_segmentation.png.txt', bytes(100_001))
  refused(root, r'says that it unpacks to 100001 bytes, over 100000')


def test_a_member_that_is_larger_than_it_says_is_not_believed(root):
  """The size in the directory is made smaller: unpacking stops there, and the sum differs."""
  path = root / 'ISIC2018_Task1-2_Test_Input.zip'
  size = len(image(20)).to_bytes(4, 'little')
  data = path.read_bytes()
  at = data.rindex(size, 0, data.rindex(f'{name(20)}.jpg'.encode()))
  path.write_bytes(data[:at] + (100).to_bytes(4, 'little') + data[at + 4 :])
  refused(root, 'ISIC2018_Task1-2_Test_Input.zip/ISIC_0000020.jpg is damaged')


@pytest.mark.parametrize('kind', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_python_cannot_bound_is_refused(root, kind):
  with zipfile.ZipFile(root / 'ISIC2018_Task1-2_Test_Input.zip', 'a', kind) as archive:
    archive.writestr('ISIC_0000029.jpg', image(29))
  refused(root, 'ISIC_0000029.jpg, which is encrypted or packed in an unusual way')


def test_a_member_that_is_there_twice_is_refused(root):
  with zipfile.ZipFile(root / 'ISIC2018_Task1-2_Test_Input.zip', 'a') as archive:
    archive.writestr('other/ISIC_0000020.jpg', image(29))
  refused(root, 'holds ISIC_0000020.jpg twice')


def test_what_does_not_fit_together_is_refused_or_collected(root):
  masks = {f'{name(n)}_segmentation.png': encoded(truth(n), 'PNG') for n in (10, 19)}
  write_zip(root, 'ISIC2018_Task1_Validation_GroundTruth', masks)
  refused(root, 'has a mask of ISIC_0000019, but', 'has ISIC_0000011, but .* has no mask of it')
  listing = isic2018.list_items(config(root))
  assert len(listing.problems) == 2 and len(listing.items) == 9


def test_tables_that_make_no_sense_are_refused(root):
  write_task3(root)
  truths = 'ISIC2018_Task3_Test_GroundTruth'
  write_zip(root, truths, {f'{truths}.csv': table((40,)).replace(b'1.0', b'0.0')})
  refused(root, "row of 'ISIC_0000040' names no class, or several")
  write_zip(root, truths, {f'{truths}.csv': table((40,)).replace(b'AKIEC', b'AK')})
  refused(root, 'its table has no column AKIEC')
  write_zip(root, truths, {f'{truths}.csv': b'\xff\xfe\x00'})
  refused(root, 'its table cannot be read')
  write_zip(root, truths, {f'{truths}.csv': table((40, 31), {**LABELS})})
  refused(root, "names 'ISIC_0000031', which is not in ISIC2018_Task3_Test_Input")


def test_lesions_that_cross_splits_are_refused(root):
  write_task3(root)
  path = root / 'ISIC2018_Task3_Training_LesionGroupings.csv'
  path.write_text(path.read_text() + f'{name(40)},HAM_2,x\n')
  refused(root, "LesionGroupings: group 'HAM_2' is in split train .* and in test")


def test_links_that_lead_out_of_the_folder_are_refused(root):
  path = root / 'ISIC2018_Task1-2_Test_Input.zip'
  shutil.unpack_archive(path, root)
  (root.parent / 'elsewhere.jpg').write_bytes(image(20))
  inside = root / path.stem / f'{name(20)}.jpg'
  inside.unlink()
  inside.symlink_to(root.parent / 'elsewhere.jpg')
  refused(
    root, 'ISIC2018_Task1-2_Test_Input/ISIC_0000020.jpg is a link that leads out of the folder'
  )


def test_the_whole_set_can_be_inspected(root):
  write_task3(root)
  coarse = Image.fromarray(np.random.default_rng(9).integers(0, 256, (9, 12, 3), np.uint8))
  smooth = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC))
  for part, number, kind in (('Training', 1, 'JPEG'), ('Test', 21, 'PNG')):
    stem = f'ISIC2018_Task1-2_{part}_Input'
    own = {f'{name(n)}.jpg': image(n) for n in PARTS[part]}
    write_zip(root, stem, own | {f'{name(number)}.jpg': encoded(smooth, kind)})
  before = {path: path.read_bytes() for path in root.iterdir()}
  seen = inspection.inspect(config(root), lambda *_: b'')
  assert {path: path.read_bytes() for path in root.iterdir()} == before
  found = {finding.code: finding for finding in findings.find(seen, config(root))}
  (case,) = found['near_duplicate_across_splits'].cases
  assert {seen.images[index].name for index in case.images} == {name(1), name(21)}
  # Their masks are smaller.
  assert len(found['unsupported'].cases) == 2 and '320x240' in found['unsupported'].cases[0].text
  assert (
    len(seen.images) == 13
    and seen.images[0].file == 'ISIC2018_Task1-2_Training_Input.zip/ISIC_0000000.jpg'
  )
  assert inspection.numbers(seen)['splits']['train']['classes'] == {'MEL': 1, 'NV': 2}
