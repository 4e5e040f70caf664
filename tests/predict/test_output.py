"""Predicting into a folder again, after images, files or the state of the folder have changed."""

import csv
import itertools
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ahm_jax.data.readers import raster
from ahm_jax.errors import UserError
from ahm_jax.predict import journal, made, output
from ahm_jax.predict.options import Options
from ahm_jax.predict.output import Output
from ahm_jax.predict.run import predict
from ahm_jax.runtime import durable

NAMES = ['a.png', 'b.png', 'c.bmp', 'd.webp', 'e.tif', 'sub/a.png', 'sub/f.jpg']
ALL = Options(0.49, probabilities=True, overlays=True)


def files(out):
  """What a user reads: every file but those that say by what and when they were made."""
  found = {
    path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*') if path.is_file()
  }
  return {
    name: data for name, data in found.items() if name not in ('predict.json', 'made.txt', '.lock')
  }


@pytest.fixture
def done(segmenter, images, tmp_path):
  """A folder of predictions of `images`."""
  assert predict(segmenter, images, tmp_path / 'out', ALL) == (7, 0)
  return tmp_path / 'out'


@pytest.fixture(scope='module')
def fresh(segmenter, tmp_path_factory):
  """fresh(images): what predicting into an empty folder counts and gives; once for all the same."""
  known = {}

  def predict_anew(images):
    key = tuple(sorted(files(images).items()))
    if key not in known:
      out = tmp_path_factory.mktemp('fresh') / 'out'
      known[key] = predict(segmenter, images, out, ALL), files(out)
    return known[key]

  return predict_anew


@pytest.fixture
def again(segmenter, images, tmp_path, monkeypatch, fresh):
  """again() predicts into `done`, makes sure that all is there as in an empty folder, and returns
  the images that were looked at, and the files that are there besides.
  """

  def predict_again():
    looked_at = []
    with monkeypatch.context() as patch:
      append = Output.append
      patch.setattr(
        Output,
        'append',
        lambda self, rows, files: looked_at.append(rows[0]['image']) or append(self, rows, files),
      )
      counts = predict(segmenter, images, tmp_path / 'out', ALL)
    found, (expected_counts, expected) = files(tmp_path / 'out'), fresh(images)
    assert counts == expected_counts
    assert {name: found.get(name) for name in expected} == expected
    return sorted(looked_at), sorted(found.keys() - expected.keys())

  return predict_again


# Images.


def redraw(path, keep_time=False):
  """Other pixels in the same format and of the same size."""
  times = path.stat()
  with Image.open(path) as picture:
    turned = Image.fromarray(255 - np.asarray(picture.rotate(180)))
  turned.save(path)
  if keep_time:
    assert path.stat().st_size == times.st_size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def made_of(name):
  return [f'masks/{name}.png', f'overlays/{name}.jpg', f'probabilities/{name}.png']


def status_of_all(root):
  """What `chmod -R`, `chown -R` and a copy of hard links do to images: nothing to their content."""
  for name in NAMES:
    (root / name).chmod(0o640)
    os.chown(root / name, os.getuid(), os.getgid())
  os.link(root / 'b.png', root.parent / 'linked.png')


def moved_back(root):
  """Out of the folder and back, under the same name."""
  (root / 'a.png').rename(root.parent / 'a.png')
  (root.parent / 'a.png').rename(root / 'a.png')


def replaced(root):
  """By another file of the same content and time."""
  shutil.copy2(root / 'a.png', root.parent / 'a.png')
  (root.parent / 'a.png').replace(root / 'a.png')


