"""Looking at a whole data set: what is kept of an image, the numbers, and what is found."""

import builtins
import errno
import functools
import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.audit.finding import ERROR, LEVELS, NOTE, WARNING
from ahm_jax.errors import UserError


@functools.cache
def scene(seed: int, width: int = 48, height: int = 40) -> np.ndarray:
  rng = np.random.default_rng(seed)
  noise = sum(
    ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (s, s, 0)) * s
    for s in (1, 2, 4, 8)
  )
  return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


def box(width: int = 48, height: int = 40) -> np.ndarray:
  """A mask that covers a quarter of the image: bool [height, width]."""
  mask = np.zeros((height, width), bool)
  mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
  return mask


class Folder:
  """A folder under construction: `add` an image with its row, then `look`."""

  def __init__(self, root):
    self.root = root
    self.rows = ['image,label,split,group']
    (root / 'images').mkdir(parents=True)
    (root / 'masks').mkdir()

  def add(self, name, split='train', label='', group='', pixels=None, mask='box', suffix='.png'):
    pixels = scene(len(self.rows)) if pixels is None else pixels
    Image.fromarray(pixels).save(self.root / 'images' / f'{name}{suffix}')
    if mask is not None:
      mask = box(pixels.shape[1], pixels.shape[0]) if isinstance(mask, str) else mask
      Image.fromarray(mask).save(self.root / 'masks' / f'{name}.png')
    self.rows.append(f'{name},{label},{split},{group}')
    return self

  def look(self, **fields):
    """What was seen, and the findings by their codes."""
    (self.root / 'labels.csv').write_text('\n'.join(self.rows) + '\n')
    config = DataConfig(name='folder', root=str(self.root), image_size=32, **fields)
    seen = inspection.inspect(config, lambda *_: b'')
    return seen, {finding.code: finding for finding in findings.find(seen, config)}


@pytest.fixture
def folder(tmp_path):
  return Folder(tmp_path / 'set')


@pytest.fixture
def sound(folder):
  """Two classes, five images of each in each split; nothing is wrong."""
  for split in ('train', 'validation', 'test'):
    for index in range(10):
      folder.add(f'{split}{index}', split, 'ab'[index % 2], f'{split}{index // 2}')
  return folder


def said(finding) -> list[str]:
  return [case.text for case in finding.cases]


# What is kept of an image.


def test_what_is_kept_of_an_image(folder):
  mask = np.zeros((40, 48), np.uint8)
  mask[:4, :12] = 255
  pixels = scene(0)
  folder.add('a', 'test', 'x', 'g', pixels, mask)
  (image,) = folder.look()[0].images
  assert (image.name, image.file, image.split, image.label, image.group) == (
    'a',
    'images/a.png',
    'test',
    'x',
    'g',
  )
  assert (image.width, image.height, image.kind, image.listed) == (48, 40, 'colour, 8 bit', True)
  assert image.contrast == pytest.approx(pixels.mean(2).std(), rel=1e-6)
  assert image.mask.coverage == (pytest.approx(48 / 1920),) and image.mask.borders == 2
  assert (
    image.print.file == hashlib.sha256((folder.root / 'images' / 'a.png').read_bytes()).digest()
  )
  assert image.mask.small.sum() / 255 == pytest.approx(48 / 1920 * 32 * 32, rel=0.1)


def test_classes_of_masks(folder):
  mask = np.zeros((40, 48), np.uint8)
  mask[10:20, 10:30], mask[20:25, 10:20] = 1, 3
  folder.add('a', mask=mask).add('b', mask=None)
  seen, found = folder.look(mask_classes=('disc', 'cup', 'vessel'))
  assert seen.images[0].mask.coverage == pytest.approx((200 / 1920, 0, 50 / 1920))
  numbers = inspection.numbers(seen, ('disc', 'cup', 'vessel'))
  assert numbers['coverage'] == {
    'disc': {'masks': 1, 'share': [pytest.approx(200 / 1920)] * 3},
    'cup': {'masks': 0, 'share': None},
    'vessel': {'masks': 1, 'share': [pytest.approx(50 / 1920)] * 3},
  }
  assert 'cup: in 0 masks of train' in said(found['rare_mask_class'])


