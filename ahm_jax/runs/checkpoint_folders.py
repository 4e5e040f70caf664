"""A run's checkpoints, a folder for each step: listed, put in their place, removed, set aside.

Only what bears this program's mark is moved or removed, and nothing through a link.
"""

import contextlib
import itertools
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from ahm_jax.errors import UserError, printable
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs.checkpoint_files import DamagedCheckpoint
from ahm_jax.runtime import durable

MARK = {'program': 'ahm_jax'}  # In the description of a checkpoint, which is Orbax's,
_DESCRIPTION = '_CHECKPOINT_METADATA'
# and a name that its numbers alone have, for those of an earlier version. One file may be damaged.
_MARKS = {_DESCRIPTION: b'"ahm_jax"', f'{files.METRICS}/{files.METRICS}': b'"validations_since'}
_SAVING = '.ahm_jax-saving'  # After the step, in the name of one that is written and not in place,
_DELETED = '.ahm_jax-deleted'  # and of one that is being removed.
_UNFINISHED = re.compile(r'\d+\.ahm_jax-(saving|deleted)(\..+)?')
DAMAGED = 'damaged'  # Beside the checkpoints; takes those that cannot be used.


def directory(workdir: Path) -> Path:
  return Path(workdir).absolute() / files.FOLDER


def home(workdir: Path, step: int) -> Path:
  return directory(workdir) / str(step)


def is_at_work(workdir: Path) -> bool:
  """Whether a checkpoint is being written or removed, or was when a process was killed."""
  with contextlib.suppress(OSError):
    return any(_UNFINISHED.fullmatch(path.name) for path in directory(workdir).iterdir())
  return False


def saving(workdir: Path, step: int) -> Path:
  """Where a checkpoint is written, until `commit` puts it in its place."""
  return directory(workdir) / f'{step}{_SAVING}'


def steps(workdir: Path) -> list[int]:
  """The steps of all checkpoints in a run's directory, in order; loads nothing.

  Raises:
    UserError: they cannot be listed.
  """
  return sorted(int(name) for name in _names(workdir) if _is_step(name))


def _names(workdir: Path) -> list[str]:
  folder = directory(workdir)
  try:
    with files.reading(folder):
      return sorted(path.name for path in folder.iterdir())
  except DamagedCheckpoint:
    return []


def _is_step(name: str) -> bool:
  return name.isdecimal() and name == str(int(name))


def scores(workdir: Path) -> dict[int, float]:
  """Of each checkpoint whose numbers are sound, the earliest first.

  Raises:
    UserError: they cannot be read.
  """
  found = {}
  for step in steps(workdir):
    with contextlib.suppress(DamagedCheckpoint):
      found[step] = files.saved(home(workdir, step)).progress.score
  return found


def best(found: dict[int, float]) -> int:
  """The step with the highest score, of equal ones the latest."""
  return max(found, key=lambda step: (found[step], step))


def tidy(workdir: Path) -> None:
  """Puts in place what a killed run had written, and removes what it had half written or half
  removed.

  Raises:
    UserError: there is something that is not this program's, or a link; or it cannot be read.
  """
  for folder in (directory(workdir), Path(workdir) / DAMAGED):
    if _is_link(folder):
      raise UserError(f'{folder} is a link; nothing was touched; put a folder in its place')
  names = _names(workdir)
  for name in filter(_is_step, names):
    if not _is_ours(directory(workdir) / name):
      raise UserError(
        f'{directory(workdir) / name} is no checkpoint of this program, or damaged beyond '
        'recognition; nothing was touched; move it elsewhere, or choose another --workdir'
      )
  for name in names:
    path = directory(workdir) / name
    if name.endswith(_SAVING) and _is_ours(path):
      _commit_if_sound(workdir, int(name.removesuffix(_SAVING)))
    # Its name is a mark too: a power cut may have emptied the files of one that was being saved.
    elif _UNFINISHED.fullmatch(name) and not _is_link(path):
      shutil.rmtree(path)


def _is_ours(path: Path) -> bool:
  return not _is_link(path) and any(_has(path / name, mark) for name, mark in _MARKS.items())


def _is_link(path: Path) -> bool:
  with files.reading(path):
    return path.is_symlink()


def _has(path: Path, mark: bytes) -> bool:
  try:
    return mark in files.read(path)
  except DamagedCheckpoint:
    return False


def _commit_if_sound(workdir: Path, step: int) -> None:
  try:
    files.arrays(saving(workdir, step))
  except DamagedCheckpoint:
    shutil.rmtree(saving(workdir, step))
  else:
    commit(workdir, step)


def commit(workdir: Path, step: int) -> None:
  """Puts a checkpoint that was written in its place, once it is on disk; an earlier one of that
  step goes.
  """
  for path in _with_all_below(saving(workdir, step)):
    durable.sync_folder(path) if path.is_dir() else durable.sync(path)
  # Others may be reading: what is removed must not keep them from the new one for long.
  earlier = _take_away(workdir, step) if step in steps(workdir) else None
  saving(workdir, step).rename(home(workdir, step))
  durable.sync_folder(directory(workdir))
  if earlier:
    _remove(earlier)


def _with_all_below(folder: Path) -> Iterator[Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _with_all_below(path)
    else:
      yield path
  yield folder


def prune(workdir: Path) -> None:
  """Removes all checkpoints but the last two and the best."""
  found = scores(workdir)
  kept = {*list(found)[-2:], best(found)} if found else set()
  for step in found.keys() - kept:
    _remove(_take_away(workdir, step))


def _take_away(workdir: Path, step: int) -> Path:
  """Gives a checkpoint another name, since a folder that is half removed must have one."""
  path = directory(workdir) / f'{step}{_DELETED}.{uuid.uuid4().hex}'
  home(workdir, step).rename(path)
  return path


def _remove(path: Path) -> None:
  """Removes a checkpoint that was taken away; what cannot be removed now, as what a reader keeps
  open on NFS, is left to `tidy`.
  """
  shutil.rmtree(path, ignore_errors=True)


def set_aside(workdir: Path, step: int, problem: str) -> None:
  """Moves a checkpoint out of the way, and says so on standard error."""
  folder = Path(workdir) / DAMAGED
  folder.mkdir(exist_ok=True)
  names = itertools.chain([str(step)], (f'{step}-{number}' for number in itertools.count(1)))
  target = next(folder / name for name in names if not os.path.lexists(folder / name))
  home(workdir, step).rename(target)
  said = f'the checkpoint of step {step} {problem}; it is not used, and was moved to {target}'
  print(printable(said), file=sys.stderr)