@pytest.mark.parametrize(
  ('change', 'made_again', 'left'),
  [
    (lambda _: None, [], []),
    (status_of_all, [], []),
    (moved_back, [], []),
    (replaced, [], []),
    (lambda root: (status_of_all(root), redraw(root / 'c.bmp', keep_time=True)), ['c.bmp'], []),
    (lambda root: redraw(root / 'b.png'), ['b.png'], []),
    (lambda root: redraw(root / 'c.bmp'), ['c.bmp'], []),
    (lambda root: redraw(root / 'c.bmp', keep_time=True), ['c.bmp'], []),
    (lambda root: [redraw(root / name) for name in NAMES], NAMES, []),
    (lambda root: shutil.copy2(root / 'a.png', root / 'b.png'), ['b.png'], []),
    (lambda root: (root / 'a.png').replace(root / 'b.png'), ['b.png'], made_of('a')),
    (lambda root: (root / 'b.png').write_bytes(b'broken'), ['b.png'], []),
    (lambda root: shutil.copy(root / 'a.png', root / 'new.png'), ['new.png'], []),
    (lambda root: (root / 'a.png').rename(root / 'z.png'), ['z.png'], made_of('a')),
    (lambda root: (root / 'b.png').rename(root / 'b.jpg'), ['b.jpg'], []),
    (lambda root: (root / 'e.tif').unlink(), [], made_of('e')),
    (lambda root: (root / 'sub/f.jpg').rename(root / 'f.jpg'), ['f.jpg'], made_of('sub/f')),
    (lambda root: shutil.rmtree(root / 'sub'), [], sorted(made_of('sub/a') + made_of('sub/f'))),
  ],
  ids=[
    'nothing', 'status', 'moved and back', 'the same again', 'status of all, and one redrawn',
    'redrawn', 'of one size', 'of one size and time', 'all', 'a copy', 'renamed onto it',
    'broken', 'new', 'renamed', 'another suffix', 'removed', 'moved', 'a folder removed'
  ],
)  # fmt: skip
@pytest.mark.usefixtures('done')
def test_what_is_of_another_image_is_made_again(images, again, capsys, change, made_again, left):
  change(images)
  capsys.readouterr()
  assert again() == (made_again, left)
  said = capsys.readouterr().err
  assert ('of images that are gone or were renamed' in said) == bool(left)
  assert all(name in said for name in left[:3])
  assert again()[1] == left  # Said as long as they are there.


@pytest.mark.usefixtures('done')
def test_after_a_change_of_status_images_are_read_once_more_only(images, again, monkeypatch):
  status_of_all(images)
  looked_at = []
  with monkeypatch.context() as patch:
    digest = made.digest
    patch.setattr(
      made, 'digest', lambda path, stamp: looked_at.append(path.name) or digest(path, stamp)
    )
    for expected in (len(NAMES), 0):
      looked_at.clear()
      assert again() == ([], [])
      assert len(looked_at) == expected


def test_an_image_that_changes_while_it_is_predicted_is_made_again(
  segmenter, images, tmp_path, again, monkeypatch
):
  """Also where its size and time are the same: which of both was read is not known."""
  with monkeypatch.context() as patch:
    append = Output.append
    done = []

    def change_and_append(self, rows, files):
      if not done:
        redraw(images / 'c.bmp', keep_time=True)
        done.append(True)
      append(self, rows, files)

    patch.setattr(Output, 'append', change_and_append)
    predict(segmenter, images, tmp_path / 'out', ALL)
  assert again() == (['c.bmp'], []) and again() == ([], [])


def test_a_volume_that_lost_slices_leaves_no_masks_of_them(segmenter, tmp_path):
  nibabel = pytest.importorskip('nibabel')
  (tmp_path / 'images').mkdir()
  masks = {}
  for count in (4, 2):
    volume = nibabel.Nifti1Image(np.zeros((20, 24, count), np.int16), np.eye(4))
    nibabel.save(volume, tmp_path / 'images/scan.nii')
    predict(segmenter, tmp_path / 'images', tmp_path / 'out', Options(0.5))
    masks[count] = sorted(path.name for path in (tmp_path / 'out/masks').iterdir())
  assert masks == {k: [f'scan_s{i:04d}.png' for i in range(k)] for k in (4, 2)}