@pytest.mark.parametrize(
  ('pixels', 'kind'),
  [
    (scene(1)[..., 0], 'grey, 8 bit'),
    (scene(1)[..., 0].astype(np.uint16) * 257, 'grey, 16 bit'),
    (scene(1)[..., 0] > 128, '1 bit'),
    (np.dstack([scene(1), scene(2)[..., 0]]), 'colour and alpha, 8 bit'),
  ],
)
def test_kinds_of_files(sound, pixels, kind):
  sound.add('odd', pixels=pixels, label='a')
  seen, found = sound.look()
  assert said(found['other_kind']) == [f'train/odd ({kind})'] and found['other_kind'].level == NOTE
  assert inspection.numbers(seen)['kinds'] == {'colour, 8 bit': 30, kind: 1}


def test_numbers(folder):
  folder.add('a', 'train', 'x', 'p').add('b', 'train', 'y', 'p').add(
    'c', 'train', 'x', 'q', mask=None
  )
  folder.add('d', 'test', 'y', 'r', scene(9, 96, 48)).add('e', 'validation')
  (folder.root / 'images' / 'e.png').write_text('no image')
  numbers = inspection.numbers(folder.look()[0])
  train = {
    'images': 3,
    'unreadable': 0,
    'masks': 2,
    'labels': 3,
    'groups': 2,
    'classes': {'x': 2, 'y': 1},
  }
  assert numbers['splits']['train'] == train
  assert numbers['splits']['validation'] == {
    'images': 0, 'unreadable': 1, 'masks': 0, 'labels': 0, 'groups': 0, 'classes': {}
  }  # fmt: skip
  assert numbers['sizes'] == {
    'width': [48, 48, 96],
    'height': [40, 40, 48],
    'aspect': [1.2, 1.2, 2.0],
  }
  assert numbers['coverage'] == {'lesion': {'masks': 3, 'share': [0.25] * 3}}


def test_phantoms():
  config = DataConfig(image_size=32, phantom=PhantomConfig(train=12, validation=6, test=6))
  seen = inspection.inspect(config, lambda *_: b'')
  assert {name: split['images'] for name, split in inspection.numbers(seen)['splits'].items()} == {
    'train': 12,
    'validation': 6,
    'test': 6,
  }
  assert findings.worst(findings.find(seen, config)) != ERROR


# What is found.


def test_nothing_is_found_in_a_sound_set(sound):
  seen, found = sound.look()
  assert found == {} and seen.layout == seen.problems == seen.crossing == ()
  assert findings.worst([]) is None


def test_all_that_is_wrong_with_the_layout_is_told(sound):
  for index in range(5):
    sound.rows.append(f'missing{index},a,train,')
  (sound.root / 'masks' / 'spare.png').write_bytes(
    (sound.root / 'masks' / 'test0.png').read_bytes()
  )
  sound.rows[1] = sound.rows[1].replace('train', 'dev')
  found = sound.look()[1]
  assert found['layout'].level == ERROR and len(found['layout'].cases) == 7
  assert any('masks/spare.png has no image' in line for line in said(found['layout']))


def test_groups_in_several_splits(sound):
  sound.add('x', 'train', 'a', 'patient').add('y', 'test', 'b', 'patient')
  seen, found = sound.look()
  assert found['group_in_several_splits'].level == ERROR and seen.layout == ()
  assert "group 'patient' is in split train" in said(found['group_in_several_splits'])[0]


