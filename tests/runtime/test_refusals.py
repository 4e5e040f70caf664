"""What the system refuses, simulated: a limit, a file system without locks, a missing backend."""

import errno
import os
import resource
import threading
import types

import jax
import pytest

from ahm_jax.errors import UserError
from ahm_jax.runs import directory
from ahm_jax.runtime import compilation, limits, locks, refusals

REFUSED = [
  (PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/a/b'), '/a/b: Permission denied; '),
  (OSError(errno.EROFS, os.strerror(errno.EROFS), b'/a'), '/a: Read-only file system; '),
  (OSError(errno.EIO, os.strerror(errno.EIO)), 'Input/output error; '),
  (OSError(errno.ESTALE, os.strerror(errno.ESTALE), 'a\nb'), 'a\\nb: Stale file handle; '),
  (OSError(errno.EMFILE, os.strerror(errno.EMFILE), 'a'), '(ulimit -n)'),
  (FileNotFoundError(errno.ENOENT, 'No usable temporary directory found in [...]'), 'set TMPDIR'),
  (MemoryError(), 'out of memory (MemoryError); take a smaller batch_size'),
  (RuntimeError('std::bad_alloc'), 'out of memory (std::bad_alloc)'),
  (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'), 'out of memory (RESOURCE_EX'),
  (RuntimeError("can't start new thread"), 'no more threads'),
  (RuntimeError('Could not determine home directory.'), 'a path begins with ~'),
]
FAULTS = [
  FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), 'a'),
  ValueError('shapes'),
  RuntimeError('a fault'),
  AssertionError(),
  UnicodeDecodeError('utf-8', b'', 0, 1, 'wrong'),
]


@pytest.mark.parametrize(('error', 'said'), REFUSED, ids=lambda item: repr(item)[:40])
def test_what_is_refused_is_explained_in_one_line(error, said):
  outer = ValueError('from it')
  outer.__cause__ = error
  for raised in (error, outer):
    line = refusals.explain(raised)
    assert line is not None and said in line and '\n' not in line


@pytest.mark.parametrize('error', FAULTS, ids=repr)
def test_faults_of_the_program_are_not(error):
  assert refusals.explain(error) is None


def test_letters_that_the_locale_lacks(monkeypatch):
  monkeypatch.setattr(refusals.sys, 'getfilesystemencoding', lambda: 'ascii')
  line = refusals.explain(UnicodeEncodeError('ascii', 'é', 0, 1, 'wrong'))
  assert 'is ascii' in line and 'PYTHONUTF8=1' in line


@pytest.mark.parametrize(
  'error', [RuntimeError("Unable to initialize: 'q' (set JAX_)"), AssertionError()]
)
def test_a_backend_that_is_not_here(monkeypatch, error):
  monkeypatch.setenv('JAX_PLATFORMS', 'quantum')
  module = types.ModuleType('jax._src.xla_bridge')
  exec('def backends(error): raise error', vars(module))
  with pytest.raises(type(error)) as caught:
    module.backends(error)
  line = refusals.explain(caught.value)
  assert line.startswith('JAX finds no device for JAX_PLATFORMS=quantum') and '(set' not in line


def test_limits_that_are_too_low(monkeypatch):
  limits.check()
  before = threading.active_count()
  monkeypatch.setattr(resource, 'getrlimit', lambda _: (2 * 2**30, 2 * 2**30))
  with pytest.raises(UserError, match=r'2.0 GiB of addresses .ulimit -v., and at least 4 GiB'):
    limits.check()
  monkeypatch.undo()
  left = iter([None] * 10)
  start = threading.Thread.start

  def starts(thread):
    if next(left, 0) == 0:
      raise RuntimeError("can't start new thread")
    start(thread)

  monkeypatch.setattr(threading.Thread, 'start', starts)
  with pytest.raises(UserError, match=r'does not let the process start .* threads'):
    limits.check()
  assert threading.active_count() == before


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks(monkeypatch, tmp_path, capsys, number):
  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(locks.fcntl, 'flock', flock)
  with directory.owned(tmp_path), directory.alone(tmp_path) as alone:
    assert alone
  said = f'{tmp_path}/.lock cannot be locked ({os.strerror(number)}), so nobody is kept out'
  assert capsys.readouterr().err.startswith(said)


def test_a_lock_that_another_process_has(monkeypatch, tmp_path):
  def flock(*_):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

  monkeypatch.setattr(locks.fcntl, 'flock', flock)
  with pytest.raises(UserError, match='is at work in'), directory.owned(tmp_path):
    pass


def test_a_user_without_a_home_keeps_no_programs(monkeypatch):
  def nobody(_):
    raise RuntimeError('Could not determine home directory.')

  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(compilation.Path, 'expanduser', nobody)
  monkeypatch.setattr(
    compilation, '_OPTIONS', types.SimpleNamespace(jax_compilation_cache_dir=None)
  )
  changed = []
  monkeypatch.setattr(jax.config, 'update', lambda *change: changed.append(change))
  compilation.keep_programs()
  assert not changed