@pytest.mark.usefixtures('done')
def test_what_cannot_be_looked_at_now_is_made_when_it_can(again, monkeypatch):
  with monkeypatch.context() as patch:
    stamp = made.stamp
    patch.setattr(made, 'stamp', lambda path: () if path.name == 'b.png' else stamp(path))
    assert again() == (['b.png'], [])
  assert again() == (['b.png'], []) and again() == ([], [])


# Files.


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def into_link(path):
  shutil.move(path, path.parent / 'elsewhere')
  path.symlink_to('elsewhere')


@pytest.mark.parametrize('place', ['masks/b.png', 'overlays/sub/f.jpg', 'probabilities/b.png'])
@pytest.mark.parametrize(
  'spoil',
  [
    lambda path: path.write_bytes(b''),
    cut,
    lambda path: path.write_bytes(path.read_bytes() + b'\0'),
    lambda path: path.unlink(),
    into_link,
  ],
  ids=['emptied', 'cut', 'longer', 'removed', 'a link'],
)
def test_files_that_are_not_as_they_were_written_are_made_again(done, again, capsys, place, spoil):
  spoil(done / place)
  (done / place).parent.joinpath('elsewhere').unlink(missing_ok=True)
  image = 'b.png' if 'b.' in place else 'sub/f.jpg'
  capsys.readouterr()
  assert again() == ([image], [])
  said = capsys.readouterr().err
  assert f'done again, as the image or its files have changed: 1 ({image})\n' in said
  assert again() == ([], [])


# The state of the folder.


def deep(_):
  return b'{"made_by": ' + b'[' * 500_000


DAMAGES = {
  'emptied': lambda _: b'',
  'halved': lambda data: data[: len(data) // 2],
  'first line halved': lambda data: data[: data.find(b'\n') // 2],
  'garbage': lambda _: bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)),
  'zeros': lambda data: bytes(len(data)),
  'zeros at its end': lambda data: data[: 2 * len(data) // 3] + bytes(len(data) // 3),
  'one bit': lambda data: b'd'.join(data.rsplit(b'e', 1)),
  'deep': deep,
  'other types': lambda _: b'{"made_by": 7}\n',
  'a list': lambda _: b'[1, 2]\n',
  'numbers too long': lambda _: b'{"made_by": ' + b'1' * 5000 + b'}\n',
  'not UTF-8': lambda data: data.replace(b'a', b'\xff'),
  'of Windows': lambda data: data.replace(b'\n', b'\r\n'),
  'another table': lambda _: b'name,score\nx,1\ny,2\n',
  'rows of another': lambda data: data + b'x.png,,masks/x.png,ok,9,9,1\n',
  'a row twice': lambda data: data + data.splitlines(keepends=True)[-1],
  'gone': None,
}
# What is refused, and by what; all else is mended, by making so many images again.
REFUSED = {
  'predict.json': (
    r'json is damaged: .*; choose another --out',
    set(DAMAGES) - {'one bit', 'of Windows'},
  ),
  'predictions.csv': (
    'move it away',
    {
      'garbage', 'zeros', 'deep', 'other types', 'a list', 'numbers too long', 'not UTF-8',
      'of Windows', 'another table',
    },
  ),
  'made.txt': ('', set()),
}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('name', REFUSED)
def test_a_damaged_state_is_mended_or_refused(segmenter, images, done, again, name, damage):
  path, change = done / name, DAMAGES[damage]
  before = files(done)
  if change is None:
    path.unlink()
  else:
    path.write_bytes(change(path.read_bytes()))
  message, refused = REFUSED[name]
  if damage not in refused:
    looked_at, left = again()
    assert not left and (name != 'predictions.csv' or not looked_at)
    return
  if name == 'predict.json' and damage == 'gone':
    message = 'holds other files'
  spoilt = files(done)
  with pytest.raises(UserError, match=message) as refusal:
    predict(segmenter, images, done, ALL)
  assert '\n' not in str(refusal.value) and str(done) in str(refusal.value)
  assert files(done) == spoilt
  if name == 'predictions.csv':  # What the line advises.
    path.unlink()
    assert again() == ([], []) and files(done) == before


OWN_FILES = ('predict.json', 'predictions.csv', 'made.txt', '.lock')
OWN_FOLDERS = ('.predicting', 'masks', 'probabilities', 'overlays')


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    *itertools.product(OWN_FILES + OWN_FOLDERS, ['link', 'broken link', 'pipe']),
    *itertools.product(OWN_FILES, ['folder']),
    *itertools.product(OWN_FOLDERS, ['file']),
  ],
)
def test_what_leads_elsewhere_or_cannot_be_written_is_refused(
  segmenter, images, tmp_path, done, name, kind
):
  path, elsewhere = done / name, tmp_path / 'elsewhere'
  if path.exists():
    path.rename(elsewhere)
  else:
    elsewhere.mkdir()
  {
    'link': lambda: path.symlink_to(elsewhere),
    'broken link': lambda: path.symlink_to('nothing'),
    'pipe': lambda: os.mkfifo(path),
    'folder': path.mkdir,
    'file': path.touch,
  }[kind]()
  before = files(elsewhere)
  with pytest.raises(UserError, match=r'or choose another folder$') as refusal:
    predict(segmenter, images, done, ALL)
  assert str(path) in str(refusal.value)
  assert files(elsewhere) == before