def test_unreadable_and_unsupported_files_are_all_told(sound):
  for name in ('train0', 'train1', 'train2', 'train3'):
    (sound.root / 'images' / f'{name}.png').write_bytes(b'broken')
  (sound.root / 'masks' / 'test0.png').write_bytes(b'broken')
  Image.fromarray(box(20, 20)).save(sound.root / 'masks' / 'test1.png')
  Image.fromarray(box().astype(np.uint8) * 7).save(sound.root / 'masks' / 'test2.png')
  seen, found = sound.look()
  assert len(seen.images) == 26  # An image whose mask is wrong is looked at all the same.
  assert found['unreadable'].level == ERROR and len(found['unreadable'].cases) == 5
  assert any(
    'masks/test1.png is 20x20 but images/test1.png is 48x40' in line
    for line in said(found['unsupported'])
  )
  assert any('masks/test2.png is not binary' in line for line in said(found['unsupported']))
  assert inspection.numbers(seen)['splits']['train']['unreadable'] == 4
  assert inspection.numbers(seen)['splits']['test']['masks'] == 7
  assert sound.look(skip_unreadable=True)[1]['unreadable'].level == WARNING


@pytest.mark.parametrize('part', ['images', 'masks'])
def test_files_that_the_system_refuses_are_told_and_the_rest_is_looked_at(sound, part, monkeypatch):
  refused = sound.root / part / 'train0.png'
  real = io.open

  def refusing(path, *arguments, **options):
    if not isinstance(path, int) and os.fspath(path) == str(refused):
      raise PermissionError(errno.EACCES, 'Permission denied', str(path))
    return real(path, *arguments, **options)

  monkeypatch.setattr(io, 'open', refusing)
  monkeypatch.setattr(builtins, 'open', refusing)
  (sound.root / 'images' / 'train1.png').write_bytes(b'broken')
  seen, found = sound.look(skip_unreadable=True)
  (line,) = said(found['unavailable'])
  assert line.startswith(f'{part}/train0.png cannot be read (Permission denied)')
  assert found['unavailable'].level == ERROR and len(found['unreadable'].cases) == 1
  assert len(seen.images) == (28 if part == 'images' else 29)


def test_lesions_that_vanish_are_told(sound):
  small = np.zeros((400, 480), bool)
  small[100:106, 203:209] = True
  pixels = scene(70, 480, 400)
  found = sound.add('a', label='a', pixels=pixels, mask=small).look()[1]['vanishing_lesion']
  assert (found.level, said(found)) == (WARNING, ['train/a'])
  assert found.what == (
    'in 1 of 31 masks the lesion vanishes at image_size=32; from 64 on it does not'
  )


def test_lesions_that_vanish_from_all_that_is_trained_on_are_an_error(folder):
  small = np.zeros((400, 480), bool)
  small[100:106, 203:209] = True
  for split in ('train', 'test'):
    folder.add(split, split, pixels=scene(70, 480, 400), mask=small)
  found = folder.add('empty', mask=np.zeros((40, 48), bool)).look()[1]['vanishing_lesion']
  assert found.level == ERROR and said(found) == ['test/test', 'train/train']


def test_classes_that_vanish_are_told_by_name(sound):
  mask = np.zeros((400, 480), np.uint8)
  mask[100:200, 100:200], mask[150:156, 150:156] = 1, 2
  sound.add('a', label='a', pixels=scene(70, 480, 400), mask=mask)
  for path in (sound.root / 'masks').glob('t[re]*.png'):
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)
  for path in (sound.root / 'masks').glob('v*.png'):
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)
  found = sound.look(mask_classes=('disc', 'cup'))[1]['vanishing_lesion']
  assert said(found) == ['train/a (cup)']
  assert found.what.startswith('in 1 of 1 masks the class cup vanishes at image_size=32; from ')


@pytest.mark.parametrize(('orientation', 'of_mask'), [(3, 1), (2, 1), (3, 2), (3, 3)])
def test_images_that_are_turned_without_their_masks_are_told(sound, orientation, of_mask):
  sound.add('a', label='a')
  for part, tag in (('images', orientation), ('masks', of_mask)):
    path, exif = sound.root / part / 'a.png', Image.Exif()
    exif[0x0112] = tag
    Image.open(path).copy().save(path, exif=exif)
  found = sound.look()[1]
  if orientation == of_mask:
    assert found == {}
    return
  turned = found['turned_image']
  assert turned.level == WARNING
  assert said(turned) == [f'train/a (orientation {orientation})']


