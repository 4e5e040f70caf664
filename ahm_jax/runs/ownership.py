"""What in a folder is ours: nothing else is touched, and nothing through a link."""

import contextlib
import fnmatch
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path

from ahm_jax.config.fields import STAGES
from ahm_jax.data import manifest
from ahm_jax.errors import UserError, cannot_read
from ahm_jax.runtime import durable

_OF_SYSTEMS = ('Thumbs.db', 'desktop.ini', 'lost+found')  # What systems put into any folder.
# What shells and clusters write beside a run, often before it starts; also rotated.
_LOGS = re.compile(
  r"""
  .+\.(log|out|err) ([._-]\d+)? (\.gz)?
  | .+\.[oe]\d+ ([._-]\d+)?                                         # Of PBS and Grid Engine.
  | (.*[^a-z])? (logs?|out(put)?|err(ors?)?|std(out|err)|nohup|slurm) ([^a-z].*)? \.txt
  """,
  re.VERBOSE | re.IGNORECASE,
)
_NAMED = 3  # Files that a message names.


def check_free(folder: Path, mark: str, before: Collection[str]) -> None:
  """Makes sure that a folder is ours, or free to become so.

  Args:
    mark: the file that a folder of ours has.
    before: names of what may lie there earlier than that.

  Raises:
    UserError: it holds something else.
  """
  others = sorted(
    item.name for item in _items(folder) if item.name not in before and not _is_nothing(item, mark)
  )
  # Another process may have made the mark, and then the others, since the folder was listed.
  if not others or (Path(folder) / mark).exists():
    return
  named = ', '.join(others[:_NAMED])
  more = f' and {len(others) - _NAMED} more' if len(others) > _NAMED else ''
  raise UserError(
    f'{folder} is not empty, and has no {mark} that would make it ours: it holds {named}{more}; '
    f'choose an empty folder, or one to be made (or restore {mark}, if a run began here)'
  )


def _items(folder: Path) -> list[Path]:
  try:
    return list(Path(folder).iterdir()) if Path(folder).is_dir() else []
  except OSError as error:
    cure = 'make it readable, or choose another folder'
    raise UserError(cannot_read(folder, error, cure)) from error


def _is_nothing(item: Path, mark: str) -> bool:
  """Whether something makes a folder no less empty: what systems leave, hidden files, logs, files
  half written by us, data that was prepared, and runs where those of a grid lie.
  """
  name = item.name
  if is_clutter(item):
    return True
  if name in STAGES:
    return _holds_runs(item, mark)
  return name == manifest.HOME and item.is_dir() and all(map(_is_prepared, _items(item)))


def is_clutter(item: Path) -> bool:
  """Whether it is a hidden file, one that systems leave, a log, or a file half written by us."""
  of_systems = item.name.startswith('.') or item.name in _OF_SYSTEMS
  return of_systems or durable.is_scratch(item) or is_log(item)


def is_log(item: Path) -> bool:
  """Whether it is a file that a log is in by its name, or what this process prints."""
  return item.is_file() and (_LOGS.fullmatch(item.name) is not None or _is_printed_to(item))


def _is_printed_to(item: Path) -> bool:
  # Where several processes train, what C++ prints on descriptor 2 is caught; `sys.stderr` is still
  # what it was.
  for stream in filter(None, (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
    # Where it is closed, or no file.
    with contextlib.suppress(OSError, ValueError, AttributeError):
      if os.path.samestat(os.fstat(stream.fileno()), item.stat()):
        return True
  return False


def _holds_runs(folder: Path, mark: str) -> bool:
  """Whether a folder holds folders of ours, at whatever depth, and nothing else."""
  if not folder.is_dir() or folder.is_symlink():
    return False
  items = (item for item in _items(folder) if not item.name.startswith('.'))
  return all((item / mark).exists() or _holds_runs(item, mark) for item in items)


def _is_prepared(item: Path) -> bool:
  return item.name.startswith('.') or manifest.is_ours(item.name)


def check_kinds(folder: Path, folders: Collection[str], files: Collection[str]) -> None:
  """Makes sure that what has a name of ours in a folder is a folder, or a file, itself.

  Args:
    folders, files: patterns of names.

  Raises:
    UserError: it is a link, or of another kind.
  """
  for item in _items(folder):
    is_folder = _matches(item.name, folders)
    if not is_folder and not _matches(item.name, files):
      continue
    if item.is_symlink():
      raise UserError(
        f'{item} is a link, and nothing is written through links; put what it leads to in its '
        'place, or choose another folder'
      )
    if not (item.is_dir() if is_folder else item.is_file()):
      what = 'folder' if is_folder else 'file'
      raise UserError(
        f'{item} is no {what}, and one of ours belongs there; move it away, or choose another '
        'folder'
      )


def _matches(name: str, patterns: Collection[str]) -> bool:
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_way(root: Path, folder: Path) -> None:
  """Makes sure that no folder on the way from `root` down to `folder` is a link; raises a
  UserError.
  """
  for part in (folder, *folder.parents):
    if part == root:
      return
    if part.is_symlink():
      raise UserError(
        f'{part} is a link, and nothing is written through links; put what it leads to in its place'
      )
