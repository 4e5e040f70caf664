"""What lies where a lock is to be made, for everybody who takes one."""

import errno
import os

import pytest

from ahm_jax.config import DataConfig, PhantomConfig
from ahm_jax.data import prepare as preparation
from ahm_jax.data import sets
from ahm_jax.errors import UserError
from ahm_jax.predict.output import Output
from ahm_jax.runs.directory import LOCK, alone, owned
from ahm_jax.runtime import locks
from tests.runs.test_ownership import everything

TINY = DataConfig(image_size=16, phantom=PhantomConfig(train=1, validation=1, test=1))
PREPARED = f'phantom-{preparation.cache_key(sets.find(TINY), TINY)}.lock'


def have_alone(home):
  with alone(home) as own:
    assert own


def own(home):
  with owned(home):
    pass


def predict(home):
  with Output(home, {}, ['image'], {}):
    pass


def prepare(home):
  preparation.prepare(DataConfig(**{**vars(TINY), 'prepared_dir': str(home)}), home)


USERS = {
  'cell': (LOCK, have_alone),
  'run': (LOCK, own),
  'predictions': (LOCK, predict),
  'prepared data': (PREPARED, prepare),
}
EACH = pytest.mark.parametrize('user', USERS)
OTHERS = {
  'text': lambda path: path.write_text('mine'),
  'number': lambda path: path.write_text('1234\n'),
  'bytes': lambda path: path.write_bytes(b'\x00\xff' * 5000),
  'link': lambda path: path.symlink_to(path.parent.parent / 'outside'),
  'link to nothing': lambda path: path.symlink_to(path.parent.parent / 'nowhere'),
  'link to itself': lambda path: path.symlink_to(path),
  'folder': lambda path: path.mkdir(),
  'pipe': os.mkfifo,
}


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A folder that a lock is to be made in; nothing else is made there."""

  def build(*_):
    raise AssertionError('nothing is to be prepared')

  monkeypatch.setattr(preparation, '_build', build)
  (tmp_path / 'outside').write_text('process 1 on host')
  (tmp_path / 'home').mkdir()
  return tmp_path / 'home'


@pytest.mark.parametrize('kind', OTHERS)
@EACH
def test_what_is_no_lock_of_ours_is_left_alone(home, user, kind):
  name, use = USERS[user]
  OTHERS[kind](home / name)
  before = everything(home.parent)
  with pytest.raises(
    UserError, match=rf'/{name} is not a lock file of this program; move it away'
  ) as caught:
    use(home)
  assert '\n' not in str(caught.value)
  assert everything(home.parent) == before


@pytest.mark.parametrize('number', [errno.EACCES, errno.EPERM, errno.EROFS])
@EACH
def test_a_lock_that_may_not_be_written_is_named(home, monkeypatch, user, number):
  name, use = USERS[user]
  (home / name).touch()
  opened = os.open

  def refuse(path, *arguments, **options):
    if str(path) == str(home / name):
      raise OSError(number, os.strerror(number), str(path))
    return opened(path, *arguments, **options)

  monkeypatch.setattr(os, 'open', refuse)
  said = rf'/{name} cannot be written \({os.strerror(number)}\); make it and its folder writable'
  with pytest.raises(UserError, match=said):
    use(home)


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out_and_says_so(
  tmp_path, monkeypatch, capsys, number
):
  monkeypatch.setattr(locks.fcntl, 'flock', refusing(number))
  with locks.locked(tmp_path / 'a.lock', wait=False) as file:
    assert file is not None
  assert 'a.lock cannot be locked' in capsys.readouterr().err


@pytest.mark.parametrize('number', [errno.EIO, errno.ESTALE])
def test_a_lock_that_fails_is_none(tmp_path, monkeypatch, number):
  monkeypatch.setattr(locks.fcntl, 'flock', refusing(number))
  with pytest.raises(OSError, match=os.strerror(number)), locks.locked(tmp_path / 'a', wait=False):
    pass


def refusing(number):
  def refuse(*_):
    raise OSError(number, os.strerror(number))

  return refuse


def test_prepared_data_leave_an_empty_lock(home, monkeypatch):
  def build(*arguments):
    made = arguments[-1] / 'made'
    made.mkdir(parents=True)
    return made

  monkeypatch.setattr(preparation, '_build', build)
  prepare(home)
  assert (home / PREPARED).read_bytes() == b''


def test_a_lock_of_ours_is_taken_again(tmp_path):
  for _ in range(2):
    with alone(tmp_path) as own:
      assert own
      assert (tmp_path / LOCK).read_text().startswith(f'process {os.getpid()} on ')


@pytest.mark.parametrize(
  'left', [b'', b'proc', b'process 7 on ', bytes(30), b'process 7' + bytes(9)]
)
def test_a_lock_that_a_power_cut_left_is_taken(tmp_path, left):
  (tmp_path / LOCK).write_bytes(left)
  with alone(tmp_path) as own:
    assert own


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    (b'process 7 on host', 'process 7 on host'),
    (b'process 7\0\0', 'process 7'),
    (b'process 7 on \xff\x1b[31m', 'process 7 on \ufffd\\x1b[31m'),
    (b'', 'another process'),
  ],
)
def test_who_has_a_lock_is_said_in_one_line(home, monkeypatch, text, said):
  (home / LOCK).write_bytes(text)
  monkeypatch.setattr(locks, '_take', lambda *_: False)
  with pytest.raises(UserError) as caught:
    own(home)
  assert str(caught.value).startswith(f'{said} is at work in {home}; ')