def test_images_that_are_turned_and_have_no_mask_are_as_they_are(sound):
  exif = Image.Exif()
  exif[0x0112] = 3
  sound.add('a', label='a', mask=None)
  path = sound.root / 'images' / 'a.png'
  Image.open(path).copy().save(path, exif=exif)
  assert 'turned_image' not in sound.look()[1]


def test_a_set_of_which_nothing_can_be_read(folder):
  folder.add('a')
  (folder.root / 'images' / 'a.png').write_bytes(b'')
  seen, found = folder.look()
  assert found['unreadable'].level == ERROR and seen.images == ()
  assert inspection.numbers(seen)['sizes'] == {'width': None, 'height': None, 'aspect': None}


def test_masks_that_are_empty_full_or_inverted(sound):
  empty, full = np.zeros((40, 48), bool), np.ones((40, 48), bool)
  sound.add('none', label='a', mask=empty).add('all', label='a', mask=full).add(
    'inverted', label='a', mask=~box()
  )
  seen, found = sound.look()
  assert {code: said(finding) for code, finding in found.items()} == {
    'empty_mask': ['train/none'],
    'full_mask': ['train/all'],
    'mask_at_every_border': ['train/inverted'],
  }
  assert {finding.level for finding in found.values()} == {WARNING}
  (index,) = found['empty_mask'].cases[0].images
  assert seen.images[index].name == 'none'


def test_masks_that_are_all_empty_are_an_error_whatever_their_class(folder):
  for index in range(20):
    split = ('train', 'validation', 'test')[index % 3]
    folder.add(f'a{index}', split, 'a', mask=np.zeros((40, 48), bool))
  found = folder.look()[1]
  assert found['no_lesion'].level == ERROR and said(found['no_lesion']) == ['20 masks']
  assert 'no_lesion' not in folder.add('b', label='a', mask=box()).look()[1]


def test_a_class_with_nothing_to_find(sound):
  empty = np.zeros((40, 48), bool)
  for index in range(18):
    sound.add(f'normal{index}', ('train', 'validation', 'test')[index % 3], 'normal', mask=empty)
  found = sound.add('none', label='a', mask=empty).look()[1]
  assert said(found['empty_mask']) == ['train/none']
  assert (
    found['empty_mask_of_class'].level == NOTE and len(found['empty_mask_of_class'].cases) == 18
  )
  assert found['empty_mask_of_class'].what.endswith('of their class (normal)')


def test_images_that_are_blank_small_or_long(sound):
  sound.add('black', label='a', pixels=np.zeros((40, 48, 3), np.uint8))
  sound.add('black_too', 'test', label='b', pixels=np.zeros((40, 48, 3), np.uint8))
  sound.add('small', label='a', pixels=scene(77, 48, 31)).add(
    'long', label='b', pixels=scene(78, 110, 40)
  )
  found = sound.look()[1]
  assert said(found.pop('blank_image')) == ['train/black', 'test/black_too']
  assert said(found.pop('small_image')) == ['train/small (48x31)']
  assert said(found.pop('long_image')) == ['train/long (110x40)']
  assert found == {}  # Blank images are not told as duplicates.


def test_small_classes_and_missing_masks_labels_rows(sound):
  sound.add('rare', label='c', mask=None).add('unknown')
  sound.add('rowless', mask=None)
  sound.rows.pop()
  found = sound.look()[1]
  assert said(found['small_class']) == ['c: 1 in train', 'c: 0 in validation', 'c: 0 in test']
  assert said(found['no_mask']) == ['train/rare']
  assert said(found['no_row']) == ['train/rowless']
  assert said(found['no_label']) == ['train/rowless', 'train/unknown']
  assert found['small_class'].level == WARNING and found['no_mask'].level == NOTE


