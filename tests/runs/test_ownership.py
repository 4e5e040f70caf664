"""What is not ours is neither changed nor followed, in a workdir or out of it."""

import os
import subprocess
import sys

import pytest

from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.runs import directory, ownership
from ahm_jax.runs.directory import check, check_folder, claim


def everything(root):
  """All that is below a folder: contents of files, and where links lead."""
  return {
    path.relative_to(root).as_posix(): path.readlink() if path.is_symlink() else path.read_bytes()
    for path in root.rglob('*')
    if path.is_symlink() or path.is_file()
  }


def put(folder, name):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'somebody wrote {name}')


FOREIGN = {
  "another tool's checkpoints": ['checkpoints/1000/model.bin'],
  'checkpoints without run.json': ['checkpoints/4/metrics/metrics', 'metrics.jsonl', 'data.json'],
  'metrics of another tool': ['metrics.jsonl'],
  'a data folder': ['data/a.png', 'data/phantom-0123456789abcdef/dataset_info.json'],
  'files of any name': ['notes.txt', 'src/main.py', 'a', 'b'],
  'results': ['results.json', 'report.html'],
  'a grid without run.json': ['pretrain/ahm/seed0/run.json', 'results.json', 'images.json'],
  'a folder named as a stage': ['segment/src/model.py', 'segment/ahm/run.json'],
  'a folder of runs': ['mine/run.json'],
  'exports': ['export.json', 'variables/d/0'],
  'others beside a log': ['log.txt', 'model.pt'],
  'folders named as logs': ['run.log/a', 'notes.txt/b'],
  'texts that are no logs': ['catalog.txt', 'logistic.txt', 'notes.txt', 'requirements.txt'],
  'no logs': ['labels.csv', 'a.png', 'train.py', 'weights.npz', 'catalog', 'log'],
}


