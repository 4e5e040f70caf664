"""A folder that a command is at work in is moved: nothing is written elsewhere."""

import contextlib
import errno
import os
import shutil

import numpy as np
import pytest

from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.evaluation import per_image
from ahm_jax.predict import made
from ahm_jax.predict.output import OK, Output
from ahm_jax.runs import directory, snapshots
from ahm_jax.runtime import durable, json_files, places


def replaced_by_a_copy(home):
  home.rename(home.parent / 'other')
  shutil.copytree(home.parent / 'other', home)


def replaced_by_a_file(home):
  home.rename(home.parent / 'other')
  home.write_bytes(b'')


def replaced_by_a_link(home):
  home.rename(home.parent / 'other')
  home.symlink_to(home.parent)


def parent_moved(home):
  home.parent.rename(home.parents[1] / 'elsewhere')


def removed_and_made_again(home):
  shutil.rmtree(home)
  home.mkdir()  # Often by the same number, were it not held.


# What happens to the folder PLACE/home, and what is said of it.
MOVES = {
  'moved': (lambda home: home.rename(home.parent / 'other'), 'moved to .*/place/other'),
  'replaced by a copy': (replaced_by_a_copy, 'moved to .*/other .*another has its name now'),
  'replaced by a file': (replaced_by_a_file, 'moved to .*/other .*another has its name now'),
  'replaced by a link': (replaced_by_a_link, 'moved to .*/other .*another has its name now'),
  'parent moved': (parent_moved, 'moved to .*/elsewhere/home'),
  'removed': (shutil.rmtree, 'removed or replaced .* put it back'),
  'removed and made again': (removed_and_made_again, 'removed or replaced .* put it back'),
}


def owned_below(home):
  with directory.owned(home / 'segment' / 'seed0'):
    pass


# Everything that writes by a name.
WRITERS = {
  'bytes': lambda home: durable.write(home / 'a.bin', b'1'),
  'JSON': lambda home: json_files.write_json(home / 'a.json', [1]),
  'a snapshot': lambda home: snapshots.write(home, 5, {'policy': np.zeros(2)}),
  'a table': lambda home: per_image.write(home / 'per_image.csv', [{'image': 'a', 'dice': 1.0}]),
  'a run of a grid': owned_below,
  'within a folder': lambda home: durable.write(home / 'sub' / 'a.bin', b'1'),
}


@pytest.fixture
def home(tmp_path):
  home = tmp_path / 'place' / 'home'
  (home / 'sub').mkdir(parents=True)
  return home


def everything(folder):
  return {
    path.relative_to(folder): path.read_bytes() if path.is_file() else None
    for path in folder.rglob('*')
  }


@contextlib.contextmanager
def refused(said):
  with pytest.raises(UserError, match=rf'^\S*/home was {said}') as caught:
    yield
  line = str(caught.value)
  assert '\n' not in line and line.endswith(', and run the same command again')


@pytest.mark.parametrize('move', MOVES)
@pytest.mark.parametrize('writer', WRITERS)
def test_nothing_is_written_below_a_folder_that_was_moved(tmp_path, home, writer, move):
  change, said = MOVES[move]
  with places.kept(home):
    change(home)
    before = everything(tmp_path)
    with refused(said):
      WRITERS[writer](home)
    assert everything(tmp_path) == before


@pytest.mark.parametrize('writer', WRITERS)
def test_a_folder_that_stays_is_written_into(home, writer):
  with places.kept(home.parent), places.kept(home):
    WRITERS[writer](home)
    os.utime(home)
    home.chmod(0o700)
    home.rename(home.parent / 'other').rename(home)
    WRITERS[writer](home)
  assert len(everything(home)) > 1


@pytest.mark.parametrize('move', MOVES)
def test_a_file_that_is_being_written_does_not_get_its_name(tmp_path, home, move):
  change, said = MOVES[move]
  with refused(said), places.kept(home), durable.replacing(home / 'a.bin') as scratch:
    scratch.write_bytes(b'1')
    change(home)
  assert not any(path.name == 'a.bin' for path in everything(tmp_path))


@pytest.mark.parametrize('move', ['moved', 'parent moved', 'removed', 'replaced by a file'])
def test_an_error_that_a_move_has_led_to_is_called_that(home, move):
  change, said = MOVES[move]
  with refused(said), places.kept(home):
    change(home)
    (home / 'sub' / 'a').write_bytes(b'')


def test_other_errors_stay_what_they_are(home):
  for error in (FileNotFoundError(), ValueError(), UserError('x'), KeyboardInterrupt()):
    with pytest.raises(type(error)) as caught, places.kept(home):
      raise error
    assert caught.value is error


def test_what_is_written_elsewhere_is_not_looked_at(tmp_path, home):
  with places.kept(home):
    home.rename(tmp_path / 'other')
    for path in (tmp_path / 'a', home.with_name('home2'), home.parent / 'a'):
      durable.write(path, b'1')
  home.mkdir()
  durable.write(home / 'a', b'1')  # It is not kept any more.


def test_a_folder_that_cannot_be_looked_at_has_not_moved(home, monkeypatch):
  def refuse(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))

  with places.kept(home):
    monkeypatch.setattr('pathlib.Path.stat', refuse)
    places.check(home / 'a')


def test_a_relative_path_means_what_it_means_where_the_process_is(home, monkeypatch):
  monkeypatch.chdir(home.parent)
  relative = home.relative_to(home.parent)
  with places.kept(relative):
    home.parent.rename(home.parents[1] / 'elsewhere')  # With the process in it.
    durable.write(relative / 'a', b'1')
    assert (home.parents[1] / 'elsewhere' / 'home' / 'a').read_bytes() == b'1'
    shutil.rmtree(home.parents[1] / 'elsewhere')
    with pytest.raises(UserError, match=r'^home was removed or replaced'):
      durable.write(relative / 'a', b'1')


def test_a_run_keeps_its_directory(home):
  with refused('moved to .*/other'), directory.owned(home):
    home.rename(home.parent / 'other')
    directory.claim(home, 'segment', Config())


def output(home):
  images = {name: home.parent / f'{name}.png' for name in ('a', 'b', 'c')}
  for path in images.values():
    path.touch()
  return Output(home, {}, ['image', 'status'], images)


def put(out, name):
  size = out.put(f'masks/{name}.png', lambda path: path.write_bytes(b'mask'))
  out.append([{'image': name, 'status': OK}], {f'masks/{name}.png': size})


@pytest.mark.parametrize('move', MOVES)
@pytest.mark.parametrize('at', ['next', 'end'])
def test_predictions_end_where_their_folder_is_moved_and_go_on_where_it_is_put_back(
  tmp_path, home, move, at
):
  change, said = MOVES[move]
  shutil.rmtree(home)
  with refused(said), output(home) as out:
    put(out, 'a')
    change(home)
    before = everything(tmp_path)
    if at == 'next':
      put(out, 'b')
    else:
      out.finish()
  after = everything(tmp_path)
  assert {path for path in after if path not in before} == set()
  there = next((path for path in tmp_path.rglob(made.FILE) if path.parent != home), None)
  if there:
    shutil.rmtree(home, ignore_errors=True)
    home.unlink(missing_ok=True)
    home.parent.mkdir(exist_ok=True)
    there.parent.rename(home)
    with output(home) as out:
      for name in ('a', 'b', 'c'):
        if not out.is_done(name):
          put(out, name)
      out.finish()
    assert (home / 'predictions.csv').read_text() == 'image,status\na,ok\nb,ok\nc,ok\n'
