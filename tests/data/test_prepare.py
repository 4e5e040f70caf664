"""Preparation that is never stale or half done."""

import builtins
import dataclasses
import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import dataset, manifest, records, sets
from ahm_jax.data import prepare as module
from ahm_jax.data.prepare import cache_key, prepare
from ahm_jax.data.sets import isic2018
from ahm_jax.errors import UserError

TINY = DataConfig(image_size=16, phantom=PhantomConfig(train=3, validation=1, test=1))


@pytest.fixture
def folder(tmp_path):
  """Four images with masks, and the config that reads them."""
  root = tmp_path / 'set'
  for part in ('images', 'masks'):
    (root / part).mkdir(parents=True)
  for index in range(4):
    Image.fromarray(np.full((16, 16, 3), 50 * index, np.uint8)).save(
      root / 'images' / f'{index}.png'
    )
    Image.fromarray(np.eye(16, dtype=bool)).save(root / 'masks' / f'{index}.png')
  (root / 'labels.csv').write_text(
    'image,label,split\n0,x,train\n1,y,train\n2,x,validation\n3,y,test\n'
  )
  return DataConfig(name='folder', root=str(root), image_size=16)


def test_prepared_data_are_used_again(tmp_path):
  path = prepare(TINY, tmp_path)
  assert path.parent == tmp_path / 'data'
  before = sorted((item.name, item.stat().st_mtime_ns) for item in path.iterdir())
  assert prepare(TINY, tmp_path) == path
  assert sorted((item.name, item.stat().st_mtime_ns) for item in path.iterdir()) == before


def test_prepared_dir_takes_the_place_of_the_workdir(tmp_path):
  config = dataclasses.replace(TINY, prepared_dir=str(tmp_path / 'elsewhere'))
  assert prepare(config, tmp_path / 'work').parent == tmp_path / 'elsewhere'
  assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
  'changes',
  [
    dict(image_size=32),
    dict(channels=1),
    dict(split_seed=1),
    dict(phantom=PhantomConfig(train=4, validation=1, test=1)),
  ],
)
def test_another_phantom_config_is_another_preparation(tmp_path, changes):
  other = dataclasses.replace(TINY, **changes)
  first = dataset.load(TINY, tmp_path)
  second = dataset.load(other, tmp_path)
  assert prepare(TINY, tmp_path) != prepare(other, tmp_path)
  shapes = [data.splits['train'].images.shape for data in (first, second)]
  assert (
    shapes[0] != shapes[1] or (first.splits['train'].images != second.splits['train'].images).any()
  )


def test_what_does_not_change_the_data_does_not_prepare_them_again(tmp_path):
  other = dataclasses.replace(TINY, labels=2, resident_share=0.0, root='unused')
  assert prepare(TINY, tmp_path) == prepare(other, tmp_path)


@pytest.mark.parametrize(
  'changes',
  [
    dict(mask_classes=('a',)),
    dict(mask_classes=('b',)),
    dict(window=(40.0, 400.0)),
    dict(slice_axis=1),
    dict(every_slice=2),
  ],
)
def test_another_way_of_reading_is_another_preparation(folder, tmp_path, changes):
  other = dataclasses.replace(folder, **changes)
  assert prepare(folder, tmp_path) != prepare(other, tmp_path)


def test_changed_files_are_read_again(folder, tmp_path):
  root = tmp_path / 'set'
  assert dataset.load(folder, tmp_path).splits['train'].images[:, 0, 0, 0].tolist() == [0, 50]
  Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(root / 'images' / '1.png')
  assert dataset.load(folder, tmp_path).splits['train'].images[:, 0, 0, 0].tolist() == [0, 99]
  (root / 'labels.csv').write_text(
    'image,label,split\n0,x,train\n1,x,train\n2,x,validation\n3,y,test\n'
  )
  assert dataset.load(folder, tmp_path).splits['train'].labels.tolist() == [0, 0]
  (root / 'masks' / '0.png').unlink()
  assert dataset.load(folder, tmp_path).splits['train'].has_mask.tolist() == [False, True]
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(root / 'images' / '4.png')
  assert dataset.load(folder, tmp_path).splits['train'].ids == ('0', '1', '4')


