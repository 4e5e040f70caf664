"""The image folder: what is read, and every kind of wrong input refused with one line."""

import errno
import io
import itertools
import os
import re
import socket
import stat
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.data.readers import dicom
from ahm_jax.data.readers.base import UnavailableFile
from ahm_jax.data.sets.folder import list_items
from ahm_jax.errors import UserError


def disc(width, height, share=0.3):
  """A mask, bool [height, width]."""
  rows, columns = np.mgrid[:height, :width]
  return (rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2 < share**2


def picture(width, height, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Folder:
  """A folder under construction."""

  def __init__(self, root):
    self.root = root
    (root / 'images').mkdir(parents=True)
    (root / 'masks').mkdir()

  def add(self, name, width=24, height=20, mask=True, suffix='.png', highest=255):
    Image.fromarray(picture(width, height, seed=len(name))).save(
      self.root / 'images' / f'{name}{suffix}'
    )
    if mask:
      values = disc(width, height).astype(np.uint8) * highest
      Image.fromarray(values).save(self.root / 'masks' / f'{name}.png')
    return self

  def table(self, text):
    (self.root / 'labels.csv').write_text(text)
    return self

  def config(self, **fields):
    return DataConfig(name='folder', root=str(self.root), image_size=16, **fields)

  def load(self, **fields):
    return dataset.load(self.config(**fields), self.root.parent / 'work')

  def refused(self, *patterns, **fields):
    """Checks that loading raises a UserError of one line that matches every pattern."""
    with pytest.raises(UserError) as caught:
      self.load(**fields)
    message = str(caught.value)
    assert '\n' not in message
    assert str(self.root) in message
    for pattern in patterns:
      assert re.search(pattern, message), message
    return message


@pytest.fixture
def folder(tmp_path):
  return Folder(tmp_path / 'set')


@pytest.fixture
def complete(folder):
  """Six images in three splits, two classes."""
  for name in 'abcdef':
    folder.add(name)
  return folder.table(
    ''
    'image,label,split,group\na,x,train,1\nb,y,train,1\nc,x,validation,2\nd,y,validation,3\ne,x,test,4\nf,y,test,5\n'
  )


# What is read.


def test_reads_a_complete_folder(complete):
  data = complete.load()
  assert data.name == 'set'
  assert data.class_names == ('x', 'y')
  assert data.notes == ()
  assert {name: split.ids for name, split in data.splits.items()} == {
    'train': ('a', 'b'),
    'validation': ('c', 'd'),
    'test': ('e', 'f'),
  }
  train = data.splits['train']
  assert train.images.shape == (2, 16, 16, 3) and train.images.dtype == np.uint8
  assert train.labels.tolist() == [0, 1] and train.labels.dtype == np.int32
  assert train.has_mask.tolist() == [True, True]
  assert train.groups == ('1', '1')
  np.testing.assert_array_equal(train.full_mask(0), disc(24, 20))


def test_images_are_squashed_with_antialiasing(folder):
  stripes = np.zeros((32, 64, 3), np.uint8)
  stripes[:, ::2] = 200  # Averages to 100 when the width is divided by 4.
  stripes[:16] //= 2
  Image.fromarray(stripes).save(folder.root / 'images' / 'a.png')
  image = folder.load().splits['train'].images[0]
  assert image.shape == (16, 16, 3)
  np.testing.assert_allclose(image[2:6, 4:12], 50, atol=2)
  np.testing.assert_allclose(image[10:14, 4:12], 100, atol=2)


@pytest.mark.parametrize('mode', ['L', 'P'])
def test_masks_of_classes(folder, mode):
  values = disc(24, 20).astype(np.uint8) + disc(24, 20, 0.1)
  folder.add('a', mask=False)
  Image.fromarray(values).convert(mode).save(folder.root / 'masks' / 'a.png')
  data = folder.load(mask_classes=('lesion', 'globule'), split_fractions=(1.0, 0.0, 0.0))
  full = data.splits['train'].full_mask(0)
  assert data.mask_classes == ('lesion', 'globule')
  assert full.dtype == np.uint8
  np.testing.assert_array_equal(full, values)
  assert set(np.unique(data.splits['train'].masks)) == {0, 1, 2}
  folder.refused(
    r'masks/a\.png holds the value 2, but config\.data\.mask_classes names 1 ',
    mask_classes=('lesion',),
  )


def test_images_of_16_bits(folder):
  values = np.linspace(0, 4095, 480).astype(np.uint16).reshape(20, 24)
  Image.fromarray(values).save(folder.root / 'images' / 'a.png')
  image = folder.load().splits['train'].images[0]
  assert image[0].max() < 20 and image[-1].min() > 235
  image = folder.load(window=(8000.0, 2.0)).splits['train'].images[0]
  assert not image.any()


@pytest.mark.parametrize('channels', [1, 3])
def test_channels(folder, channels):
  folder.add('a')
  assert folder.load(channels=channels).splits['train'].images.shape == (1, 16, 16, channels)


@pytest.mark.parametrize('highest', [1, 255])
def test_mask_values_may_be_1_or_255(folder, highest):
  folder.add('a', highest=highest)
  train = folder.load(split_fractions=(1.0, 0.0, 0.0)).splits['train']
  assert set(np.unique(train.masks)) == {0, 1}
  np.testing.assert_array_equal(train.full_mask(0), disc(24, 20))


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA'])
def test_masks_of_every_mode(folder, mode):
  folder.add('a', mask=False)
  Image.fromarray(disc(24, 20).astype(np.uint8) * 255).convert(mode).save(
    folder.root / 'masks' / 'a.png'
  )
  train = folder.load(split_fractions=(1.0, 0.0, 0.0)).splits['train']
  np.testing.assert_array_equal(train.full_mask(0), disc(24, 20))


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', '1'])
def test_images_of_every_mode(folder, mode):
  Image.fromarray(picture(20, 20)).convert(mode).save(folder.root / 'images' / 'a.png')
  assert folder.load().splits['train'].images.shape == (1, 16, 16, 3)


def test_an_empty_mask_is_a_mask(folder):
  folder.add('a', mask=False)
  Image.fromarray(np.zeros((20, 24), np.uint8)).save(folder.root / 'masks' / 'a.png')
  train = folder.load(split_fractions=(1.0, 0.0, 0.0)).splits['train']
  assert train.has_mask.tolist() == [True]
  assert not train.full_mask(0).any()


def test_a_photograph_turned_by_its_orientation_tag(folder):
  exif = Image.Exif()
  exif[0x0112] = 6  # To be shown turned by a quarter.
  values = picture(40, 32)
  Image.fromarray(values).save(folder.root / 'images' / 'a.png', exif=exif)
  Image.fromarray(disc(32, 40).astype(np.uint8) * 255).save(folder.root / 'masks' / 'a.png')
  train = folder.load(split_fractions=(1.0, 0.0, 0.0)).splits['train']
  expected = Image.fromarray(np.rot90(values, -1)).resize((16, 16), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(train.images[0], np.asarray(expected))


def test_large_photographs_are_averaged(folder):
  Image.fromarray(np.full((1500, 2000, 3), 90, np.uint8)).save(folder.root / 'images' / 'a.jpg')
  Image.fromarray(disc(2000, 1500)).save(folder.root / 'masks' / 'a.png')
  train = folder.load(split_fractions=(1.0, 0.0, 0.0)).splits['train']
  np.testing.assert_allclose(train.images, 90, atol=2)
  assert train.full_mask(0).shape == (1500, 2000)


def test_other_files_are_left_alone(complete):
  (complete.root / 'images' / '.DS_Store').write_text('x')
  (complete.root / 'images' / '._a.png').write_text('x')
  (complete.root / 'images' / 'Thumbs.db').write_text('x')
  (complete.root / 'masks' / 'notes.txt').write_text('x')
  data = complete.load()
  assert len(data.splits['train']) == 2
  (note,) = data.notes
  assert note.startswith(
    "what is ignored in masks/: 1 ('notes.txt'); only files count, and of these only such as end "
    'in .png'
  )


def test_what_is_passed_over_is_named(complete):
  (complete.root / 'images' / 'more').mkdir()
  for index in range(6):
    (complete.root / 'images' / f'{index}.gif').write_text('x')
  (complete.root / 'images' / 'desktop.ini').write_text('x')
  (note,) = complete.load().notes
  assert note.startswith(
    "what is ignored in images/: 7 ('0.gif', '1.gif', '2.gif', '3.gif', '4.gif', ...); only"
  )


@pytest.mark.parametrize('folder_name', ['images', 'masks'])
@pytest.mark.parametrize('kind', ['pipe', 'socket', 'folder'])
def test_what_is_no_file_is_never_opened(complete, folder_name, kind, monkeypatch):
  monkeypatch.chdir(complete.root / folder_name)  # A socket's path must be short.
  if kind == 'pipe':
    os.mkfifo('z.png')
  elif kind == 'socket':
    with socket.socket(socket.AF_UNIX) as end:
      end.bind('z.png')
  else:
    Path('z.png').mkdir()
  data = complete.load()
  assert data.splits['train'].ids == ('a', 'b')
  (note,) = data.notes
  assert note.startswith(f"what is ignored in {folder_name}/: 1 ('z.png'); only files count")


@pytest.mark.parametrize('kind', ['pipe', 'folder'])
def test_links_to_what_is_no_file_are_never_opened(complete, kind):
  target = complete.root / 'there'
  os.mkfifo(target) if kind == 'pipe' else target.mkdir()
  (complete.root / 'images' / 'z.png').symlink_to(target)
  complete.refused('z.png is a link to what is not a file; remove it')


def test_a_device_is_never_opened(complete):
  try:
    os.mknod(complete.root / 'images' / 'z.png', stat.S_IFCHR | 0o600, os.makedev(1, 5))
  except PermissionError:
    pytest.skip('only root makes devices')
  (note,) = complete.load().notes
  assert note.startswith("what is ignored in images/: 1 ('z.png')")


def test_a_pipe_in_the_place_of_the_table(complete):
  (complete.root / 'labels.csv').unlink()
  os.mkfifo(complete.root / 'labels.csv')
  complete.refused('labels.csv: is not a file')


@pytest.mark.parametrize('place', ['', 'images', 'masks', 'labels.csv', 'images/a.png', 'images/x'])
@pytest.mark.parametrize('code', [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_the_system_refuses_is_one_line(complete, place, code, monkeypatch):
  """Whether it refuses to list a folder, to tell of a file, or to read it, whatever its name."""
  refused = complete.root / place
  if place == 'images/x':
    refused.write_text('notes')

  def refusing(name):
    real = getattr(os, name)

    def call(path, *arguments, **options):
      if not isinstance(path, int) and os.fspath(path) == str(refused):
        raise OSError(code, os.strerror(code), str(path))
      return real(path, *arguments, **options)

    return call

  with monkeypatch.context() as patch:
    for name in ('listdir', 'scandir', 'stat', 'lstat'):
      patch.setattr(os, name, refusing(name))
    real = io.open
    patch.setattr(
      io, 'open', lambda path, *a, **o: refusing_open(path, refused, code) or real(path, *a, **o)
    )
    with pytest.raises(UserError) as caught:
      complete.load()
    assert os.strerror(code) in str(caught.value) and '\n' not in str(caught.value)
    assert 'damaged' not in str(caught.value)
  assert len(complete.load().splits['train']) == 2


def test_dicom_files_that_the_system_refuses_are_all_told(complete, monkeypatch):
  pytest.importorskip('pydicom')
  for name in 'xy':
    (complete.root / 'images' / f'{name}.dcm').write_bytes(b'')

  def refuse(path):
    raise UnavailableFile(f'images/{path.name} cannot be read (Input/output error)')

  monkeypatch.setattr(dicom, 'origin', refuse)
  listing = list_items(complete.config())
  assert listing.problems == [
    f'images/{name}.dcm cannot be read (Input/output error)' for name in 'xy'
  ]
  complete.refused('x.dcm cannot be read .*; images/y.dcm cannot be read')


def refusing_open(path, refused, code):
  if not isinstance(path, int) and os.fspath(path) == str(refused):
    raise OSError(code, os.strerror(code), str(path))


def test_columns_count_whatever_their_case(complete):
  text = (complete.root / 'labels.csv').read_text()
  expected = complete.load()
  complete.table(text.replace('image,label,split,group', 'Image, LABEL ,Split,Group\xa0'))
  data = complete.load()
  assert data.notes == ()
  for name, split in data.splits.items():
    assert (split.ids, split.groups) == (expected.splits[name].ids, expected.splits[name].groups)
    np.testing.assert_array_equal(split.labels, expected.splits[name].labels)
  complete.table(text.replace('label', 'Split'))
  complete.refused("has the column 'split' twice; keep one of them")


def test_columns_that_are_not_used_are_named(complete):
  text = (complete.root / 'labels.csv').read_text()
  complete.table(
    text.replace('label,split,group', 'labels,split,patient_id,,').replace('a,x', 'a.png,x')
  )
  data = complete.load()
  assert data.class_names == ()
  assert data.notes == (
    "labels.csv has columns that are not used: 'labels', 'patient_id'; those that count are "
    'image, label, split, group',
  )


@pytest.mark.parametrize('row', ['b,x, y,train,1', 'b,y,train,1,'])
def test_refuses_rows_that_are_longer_than_the_first_line(complete, row):
  complete.table(f'image,label,split,group\na,x,train,1\n{row}\n')
  complete.refused(
    'labels.csv line 3 has 5 cells for 4 columns; put a cell that holds a comma in double '
    'quotes, or'
  )
  listing = list_items(complete.config())
  assert len(listing.problems) == 1
  assert [item.name for item in listing.items if item.listed] == ['a']


# Names of masks, and what may be masks or labels.


def test_masks_that_are_named_otherwise_are_told_in_one_line_or_taken(complete):
  for path in (complete.root / 'masks').iterdir():
    path.rename(path.with_name(f'{path.stem}_mask.png'))
  assert complete.refused().endswith(
    '6 of 6 masks end in _mask; name them as their images, or set --config.data.mask_suffix=_mask'
  )
  data = complete.load(mask_suffix='_mask')
  assert data.notes == () and data.splits['train'].has_mask.all()
  np.testing.assert_array_equal(data.splits['train'].full_mask(0), disc(24, 20))
  (complete.root / 'masks' / 'a_mask.png').rename(complete.root / 'masks' / 'a.png')
  complete.refused(
    'masks/a.png has no _mask before its suffix, which config.data.mask_suffix says',
    mask_suffix='_mask',
  )


@pytest.mark.parametrize('forms', list(itertools.product(('NFC', 'NFD'), repeat=2)))
def test_the_suffix_of_masks_may_be_written_in_two_ways(folder, forms):
  own, told = (unicodedata.normalize(form, '_lésion') for form in forms)
  folder.add('a')
  (folder.root / 'masks' / 'a.png').rename(folder.root / 'masks' / f'a{own}.png')
  train = folder.load(mask_suffix=told, split_fractions=(1.0, 0.0, 0.0)).splits['train']
  assert (train.ids, train.has_mask.tolist()) == (('a',), [True])


def test_masks_of_which_some_only_are_named_otherwise(complete):
  for name in 'abc':
    (complete.root / 'masks' / f'{name}.png').rename(complete.root / 'masks' / f'{name}_GT.png')
  (complete.root / 'images' / 'd.png').unlink()
  complete.table('image\na\n')
  complete.refused(
    '3 of 6 masks end in _GT; name', r'; masks/d\.png has no image; add images/d\.jpg'
  )


def test_masks_among_the_images_are_told(complete):
  for name in 'ab':
    (complete.root / 'masks' / f'{name}.png').rename(complete.root / 'images' / f'{name}_mask.png')
  assert complete.load().notes[0] == (
    "images that are named as masks of others, and are read as images: 2 ('a_mask', 'b_mask'); "
    'move masks to masks/, under the names of their images'
  )


@pytest.mark.parametrize('name', ['Masks', 'mask', 'labels', 'GT'])
def test_a_folder_that_may_hold_the_masks_is_told(complete, name):
  (complete.root / 'masks').rename(complete.root / name)
  assert complete.load().notes[0] == (
    f'there is no folder masks/, so no image has a mask; other folders: {name!r}'
  )


@pytest.mark.parametrize('name', ['Labels.csv', 'label.csv', 'labels.xlsx', 'labels.tsv'])
def test_a_table_that_may_hold_the_labels_is_told(complete, name):
  (complete.root / 'labels.csv').rename(complete.root / name)
  (note,) = complete.load().notes
  assert note.startswith(
    f'there is no labels.csv, so no image has a label; other tables: {name!r}; save the one'
  )


def test_signs_are_classes(complete):
  text = (complete.root / 'labels.csv').read_text()
  complete.table(text.replace(',x', ',+').replace(',y', ',-'))
  data = complete.load()
  assert data.class_names == ('+', '-') and not data.notes
  assert data.splits['train'].labels.tolist() == [0, 1]


def test_labels_that_say_nothing_do_not_serve_classification(complete):
  text = (complete.root / 'labels.csv').read_text()
  complete.table(text.replace('a,x', 'a,nan').replace('b,y', 'b,Y') + ',,,\n')
  data = complete.load()
  assert data.class_names == ('Y', 'x', 'y')
  assert data.splits['train'].labels.tolist() == [-1, 0]
  assert [note.split(':')[0] for note in data.notes] == [
    "rows of labels.csv whose label is 'nan', which counts as none",
    'classes that differ in spelling alone, and are classes of their own',
  ]


# EXIF orientation of an image, and of its mask.


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('of_mask', [1, 6])
def test_orientations_that_differ_are_told(folder, orientation, of_mask):
  for part, tag, values in (
    ('images', orientation, picture(40, 32)),
    ('masks', of_mask, disc(40, 32).astype(np.uint8) * 255),
  ):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(values).save(folder.root / part / 'a.png', exif=exif)
  turns = [tag in (5, 6, 7, 8) for tag in (orientation, of_mask)]
  if turns[0] != turns[1]:
    size = f'is {"32x40" if turns[1] else "40x32"} but images/a.png is .* ' + re.escape(
      f'the image is turned by its EXIF orientation ({orientation}), the mask perhaps is not; '
      'save the image turned, or without the tag'
      if orientation != 1
      else 'the mask is turned by its EXIF orientation, the image is not; save the mask without'
    )
    folder.refused(size)
    return
  notes = [note for note in folder.load().notes if 'EXIF' in note]
  assert notes == (
    []
    if orientation == of_mask
    else [
      "images that are turned by their EXIF orientation, and their masks are not: 1 ('a'); look by "
      'prepare_data --check whether they fit'
    ]
  )


def test_sizes_that_differ_without_orientations_say_nothing_of_them(complete):
  Image.fromarray(disc(20, 24)).save(complete.root / 'masks' / 'b.png')
  assert 'EXIF' not in complete.refused('masks/b.png is 20x24 .* make them the same size')


# Accents: one letter, or a letter and an accent that follows it.


@pytest.mark.parametrize('forms', list(itertools.product(('NFC', 'NFD'), repeat=3)))
def test_accents_may_be_written_in_two_ways(folder, forms):
  image, mask, row = (unicodedata.normalize(form, 'lésion') for form in forms)
  folder.add(image)
  (folder.root / 'masks' / f'{image}.png').rename(folder.root / 'masks' / f'{mask}.png')
  for cell in (row, f'{row}.png'):
    (folder.root / 'labels.csv').write_text(
      f'image,label,split\n{cell},x,train\n', encoding='utf-8'
    )
    train = folder.load().splits['train']
    assert (train.ids, train.groups) == ((image,), (unicodedata.normalize('NFC', image),))
    assert train.has_mask.tolist() == [True] and train.labels.tolist() == [0]


def test_groups_may_be_written_in_two_ways(complete):
  composed, apart = (unicodedata.normalize(form, 'é') for form in ('NFC', 'NFD'))
  complete.table(f'image,split,group\na,train,{composed}\nb,test,{apart}\n')
  complete.refused("group 'é' is in split train")


def test_refuses_names_that_differ_by_how_an_accent_is_written(folder):
  for form in ('NFC', 'NFD'):
    folder.add(unicodedata.normalize(form, 'lésion'), mask=form == 'NFC')
  folder.refused('images/.*sion.png and images/.*sion.png have the same name; keep one of them')


def test_the_order_of_names_is_that_of_the_files(folder):
  names = [unicodedata.normalize('NFD', 'é'), 'z', 'ö']
  assert names == sorted(names)  # Composed, é comes after z.
  for name in names:
    folder.add(name, mask=False)
  assert folder.load().splits['train'].ids == tuple(names)


# Groups that are named like an image.


def test_a_row_joins_its_image_to_another_by_naming_it_as_the_group(complete):
  complete.table('image,group\na,c\nb,c\nc,\nd,\ne,\nf,\n')
  groups = {item.name: item.group for item in list_items(complete.config()).items}
  assert groups == {'a': 'c', 'b': 'c', 'c': 'c', 'd': 'd', 'e': 'e', 'f': 'f'}


def test_an_image_that_is_in_a_group_by_its_name_only_is_told_where_splits_differ(complete):
  complete.table('image,split,group\na,train,b\nb,test,\n')
  complete.refused(
    "give all of a group one split, or image 'b', which is in it by its name, another group$"
  )
  complete.table('image,split,group\na,train,p\nb,test,p\n')
  complete.refused('give all of a group one split$')


def test_spreadsheet_tables(complete):
  text = (
    (complete.root / 'labels.csv')
    .read_text()
    .replace('\n', '\r\n')
    .replace('image,label', ' image , label')
  )
  (complete.root / 'labels.csv').write_bytes(b'\xef\xbb\xbf' + text.encode())
  assert complete.load().class_names == ('x', 'y')


def test_rows_may_name_files(complete):
  text = (complete.root / 'labels.csv').read_text()
  complete.table(text.replace('a,x', 'a.png,x'))
  assert complete.load().splits['train'].labels.tolist() == [0, 1]


# Images without a mask, without a row; folders without a table.


def test_images_without_mask_or_row_serve_pretraining_only(complete):
  complete.add('g', mask=False).add('h').add('i', mask=False).add('j', mask=False)
  with (complete.root / 'labels.csv').open('a') as table:
    table.write('i,x,test,9\nj,,train,10\n')
  data = complete.load()
  train, test = data.splits['train'], data.splits['test']
  assert train.ids == ('a', 'b', 'g', 'h', 'j')
  assert train.has_mask.tolist() == [True, True, False, False, False]
  assert train.labels.tolist() == [0, 1, -1, -1, -1]
  assert not train.masks[2:].any()
  assert train.full_masks[2:] == (b'', b'', b'')
  assert test.ids == ('e', 'f', 'i')  # A row keeps its label and its split.
  assert test.has_mask.tolist() == [True, True, False]
  assert test.labels.tolist() == [0, 1, 0]
  unused, note = data.notes
  assert unused == (
    "masks that are NOT used, as their images have no row in labels.csv: 1 ('h.png'); add a row "
    'for each, its label may be empty'
  )
  # Not i, which is no training image.
  assert re.search(
    r'pre-training only: 3 \(without a mask: 1, of which 0 .*without a row in labels.csv: 2\)',
    note,
  )
  with pytest.raises(ValueError, match='g has no mask'):
    train.full_mask(2)


def test_no_masks_and_no_table(folder):
  for name in 'abc':
    folder.add(name, mask=False)
  (folder.root / 'masks').rmdir()
  data = folder.load()
  assert data.splits['train'].ids == ('a', 'b', 'c')
  assert data.class_names == ()
  assert len(data.splits['test']) == 0
  assert data.splits['test'].images.shape == (0, 16, 16, 3)
  assert 'pre-training only: 3' in data.notes[0]
  assert {note for note in data.notes if 'no image' in note} == {
    'the validation split holds no image',
    'the test split holds no image',
  }


def test_without_a_table_the_split_is_seeded(folder):
  for index in range(20):
    folder.add(f'i{index:02}')
  data = folder.load()
  assert {name: len(split) for name, split in data.splits.items()} == {
    'train': 14,
    'validation': 2,
    'test': 4,
  }
  assert folder.load().splits['test'].ids == data.splits['test'].ids
  assert folder.load(split_seed=1).splits['test'].ids != data.splits['test'].ids
  assert {
    name: len(split) for name, split in folder.load(split_fractions=(0.5, 0.5, 0.0)).splits.items()
  } == {
    'train': 10,
    'validation': 10,
    'test': 0,
  }
  assert (data.splits['train'].labels == -1).all()
  assert data.splits['train'].groups == data.splits['train'].ids


@pytest.mark.parametrize('seed', range(3))
def test_without_a_split_column_groups_stay_together(folder, seed):
  rows = ['image,label,group']
  for index in range(24):
    folder.add(f'i{index:02}', mask=index != 5)
    rows.append(f'i{index:02},{"xy"[index % 2]},patient{index // 3}')
  data = folder.table('\n'.join(rows)).load(split_seed=seed)
  groups = {name: set(split.groups) for name, split in data.splits.items()}
  assert not groups['train'] & groups['validation']
  assert not groups['train'] & groups['test']
  assert not groups['validation'] & groups['test']
  assert sum(len(split) for split in data.splits.values()) == 24
  # i05 has no mask; its group follows it.
  assert {'i03', 'i04', 'i05'} <= set(data.splits['train'].ids)
  assert min(len(split) for split in data.splits.values()) >= 3
  assert data.class_names == ('x', 'y')


# Wrong input.


def test_refuses_a_folder_without_images(tmp_path):
  (tmp_path / 'set').mkdir()
  config = DataConfig(name='folder', root=str(tmp_path / 'set'), image_size=16)
  with pytest.raises(UserError, match=r'set: there is no folder images/; put'):
    dataset.load(config, tmp_path)
  (tmp_path / 'set' / 'images').mkdir()
  with pytest.raises(UserError, match=r'images: holds no image; it should'):
    dataset.load(config, tmp_path)


def test_refuses_a_row_without_its_image(complete):
  complete.table('image,split\na,train\nzebra,train\n')
  complete.refused(
    "labels.csv line 3 names 'zebra', which is not in images/; add the image or remove the row"
  )


@pytest.mark.parametrize('name', ['../a', 'sub/a', '..', 'sub\\a', '/etc/passwd', ''])
def test_refuses_names_with_directories(complete, name):
  complete.table(f'image,split\n{name},train\n')
  complete.refused('line 2: .* is not an image name; write the bare name')


def test_refuses_a_mask_without_its_image(complete):
  (complete.root / 'images' / 'c.png').unlink()
  complete.table('image,split\na,train\n')
  complete.refused(r'masks/c.png has no image; add images/c.jpg .* or remove the mask')


def test_refuses_sizes_that_differ(complete):
  Image.fromarray(disc(30, 20)).save(complete.root / 'masks' / 'b.png')
  complete.refused(r'masks/b.png is 30x20 but images/b.png is 24x20 .*make them the same size')


def test_refuses_masks_that_are_not_binary(complete):
  values = disc(24, 20).astype(np.uint8) * 255
  values[0, :3] = 7, 128, 254
  Image.fromarray(values).save(complete.root / 'masks' / 'e.png')
  complete.refused(
    r'masks/e.png is not binary: its values are 0, 7, 128, 254, 255; it may hold 0 and 1, or 0 '
    r'and 255'
  )


@pytest.mark.parametrize('values', [(0, 2), (1, 255), (0, 1, 255), (128,)])
def test_refuses_other_pairs_of_mask_values(folder, values):
  folder.add('a', mask=False)
  Image.fromarray(np.resize(np.array(values, np.uint8), (20, 24))).save(
    folder.root / 'masks' / 'a.png'
  )
  folder.refused(f'not binary: its values are {", ".join(map(str, values))};')


def test_refuses_colour_masks(complete):
  Image.fromarray(picture(24, 20)).save(complete.root / 'masks' / 'a.png')
  complete.refused('masks/a.png is a colour image; a mask has one channel')


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_refuses_truncated_files_or_skips_and_lists_them(complete, suffix):
  complete.add('g', 200, 200, suffix=suffix)
  path = complete.root / 'images' / f'g{suffix}'
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  complete.refused(
    f'images/g{suffix} is damaged or not an image; replace it, or .*--config.data.skip_unreadable'
  )
  data = complete.load(skip_unreadable=True)
  assert data.splits['train'].ids == ('a', 'b')
  assert f'unreadable files skipped: 1 (images/g{suffix})' in data.notes


def test_an_unreadable_mask_drops_its_image(complete):
  (complete.root / 'masks' / 'a.png').write_text('not an image')
  complete.refused('masks/a.png is damaged')
  data = complete.load(skip_unreadable=True)
  assert data.splits['train'].ids == ('b',)
  assert data.notes == ('unreadable files skipped: 1 (masks/a.png)',)


def test_a_split_of_unreadable_files_only(folder):
  folder.add('a')
  (folder.root / 'images' / 'a.png').write_text('not an image')
  folder.refused('images/a.png is damaged')
  folder.refused(r'no image of a split can be read \(images/a.png', skip_unreadable=True)


def test_refuses_duplicate_rows(complete):
  complete.table('image,split\na,train\nb,test\na.png,test\n')
  complete.refused("line 4: 'a.png' has a row already; keep one of them")


def test_refuses_two_files_of_one_name(complete):
  Image.fromarray(picture(24, 20)).save(complete.root / 'images' / 'a.jpg')
  complete.refused(r'images/a.jpg and images/a.png have the same name; keep one')


@pytest.mark.parametrize('split', ['val', ''])
def test_refuses_unknown_splits(complete, split):
  complete.table(f'image,split\na,{split}\n')
  complete.refused(f"line 2: split of 'a' is '{split}'; it may be train, validation, test")


@pytest.mark.parametrize('header', ['', 'name,label', 'name;label;split'])
def test_refuses_tables_without_an_image_column(complete, header):
  complete.table(header + '\na,b\n' if header else '')
  complete.refused(
    r'labels.csv: has no column image, only \[.*its first line should be image,label,split,group'
  )


def test_refuses_tables_that_are_not_text(complete):
  (complete.root / 'labels.csv').write_bytes(b'image,label\na,\xff\xfe\n')
  complete.refused('labels.csv: cannot be read as comma-separated UTF-8 text')


def test_refuses_groups_that_cross_splits(complete):
  complete.table('image,split,group\na,train,p\nb,train,p\nc,test,p\n')
  complete.refused(
    r"group 'p' is in split train \(image 'a'\) and in test \(image 'c'\); give all of a group "
    r'one split'
  )


def test_shows_the_first_problems_and_counts_the_rest(complete):
  complete.table('image\n' + ''.join(f'missing{index}\n' for index in range(10)))
  message = complete.refused('missing0', 'missing2', 'and 7 more like these')
  assert 'missing3' not in message


def test_shows_problems_of_several_files(complete):
  for name in 'acde':
    Image.fromarray(disc(9, 9)).save(complete.root / 'masks' / f'{name}.png')
  complete.add('cc', highest=7)
  with (complete.root / 'labels.csv').open('a') as table:
    table.write('cc,x,validation,8\n')
  complete.refused(
    'masks/a.png is 9x9',
    'masks/c.png is 9x9',
    'masks/cc.png is not binary',
    'and 1 more like these',
  )
