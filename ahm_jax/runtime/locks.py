"""Locks on files, which the system lets go of when a process dies; and file systems without."""

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ahm_jax.errors import UserError

# What a lock of ours holds; a power cut may leave a part of it, or zeros.
_TEXT = re.compile(rb'(p(r(o(c(e(s(s( [^\n]*)?)?)?)?)?)?)?)?\0*')
_OTHERS = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # A link, a folder, a socket.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # Of a file system.
_SHOWN = 100  # Characters of who has a lock.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[TextIO | None]:
  """The file at `path`, made if it is not there, and locked until the context is left; None where
  another process has it.

  It holds nothing, or 'process ...': who has it.

  Args:
    wait: for a process that has it; it is never None then.

  Raises:
    UserError: what is there is no lock file of ours, or may not be written; it is left as it is.
  """
  with _opened(path) as file:
    yield file if _take(file, path, wait) else None


def _opened(path: Path) -> TextIO:
  try:
    # A pipe would wait for somebody to write.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
  except OSError as error:
    if error.errno in _REFUSED:
      raise UserError(
        f'{path} cannot be written ({error.strerror}); make it and its folder writable, or choose '
        'another folder'
      ) from error
    if error.errno in _OTHERS:
      raise _not_ours(path) from error
    raise
  try:
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not (regular and _TEXT.fullmatch(os.pread(descriptor, 4096, 0))):
      raise _not_ours(path)
    return os.fdopen(descriptor, 'r+')
  except BaseException:
    os.close(descriptor)
    raise


def _not_ours(path: Path) -> UserError:
  return UserError(
    f'{path} is not a lock file of this program; move it away, or choose another folder'
  )


def _take(file: TextIO, path: Path, wait: bool) -> bool:
  """Locks an open file until it is closed; False where another process has it.

  Where the file system has no locks, or its server none left (ENOSYS, ENOLCK, EOPNOTSUPP: Lustre
  and NFS without them), one line says so, and the file counts as locked.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    print(
      f'{path} cannot be locked ({error.strerror}), so nobody is kept out of its folder: '
      'start no second command that writes there',
      file=sys.stderr,
    )
  return True


def owner(path: Path) -> str:
  """Who has a file locked, in one line; '' where it does not say."""
  try:
    return path.read_text(encoding='utf-8', errors='replace').strip('\0')[:_SHOWN]
  except OSError:
    return ''