def test_a_copy_of_the_same_size_and_time_is_read_again(folder, tmp_path):
  """As `cp -p` and archives write it."""
  path = tmp_path / 'set' / 'images' / '1.bmp'
  (tmp_path / 'set' / 'images' / '1.png').unlink()
  Image.fromarray(np.full((16, 16, 3), 50, np.uint8)).save(path)
  before, held = prepare(folder, tmp_path), path.stat()
  Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(path)
  os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))
  assert path.stat().st_size == held.st_size
  assert prepare(folder, tmp_path) != before
  assert dataset.load(folder, tmp_path).splits['train'].images[:, 0, 0, 0].tolist() == [0, 99]


def test_dot_files_do_not_prepare_again(folder, tmp_path):
  before = prepare(folder, tmp_path)
  for name in ('.DS_Store', '._0.png'):
    (tmp_path / 'set' / 'images' / name).write_bytes(b'of the system')
    (tmp_path / 'set' / 'masks' / name).write_bytes(b'of the system')
  assert prepare(folder, tmp_path) == before


def test_a_failed_preparation_leaves_nothing_to_be_taken_for_data(folder, tmp_path):
  broken = tmp_path / 'set' / 'images' / '3.png'
  whole = broken.read_bytes()
  broken.write_bytes(whole[:40])
  for _ in range(2):
    with pytest.raises(UserError, match=r'images/3.png is damaged'):
      dataset.load(folder, tmp_path)
  assert not [item for item in (tmp_path / 'data').iterdir() if item.is_dir()]
  broken.write_bytes(whole)
  assert len(dataset.load(folder, tmp_path).splits['test']) == 1


@pytest.mark.parametrize('skip', [False, True])
@pytest.mark.parametrize('part', ['images', 'masks'])
@pytest.mark.parametrize('code', [errno.EACCES, errno.EIO, errno.ENOMEM, errno.EMFILE])
def test_what_the_system_refuses_is_never_left_out(folder, tmp_path, skip, part, code, monkeypatch):
  folder = dataclasses.replace(folder, skip_unreadable=skip)
  refused, real = tmp_path / 'set' / part / '1.png', builtins.open

  def refusing(path, *arguments, **options):
    if not isinstance(path, int) and os.fspath(path) == str(refused):
      raise OSError(code, os.strerror(code), str(path))
    return real(path, *arguments, **options)

  with monkeypatch.context() as patch:
    patch.setattr(builtins, 'open', refusing)
    patch.setattr(io, 'open', refusing)
    for _ in range(2):
      with pytest.raises(UserError, match=rf'^{part}/1\.png cannot be read \({os.strerror(code)}'):
        dataset.load(folder, tmp_path)
    assert not [item for item in (tmp_path / 'data').iterdir() if item.is_dir()]
  assert dataset.load(folder, tmp_path).splits['train'].ids == ('0', '1')


def test_what_was_left_out_comes_back_when_it_is_whole_again(folder, tmp_path):
  folder = dataclasses.replace(folder, skip_unreadable=True)
  broken = tmp_path / 'set' / 'images' / '1.png'
  whole = broken.read_bytes()
  broken.write_bytes(b'x' * len(whole))
  assert dataset.load(folder, tmp_path).splits['train'].ids == ('0',)
  broken.write_bytes(whole)
  assert dataset.load(folder, tmp_path).splits['train'].ids == ('0', '1')


def test_a_killed_preparation_is_done_again(tmp_path):
  config = dataclasses.replace(
    TINY, image_size=64, phantom=PhantomConfig(train=20000, validation=1, test=1)
  )
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data.prepare import prepare;'
    'prepare(DataConfig(image_size=64, phantom=PhantomConfig(train=20000, validation=1, '
    'test=1)), sys.argv[1])'
  )
  process = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)])
  deadline = time.monotonic() + 60
  while (
    not list(tmp_path.glob('data/*.incomplete/*'))
    and time.monotonic() < deadline
    and process.poll() is None
  ):
    time.sleep(0.05)
  time.sleep(0.3)
  process.send_signal(signal.SIGKILL)
  process.wait()
  left = list(tmp_path.glob('data/*.incomplete'))
  assert left, 'the preparation was to be killed in its course'
  target = left[0].with_suffix('')
  assert not target.exists()

  seen = []

  def build(_source, _config, scratch):
    seen.append(scratch.exists())
    folder = scratch / 'made'
    folder.mkdir(parents=True)
    return folder

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, '_build', build)
    assert prepare(config, tmp_path) == target
  assert seen == [False]  # The rest of the killed one was cleared away first.
  assert not left[0].exists()