def test_empty_splits_and_splits_without_masks(folder):
  folder.add('a').add('b', 'test', mask=None)
  found = folder.look()[1]
  assert said(found['empty_split']) == ['validation']
  assert said(found['split_without_masks']) == ['validation', 'test']


# Duplicates.


def test_copies_across_splits_are_errors(sound):
  original = np.asarray(Image.open(sound.root / 'images' / 'train3.png'))
  sound.add('jpeg', 'test', 'b', 'g', pixels=original, suffix='.jpg')
  sound.add('flipped', 'validation', 'b', pixels=np.ascontiguousarray(original[:, ::-1]))
  sound.add('copy', 'test', 'b', 'g', pixels=original)
  found = sound.look()[1]
  assert set(found) == {'same_image_across_splits', 'near_duplicate_across_splits'}
  assert said(found['same_image_across_splits']) == ['test/copy and train/train3 (the same file)']
  near = said(found['near_duplicate_across_splits'])
  assert {tuple(sorted(line.split(' (')[0].split(' and '))) for line in near} == {
    ('test/copy', 'validation/flipped'),
    ('test/jpeg', 'train/train3'),
    ('test/jpeg', 'validation/flipped'),
    ('train/train3', 'validation/flipped'),
  }
  assert all(('flipped left to right' in line) == ('validation' in line) for line in near)
  assert {finding.level for finding in found.values()} == {ERROR}


def test_copies_in_a_split_are_warnings_and_in_a_group_notes(sound):
  original = np.asarray(Image.open(sound.root / 'images' / 'train3.png'))
  small = np.asarray(Image.fromarray(original).resize((40, 34)))
  sound.add('other_group', 'train', 'b', pixels=original).add('small', 'train', 'b', 'x', small)
  sound.add('in_group', 'train', 'b', 'other_group', original)
  found = sound.look()[1]
  assert {code: finding.level for code, finding in found.items()} == {
    'same_image': WARNING,
    'near_duplicate': WARNING,
    'same_image_in_group': NOTE,
  }
  assert said(found['same_image_in_group']) == [
    'train/in_group and train/other_group (the same file)'
  ]


def test_copies_with_other_masks_or_labels(sound):
  original = np.asarray(Image.open(sound.root / 'images' / 'train3.png'))
  flipped = np.ascontiguousarray(original[::-1])
  mask = np.zeros((40, 48), bool)
  mask[:20, :24] = True
  sound.add('other_label', 'train', 'a', 'train1', original)
  sound.add('other_mask', 'train', 'b', 'train1', original, mask=mask)
  sound.add('flipped_with_mask', 'train', 'b', 'y', flipped)
  found = sound.look()[1]
  assert said(found['labels_differ'])[0].startswith(
    'train/other_label and train/other_mask (the same file): a and b'
  )
  (line,) = said(found['masks_differ'])
  # The boxes share 10 x 12 pixels of 20 x 24 each: 120 / (480 + 480 - 120).
  assert (
    line
    == f'train/other_label and train/other_mask (the same file): masks overlap by {120 / 840:.2f}'
  )
  assert found['masks_differ'].level == found['labels_differ'].level == WARNING


def deep_png(values) -> bytes:
  """A PNG of 16 bits a channel, which Pillow does not write: uint16 [H, W, 2 (grey and alpha), 3
  or 4].
  """

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  height, width, channels = values.shape
  header = struct.pack('>IIBBBBB', width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(rows))
    + chunk(b'IEND', b'')
  )


@pytest.mark.parametrize('channels', [2, 3, 4])
@pytest.mark.parametrize(('factor', 'is_dark'), [(16, True), (257, False)])
def test_deep_colours_that_use_their_low_bits_only(sound, channels, factor, is_dark):
  sound.add('deep', label='a', pixels=scene(1))
  values = np.dstack([scene(1), scene(2)])[..., :channels].astype(np.uint16) * factor
  (sound.root / 'images' / 'deep.png').write_bytes(deep_png(values))
  seen, found = sound.look()
  (image,) = (image for image in seen.images if image.name == 'deep')
  alpha = 1 - channels % 2
  assert image.kind == ('colour and alpha, ' if alpha else 'colour, ') + '16 bit a channel'
  assert image.highest == values[..., : channels - alpha].max() >> 8
  assert ('dark_image' in found) == is_dark
  if is_dark:
    assert said(found['dark_image']) == ['train/deep'] and found['dark_image'].level == WARNING


