"""Locks on files, which the system lets go of when a process dies; and file systems without."""

import fcntl
import sys
from pathlib import Path
from typing import IO


def take(file: IO, path: Path, wait: bool) -> bool:
  """Locks an open file until it is closed; False where another process has it.

  Where the file system has no locks, or its server none left (ENOSYS, ENOLCK, EOPNOTSUPP: Lustre
  and NFS without them), one line says so, and the file counts as locked.

  Args:
    path: of the file, for that line.
    wait: for a process that has it; otherwise the answer is False then.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
  except BlockingIOError:
    return False
  except OSError as error:
    print(
      f'{path} cannot be locked ({error.strerror}), so nobody is kept out of its folder: '
      'start no second command that writes there',
      file=sys.stderr,
    )
  return True