@pytest.mark.parametrize('names', FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_holds_something_else_is_refused_as_it_is(tmp_path, names):
  for name in names:
    put(tmp_path, name)
  before = everything(tmp_path)
  first = min({name.split('/')[0] for name in names} - {'images.json', 'pretrain', 'log.txt'})
  with pytest.raises(
    UserError, match=rf'is not empty, and has no run\.json .*: it holds .*{first}'
  ):
    claim(tmp_path, 'segment', Config())
  assert everything(tmp_path) == before


EMPTY = {
  'nothing': [],
  'what systems leave': ['.DS_Store', '._a', '.directory', 'Thumbs.db', 'desktop.ini'],
  'logs that a shell redirects': ['train.log', 'nohup.out', 'log.txt', 'OUTPUT.TXT', 'err.txt'],
  'logs named by hand': ['train_log.txt', 'log-2.txt', 'ahm.out.txt', 'stdout.txt', 'log1.txt'],
  'logs of clusters': ['slurm-17.err', 'slurm-123_4.out', 'run.o1234', 'run.e1234', 'run.o12.3'],
  'logs that were rotated': ['train.log.1', 'train.log.2.gz', 'nohup.out-20260101'],
  'prepared data': [
    'data/folder-0123456789abcdef/dataset_info.json',
    'data/folder-0123456789abcdef.lock',
    'data/folder-0123456789abcdef.incomplete/records/a',
    'data/.DS_Store',
  ],
  'a start that was killed': [f'run.json.{"0a" * 16}.tmp', f'images.json.{"0a" * 16}.tmp'],
  'a grid that was killed': ['images.json'],
  'runs of a grid': ['pretrain/ahm/seed0/run.json', 'pretrain/ahm/seed0/a', 'segment/ahm/.lock'],
  'a check of the data': ['check.json', 'check.html'],
  'a profile': ['profile/plugins/a'],
}


@pytest.mark.parametrize('names', EMPTY.values(), ids=EMPTY)
def test_what_systems_and_starts_leave_makes_a_folder_no_less_empty(tmp_path, names):
  for name in names:
    put(tmp_path, name)
  (tmp_path / directory.LOCK).write_text('process 7 on host')
  claim(tmp_path, 'segment', Config())
  put(tmp_path, 'checkpoints/4/a')
  put(tmp_path, 'notes.txt')
  claim(tmp_path, 'segment', Config())  # It is ours now.


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_what_this_process_prints_to_may_lie_there_by_any_name(tmp_path, stream):
  script = (
    'import sys; from pathlib import Path; from ahm_jax.config import Config; '
    'from ahm_jax.runs.directory import claim; claim(Path(sys.argv[1]), "segment", Config())'
  )
  with (tmp_path / 'progress').open('wb') as file:
    command = [sys.executable, '-c', script, tmp_path]
    subprocess.run(command, check=True, **{stream: file})
  assert (tmp_path / 'run.json').exists()


LINKED = ['checkpoints', 'damaged', 'snapshots', 'data', 'profile', 'pretrain', 'segment']
LINKED += ['metrics.jsonl', 'run.json', 'images.json', 'data.json', 'classes.json', '.lock']
LINKED += ['evaluation.json', 'per_image.csv', 'results.json', 'report.html', 'check.json']
LINKED += ['dice.svg', 'vs_ahm.svg', 'masks.png', 'evaluation_sam_box_unet.json']


@pytest.mark.parametrize('is_begun', [False, True], ids=['new', 'begun'])
@pytest.mark.parametrize('name', LINKED)
def test_nothing_is_written_through_a_link(tmp_path, name, is_begun):
  workdir, outside = tmp_path / 'run', tmp_path / 'outside'
  workdir.mkdir()
  put(outside, 'file')
  if is_begun:
    claim(workdir, 'segment', Config())
    if name == directory.FILE:
      (workdir / name).rename(outside / 'file')
  is_folder = name in directory.FOLDERS
  (workdir / name).symlink_to(outside if is_folder else outside / 'file')
  before = everything(tmp_path)
  with pytest.raises(UserError, match=rf'/{name} is a link, and nothing is written through links'):
    claim(workdir, 'segment', Config())
  assert everything(tmp_path) == before


def test_a_workdir_may_lie_behind_a_link(tmp_path):
  (tmp_path / 'disk').mkdir()
  (tmp_path / 'runs').symlink_to(tmp_path / 'disk')
  claim(tmp_path / 'runs', 'segment', Config())
  claim(tmp_path / 'runs' / 'a', 'segment', Config())
  assert sorted(path.name for path in (tmp_path / 'disk').iterdir()) == ['a', 'run.json']


def test_a_cell_behind_a_link_is_refused(tmp_path):
  root, cell = tmp_path / 'grid', tmp_path / 'grid/segment/ahm/labels6/seed0'
  cell.mkdir(parents=True)
  ownership.check_way(root, cell)
  (tmp_path / 'grid/segment/ahm').rename(tmp_path / 'elsewhere')
  (tmp_path / 'grid/segment/ahm').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(UserError, match='segment/ahm is a link'):
    ownership.check_way(root, cell)
  (tmp_path / 'short').symlink_to(root)  # The grid itself may lie behind one.
  ownership.check_way(tmp_path / 'short', tmp_path / 'short/pretrain/ahm')


@pytest.mark.parametrize(
  ('name', 'make'),
  [
    ('checkpoints', lambda path: path.touch()),
    ('metrics.jsonl', lambda path: path.mkdir()),
    ('evaluation.json', lambda path: path.mkdir()),
    ('metrics.jsonl', os.mkfifo),
  ],
  ids=['file for folder', 'folder for file', 'folder for JSON', 'pipe'],
)
def test_what_is_of_another_kind_is_refused(tmp_path, name, make):
  claim(tmp_path, 'segment', Config())
  make(tmp_path / name)
  with pytest.raises(
    UserError, match=rf'/{name} is no (file|folder), and one of ours belongs there'
  ):
    check(tmp_path, 'segment', Config())


def test_what_is_printed_into_is_a_log_also_where_errors_of_c_are_caught(tmp_path, monkeypatch):
  """`NativeErrors` puts another file on descriptor 2, and the old one under `sys.stderr`."""
  with (tmp_path / 'progress').open('w') as file:
    assert not ownership.is_log(tmp_path / 'progress')
    monkeypatch.setattr('sys.stderr', file)
    assert ownership.is_log(tmp_path / 'progress')
    check_folder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
  def refuse(_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('pathlib.Path.iterdir', refuse)
  with pytest.raises(UserError, match=r'cannot be read \(Permission denied\); make it readable'):
    check_folder(tmp_path)


ODD = ['a[x]', 'a]b', 'a*', 'what?', 'back\\slash', '**', 'no\udcfftext', 'a[x]/below']


@pytest.mark.parametrize('name', ODD, ids=ascii)
def test_a_path_that_checkpoints_cannot_have_is_refused(tmp_path, monkeypatch, name):
  with pytest.raises(UserError, match=r'--workdir leads to .* can be found again; choose a folder'):
    claim(tmp_path / name, 'segment', Config())
  (tmp_path / name).mkdir(parents=True)
  monkeypatch.chdir(tmp_path / name)  # A folder above a relative path.
  with pytest.raises(UserError, match='--workdir leads to'):
    claim('run', 'segment', Config())
  assert not list((tmp_path / name).iterdir())


@pytest.mark.parametrize('name', ['a b', 'ä図😀', 'a{b,c}', '%20', '$HOME', "it's", 'a:b', '1000'])
def test_other_names_will_do(tmp_path, name):
  claim(tmp_path / name, 'segment', Config())
  assert (tmp_path / name / 'run.json').exists()