def test_two_processes_prepare_once(tmp_path):
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data import dataset;'
    'print(len(dataset.load(DataConfig(image_size=16, phantom=PhantomConfig(train=3, '
    'validation=1, test=1)),'
    ' sys.argv[1]).splits["train"]))'
  )
  command = [sys.executable, '-c', script, str(tmp_path)]
  processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
  assert [process.communicate()[0].strip() for process in processes] == ['3', '3']
  assert len([item for item in (tmp_path / 'data').iterdir() if item.is_dir()]) == 1


def test_preparation_is_silent_on_stdout(tmp_path, capsys):
  prepare(TINY, tmp_path)
  assert capsys.readouterr().out == ''


def test_tensorflow_is_not_needed(tmp_path):
  script = (
    'import sys; from ahm_jax.config import *; from ahm_jax.data import dataset;'
    'dataset.load(DataConfig(image_size=16, phantom=PhantomConfig(train=1, validation=1, '
    'test=1)), sys.argv[1]);'
    'assert "tensorflow" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', script, str(tmp_path)], check=True)


# The cache key.


@pytest.fixture
def archives(tmp_path):
  """Empty files where ISIC 2018 has its archives, and the config that names their folder."""
  root = tmp_path / 'isic'
  root.mkdir()
  config = DataConfig(name='isic2018', root=str(root), image_size=16)
  for place in isic2018.sources(root):
    place.write_bytes(b'x')
  return config


def key(config, source=None):
  return cache_key(source or sets.find(config), config)


@pytest.mark.parametrize('name', ['phantom', 'folder', 'archives'])
def test_a_new_version_of_the_data_set_or_the_record_is_another_key(name, request, monkeypatch):
  config = TINY if name == 'phantom' else request.getfixturevalue(name)
  source = sets.find(config)
  before = key(config)
  newer = dataclasses.replace(source, version=source.version + 1)
  assert key(config, newer) != before == key(config)
  monkeypatch.setattr(records, 'VERSION', records.VERSION + 1)
  assert key(config) != before


def test_the_text_of_the_code_is_not_in_the_key(folder, monkeypatch):
  """A comment more must not have everybody prepare anew."""
  before = key(folder)

  opened = []
  with monkeypatch.context() as patch:
    read_bytes = Path.read_bytes
    patch.setattr(Path, 'read_bytes', lambda path: opened.append(path) or read_bytes(path))
    assert key(folder) == before
  assert [path.name for path in opened] == ['labels.csv']


@pytest.mark.parametrize(
  'changes',
  [
    dict(image_size=32),
    dict(channels=1),
    dict(split_seed=1),
    dict(skip_unreadable=True),
    dict(split_fractions=(0.5, 0.25, 0.25)),
    dict(mask_classes=('a',)),
    dict(mask_suffix='_mask'),
    dict(window=(40.0, 400.0)),
    dict(slice_axis=1),
    dict(every_slice=2),
  ],
)
def test_each_field_that_a_folder_depends_on_changes_the_key(folder, changes):
  assert key(dataclasses.replace(folder, **changes)) != key(folder)


@pytest.mark.parametrize(
  'changes', [dict(labels=2), dict(resident_share=0.0), dict(prepared_dir='x')]
)
@pytest.mark.parametrize('name', ['phantom', 'folder', 'archives'])
def test_no_other_field_changes_the_key(name, changes, request):
  config = TINY if name == 'phantom' else request.getfixturevalue(name)
  assert key(dataclasses.replace(config, **changes)) == key(config)


def test_each_file_that_a_folder_depends_on_changes_the_key(folder, tmp_path):
  keys = {key(folder)}
  root = tmp_path / 'set'
  for path in (root / 'images' / '1.png', root / 'masks' / '1.png'):
    path.write_bytes(path.read_bytes() + b' ')
    keys.add(key(folder))
  (root / 'labels.csv').write_text('image,label\n0,x\n')
  keys.add(key(folder))
  (root / 'masks' / '2.png').unlink()
  keys.add(key(folder))
  root.rename(tmp_path / 'moved')
  keys.add(key(dataclasses.replace(folder, root=str(tmp_path / 'moved'))))
  assert len(keys) == 6