def test_a_hidden_folder_of_others_is_left_as_it_is(segmenter, images, tmp_path):
  """That of an earlier version, or of another program."""
  (tmp_path / 'out/.tmp').mkdir(parents=True)
  (tmp_path / 'out/.tmp/mine').touch()
  predict(segmenter, images, tmp_path / 'out', ALL)
  assert (tmp_path / 'out/.tmp/mine').exists()


def test_the_table_of_an_earlier_version_is_refused_with_the_way_out(
  done, again, segmenter, images
):
  (done / 'made.txt').unlink()
  with (done / 'predictions.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  with (done / 'predictions.csv').open('w', newline='') as file:
    columns = [name for name in rows[0] if name != 'pages']
    writer = csv.DictWriter(file, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  with pytest.raises(UserError, match='move it away and run the same command again'):
    predict(segmenter, images, done, ALL)
  (done / 'predictions.csv').rename(done.parent / 'old.csv')
  assert again() == (NAMES, [])


def test_rows_that_others_wrote_are_told(done, again, capsys):
  path = done / 'predictions.csv'
  path.write_text(path.read_text().replace('ok', 'checked', 1))
  capsys.readouterr()
  assert again() == ([], [])
  assert f'{path} held other rows than made.txt, and is written anew' in capsys.readouterr().err


# Interruptions.


def at_call(monkeypatch, place, name, number):
  """Ctrl-C at this call of a function."""
  function, calls = getattr(place, name), []

  def counted(*args, **options):
    calls.append(args)
    if len(calls) == number:
      raise KeyboardInterrupt
    return function(*args, **options)

  monkeypatch.setattr(place, name, counted)


@pytest.mark.parametrize('number', [1, 2, 3, 5, 8])
@pytest.mark.parametrize('place', [(journal, '_append'), (durable, 'sync_folder'), (os, 'replace')])
def test_it_may_be_stopped_between_any_two_files(
  segmenter, images, tmp_path, again, monkeypatch, place, number
):
  monkeypatch.setattr(output, 'SYNC_SECONDS', 0)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    at_call(patch, *place, number)
    predict(segmenter, images, tmp_path / 'out', ALL)
    raise KeyboardInterrupt  # There were not so many calls.
  assert again()[1] == []


def test_nothing_is_said_to_be_done_before_it_is_on_disk(segmenter, images, tmp_path, monkeypatch):
  """In the order of calls to the system: each file, its folders, made.txt, and then the table."""
  log, out = [], tmp_path / 'out'
  sync, append, fsync, put = durable.sync, journal._append, os.fsync, Output.put

  def logged_put(self, place, write):
    size = put(self, place, write)
    log.append(('there', place))
    return size

  def logged_append(file, data):
    log.extend(('said', entry.files) for entry in filter(None, map(made._entry, data.splitlines())))
    log.append(('grows', file.name.rpartition('/')[2]))
    append(file, data)

  def logged_fsync(number):
    log.append(('fsync', os.fstat(number).st_ino))
    fsync(number)

  monkeypatch.setattr(output, 'SYNC_SECONDS', 0)
  monkeypatch.setattr(durable, 'sync', lambda path: log.append(('synced', path)) or sync(path))
  monkeypatch.setattr(journal, '_append', logged_append)
  monkeypatch.setattr(os, 'fsync', logged_fsync)
  monkeypatch.setattr(Output, 'put', logged_put)
  predict(segmenter, images, out, ALL)
  said = [(index, item[1]) for index, item in enumerate(log) if item[0] == 'said']
  assert len(said) == 7
  for index, own in said:
    assert len(own) == 3
    for place in own:
      there = log.index(('there', place))
      needed = {out, (out / place).parent, out / place}
      assert needed <= {item[1] for item in log[there:index] if item[0] == 'synced'}
    since = log[index:]  # Threads write other files meanwhile.
    steps = ('grows', 'made.txt'), ('fsync', (out / 'made.txt').stat().st_ino)
    assert since.index(steps[0]) < since.index(steps[1]) < since.index(('grows', 'predictions.csv'))
  assert ('synced', out / 'predictions.csv') in log[said[-1][0] :]


def test_rows_wait_for_each_other(segmenter, images, tmp_path, monkeypatch):
  """So that many small images do not wait for the disk one by one."""
  appended = []
  append = journal._append
  monkeypatch.setattr(
    journal, '_append', lambda file, data: appended.append(data) or append(file, data)
  )
  monkeypatch.setattr(output, 'SYNC_SECONDS', 1000)
  predict(segmenter, images, tmp_path / 'out', ALL)
  assert [data.count(b'\n') for data in appended] == [7, 7]


# Names.


@pytest.mark.parametrize('name', ['a[b]c', 'a*?', "it's {0}", '%s', 'käse', 'x' * 200])
def test_the_folder_may_be_called_anything(segmenter, images, tmp_path, name):
  assert predict(segmenter, images, tmp_path / name, Options(0.5)) == (7, 0)
  assert predict(segmenter, images, tmp_path / name, Options(0.5)) == (7, 0)
  assert len(list((tmp_path / name / 'masks').rglob('*.png'))) == 7


def test_names_that_differ_by_case_are_refused_where_that_is_one(
  segmenter, images, tmp_path, monkeypatch
):
  shutil.copy(images / 'a.png', images / 'A.png')
  assert predict(segmenter, images, tmp_path / 'out', Options(0.5)) == (8, 0)
  monkeypatch.setattr(Output, 'folds_case', True)
  with pytest.raises(UserError, match=r'^A\.png and a\.png would have the same mask in .* are one'):
    predict(segmenter, images, tmp_path / 'out', Options(0.5))


def test_an_image_that_the_system_refuses_has_a_row_and_is_tried_again(
  segmenter, images, tmp_path, monkeypatch
):
  read = raster.read

  def refused(path, *others):
    if path.name == 'b.png':
      raise PermissionError(13, 'Permission denied')
    return read(path, *others)

  with monkeypatch.context() as patch:
    patch.setattr(raster, 'read', refused)
    assert predict(segmenter, images, tmp_path / 'out', ALL) == (6, 1)
  with (tmp_path / 'out/predictions.csv').open(newline='') as file:
    status = {row['image']: row['status'] for row in csv.DictReader(file)}
  assert status['b.png'].startswith('images/b.png cannot be read (Permission denied)')
  assert predict(segmenter, images, tmp_path / 'out', ALL) == (7, 0)
