"""Folders that a command is at work in. One that is moved away meanwhile leaves its name free: what
is written by that name later would lie elsewhere than what was written before.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ahm_jax.errors import UserError

_FLAGS = os.O_DIRECTORY | getattr(os, 'O_PATH', os.O_RDONLY)  # O_PATH asks for no permission.


class _Kept(NamedTuple):
  """A folder by its name, and by what it is."""

  path: Path
  # Held open, so that the system gives its numbers to no other folder.
  descriptor: int
  numbers: tuple[int, int]


_kept: list[_Kept] = []


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
  """Until the context is left, `check` watches over a folder, which is there, in this process.

  Raises:
    UserError: it was moved or replaced, where the block ends by an error of the system.
  """
  descriptor = os.open(folder, _FLAGS)
  found = os.fstat(descriptor)
  own = _Kept(Path(folder), descriptor, (found.st_dev, found.st_ino))
  _kept.append(own)
  try:
    yield
  except OSError:
    check(own.path)
    raise
  finally:
    _kept.remove(own)
    os.close(descriptor)


def check(path: Path) -> None:
  """Makes sure, before something is written at `path`, that no folder that is kept, there or above
  it, was moved or replaced; raises a UserError.
  """
  for own in tuple(_kept):
    if _is_below(path, own.path) and not _is_in_place(own):
      raise UserError(_line(own))


def _is_below(path: Path, folder: Path) -> bool:
  try:
    return path.absolute().is_relative_to(folder.absolute())
  except FileNotFoundError:  # The folder that relative paths start from was removed.
    return True


def _is_in_place(own: _Kept) -> bool:
  try:
    found = own.path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  except (OSError, MemoryError):  # That says nothing of where it is; to write will fail too.
    return True
  return (found.st_dev, found.st_ino) == own.numbers


def _line(own: _Kept) -> str:
  now = _now(own)
  if now is None:
    what, cure = 'removed or replaced', 'put it back'
  else:
    what, cure = f'moved to {now}', 'what is saved is there; move it back'
  if own.path.exists():
    cure += ' (another has its name now: remove or rename that first)'
  return (
    f'{own.path} was {what} while this command was at work in it; {cure}, and run the same '
    'command again'
  )


def _now(own: _Kept) -> Path | None:
  """Where the folder lies now; None where it is gone, or the system does not tell."""
  try:
    now = Path(f'/proc/self/fd/{own.descriptor}').readlink()
    found = now.stat()
  except OSError:
    return None
  return now if (found.st_dev, found.st_ino) == own.numbers else None