def test_what_isic2018_depends_on_changes_the_key(archives):
  keys = {key(archives), key(dataclasses.replace(archives, skip_unreadable=True))}
  place = isic2018.sources(Path(archives.root))[0]
  place.write_bytes(b'another')
  keys.add(key(archives))
  assert len(keys) == 3


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_how_many_phantoms_there_are_changes_the_key(split):
  more = dataclasses.replace(TINY.phantom, **{split: 9})
  assert key(dataclasses.replace(TINY, phantom=more)) != key(TINY)


def test_what_is_prepared_changes_only_with_a_version(folder, tmp_path):
  """Where this fails, what is prepared of a file has changed: raise `records.VERSION` (or that of
  the data set) in the same change that puts the new digest here.
  """
  ramp = np.arange(16 * 16 * 3).reshape(16, 16, 3)
  Image.fromarray((ramp % 251).astype(np.uint8)).save(tmp_path / 'set' / 'images' / '0.png')
  Image.fromarray((ramp[..., 0] * 64).astype(np.uint16)).save(tmp_path / 'set' / 'images' / '1.png')
  digest = hashlib.sha256()
  for name, split in dataset.load(folder, tmp_path).splits.items():
    digest.update(repr((name, split.ids, split.groups, split.labels.tolist())).encode())
    digest.update(split.images.tobytes() + split.masks.tobytes() + split.spacing.tobytes())
  assert (records.VERSION, sets.find(folder).version) == (3, 2)
  assert digest.hexdigest()[:16] == '3c0ecd9bb4a11374'


# Digests of single images.


def digests(config, place):
  """By name, those of the image and of its mask, as hexadecimal text."""
  splits = dataset.load(config, place).splits.values()
  return {
    name: tuple(part.tobytes().hex() for part in split.digests[i])
    for split in splits
    for i, name in enumerate(split.ids)
  }


def test_digests_are_those_of_what_is_prepared(folder, tmp_path):
  found = digests(folder, tmp_path)
  train = dataset.load(folder, tmp_path).splits['train']
  assert found['1'] == (
    records.digest(train.images[1]).tobytes().hex(),
    records.digest(train.masks[1], train.full_mask(1)).tobytes().hex(),
  )
  assert len({image for image, _ in found.values()}) == 4
  assert len({mask for _, mask in found.values()}) == 1  # All masks are the same.
  assert train.take([1]).digests.tobytes() == train.digests[1].tobytes()


@pytest.mark.parametrize('how', ['moved', 'touched', 'again', 'saved otherwise'])
def test_digests_stay_where_the_pixels_do(folder, tmp_path, how):
  before, root = digests(folder, tmp_path / 'first'), Path(folder.root)
  if how == 'moved':
    folder = dataclasses.replace(folder, root=str(root.rename(tmp_path / 'elsewhere')))
  if how == 'touched':
    for path in root.glob('*/*.png'):
      os.utime(path, (1, 1))
  if how == 'saved otherwise':
    for path in (root / 'images').iterdir():
      Image.open(path).save(path.with_suffix('.bmp'))
      path.unlink()
  assert digests(folder, tmp_path / 'second') == before


@pytest.mark.parametrize('what', ['image', 'mask', 'mask that is the same when resized'])
def test_digests_change_with_the_pixels(folder, tmp_path, what):
  if 'resized' in what:
    large = np.zeros((64, 64), np.uint8)
    Image.fromarray(large).save(Path(folder.root) / 'images' / '2.png')
    Image.fromarray(large).save(Path(folder.root) / 'masks' / '2.png')
  before = digests(folder, tmp_path)
  path = Path(folder.root) / ('images' if what == 'image' else 'masks') / '2.png'
  pixels = np.array(Image.open(path))
  pixels[3, 5] = 255 - pixels[3, 5]
  Image.fromarray(pixels).save(path)
  after = digests(folder, tmp_path)
  part = 0 if what == 'image' else 1
  assert after['2'][part] != before['2'][part] and after['2'][1 - part] == before['2'][1 - part]
  assert {name for name in after if after[name] != before[name]} == {'2'}