def test_dark_images_of_8_bits_are_as_they_are(sound):
  sound.add('night', label='a', pixels=scene(1) // 8)
  assert 'dark_image' not in sound.look()[1]


def test_pages_of_a_tiff_beyond_the_first_are_told(sound):
  pages = [Image.fromarray(scene(seed)) for seed in range(90, 93)]
  sound.add('pages', label='a', pixels=scene(90), suffix='.tif')
  assert 'more_pages' not in sound.look()[1]
  pages[0].save(sound.root / 'images' / 'pages.tif', save_all=True, append_images=pages[1:])
  seen, found = sound.look()
  assert (
    said(found['more_pages']) == ['train/pages (3 pages)'] and found['more_pages'].level == WARNING
  )
  assert len(seen.images) == 31


def test_two_voxel_sizes_in_one_header_are_told_once_a_volume(sound, write_nifti):
  path = sound.root / 'images' / 'v.nii'
  values = np.stack([scene(seed)[..., 0] for seed in range(3)], -1)
  write_nifti(path, values, np.diag([1, 2, 3, 1]))
  sound.rows.append('v,a,train,')
  assert 'voxel_size' not in sound.look()[1]
  data = bytearray(path.read_bytes())
  struct.pack_into('<3f', data, 80, 1, 1, 3)  # The voxel sizes of pixdim.
  path.write_bytes(data)
  (case,) = said(sound.look()[1]['voxel_size'])
  assert case == 'train/v_s0000 (1x2x3 by its sform, 1x1x3 by its pixdim)'


def test_notes_of_the_listing_are_a_finding(sound):
  (sound.root / 'masks' / 'old').mkdir()
  sound.rows[0] = 'image,label,split,Patient'
  found = sound.look()[1]
  first, second = said(found['reading'])
  assert first.startswith("what is ignored in masks/: 1 ('old')")
  assert second.startswith("labels.csv has columns that are not used: 'Patient'")
  assert found['reading'].level == WARNING


def test_what_cannot_be_listed_is_refused(tmp_path):
  config = DataConfig(name='folder', root=str(tmp_path), image_size=32)
  with pytest.raises(UserError, match='there is no folder images/'):
    inspection.inspect(config, lambda *_: b'')


def test_findings_are_ordered_by_level(sound):
  sound.add('none', label='a', mask=np.zeros((40, 48), bool)).add('bare', label='a', mask=None)
  (sound.root / 'images' / 'train0.png').write_bytes(b'broken')
  levels = [finding.level for finding in sound.look()[1].values()]
  assert levels == sorted(levels, key=LEVELS.index) and set(levels) == {
    ERROR,
    WARNING,
    NOTE,
  }


def test_volumes_are_looked_at_slice_by_slice(folder):
  nibabel = pytest.importorskip('nibabel')
  volume = np.stack([scene(seed)[..., 0] for seed in range(4)], axis=2).astype(np.int16)
  mask = np.zeros(volume.shape, np.uint8)
  mask[10:30, 10:30, 1] = 1
  for kind, values in (('images', volume), ('masks', mask)):
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder.root / kind / 'v.nii.gz')
  folder.rows.append('v,,train,')
  seen, found = folder.look(every_slice=1)
  assert [image.name for image in seen.images] == ['v_s0000', 'v_s0001', 'v_s0002', 'v_s0003']
  assert {image.group for image in seen.images} == {'v'} and len(found['empty_mask'].cases) == 3
  assert seen.images[1].mask.coverage == (pytest.approx(400 / 1920),)
  assert [image.name for image in folder.look(every_slice=2)[0].images] == ['v_s0000', 'v_s0002']