DAMAGES = {
  'gone': lambda _: None,
  'emptied': lambda _: b'',
  'halved': lambda data: data[: len(data) // 2],
  'cut': lambda data: data[:-3],
  'zeros': lambda data: bytes(len(data)),
  'one bit': lambda data: data[:9] + bytes([data[9] ^ 4]) + data[10:],
}


def test_damaged_data_are_prepared_again_and_that_is_said(tmp_path, capsys, monkeypatch):
  """Every file that was prepared, in every way."""
  target = prepare(TINY, tmp_path)
  whole = {path.name: path.read_bytes() for path in target.iterdir()}
  assert set(whole) > {'dataset_info.json', 'features.json', 'metadata.json', manifest.FILE}
  built = []

  def build(*args):
    scratch = args[-1]
    built.append(scratch)
    made = scratch / 'records' / '1.0.0'
    made.mkdir(parents=True)
    for name in whole.keys() - {manifest.FILE}:
      (made / name).write_bytes(whole[name])
    return made

  monkeypatch.setattr(module, '_build', build)  # Which takes long.
  for name, data in whole.items():
    for damage in DAMAGES.values():
      if (changed := damage(data)) is None:
        (target / name).unlink()
      else:
        (target / name).write_bytes(changed)
      assert prepare(TINY, tmp_path) == target
      assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
      said = capsys.readouterr().out
      # A name in the list of files may be what is damaged.
      named = '' if name == manifest.FILE else f'{name} '
      assert said.startswith(f'{target}: the prepared data are damaged ({named}')
      assert said.count('\n') == 1
  assert len(built) == len(whole) * len(DAMAGES)
  assert prepare(TINY, tmp_path) == target and not capsys.readouterr().out
  assert len(dataset.load(TINY, tmp_path).splits['train']) == 3


def test_prepared_data_that_cannot_be_read_are_kept(tmp_path, monkeypatch):
  target = prepare(TINY, tmp_path)

  def refuse(*_, **__):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('pathlib.Path.open', refuse)
  with pytest.raises(UserError, match=r'cannot be read \(Permission denied\); make it readable'):
    prepare(TINY, tmp_path)
  assert manifest.FILE in {path.name for path in target.iterdir()}


@pytest.mark.parametrize('left', ['downloads/extracted', 'records/1.0.0.incompleteA1', ''])
def test_what_a_killed_preparation_left_is_removed(tmp_path, left):
  name = f'phantom-{cache_key(sets.find(TINY), TINY)}'
  (tmp_path / 'data' / f'{name}.incomplete' / left).mkdir(parents=True)
  assert prepare(TINY, tmp_path).name == name
  names = sorted(path.name for path in (tmp_path / 'data').iterdir())
  assert names == [name, f'{name}.lock']
  assert all(map(manifest.is_ours, [*names, f'{name}.incomplete']))
  assert not any(map(manifest.is_ours, ['a.png', 'phantom', f'{name}.png', f'{name}0', f'-{name}']))


@pytest.mark.parametrize('place', ['', '.incomplete'])
@pytest.mark.parametrize('is_link', [False, True], ids=['folder', 'link'])
def test_what_was_not_prepared_here_is_not_removed(tmp_path, place, is_link):
  config = dataclasses.replace(TINY, prepared_dir=str(tmp_path / 'data'))
  name = f'phantom-{cache_key(sets.find(config), config)}{place}'
  outside = tmp_path / 'outside'
  outside.mkdir()
  (outside / 'mine.txt').write_text('mine')
  (tmp_path / 'data').mkdir()
  if is_link:
    (tmp_path / 'data' / name).symlink_to(outside)
  else:
    outside.rename(tmp_path / 'data' / name)
  with pytest.raises(UserError, match=f'{name} is a link, or holds what was not prepared here'):
    prepare(config, tmp_path)
  assert (tmp_path / 'data' / name / 'mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('name', ['a**b', 'gs://bucket/a', 'no\udcfftext'], ids=ascii)
def test_a_folder_that_tfds_cannot_have_is_refused(tmp_path, name):
  path = name if '://' in name else str(tmp_path / name)
  with pytest.raises(UserError, match=r'config\.data\.prepared_dir'):
    prepare(dataclasses.replace(TINY, prepared_dir=path), tmp_path)
  assert not list(tmp_path.iterdir())


def test_the_keys_of_data_without_modalities_are_those_of_always():
  """So that what was prepared before there were modalities is found again."""
  source = sets.find(DataConfig())
  assert cache_key(source, DataConfig()) == '8fd0e406c6e0e918'
  assert cache_key(source, DataConfig(channels=1, image_size=64)) == '75a0f3291de7c23e'
