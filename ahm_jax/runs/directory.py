"""What a run's directory holds beside its checkpoints: run.json, with the stage and the whole
config, and other files, whose names stand here.
"""

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ahm_jax.config import Config, check_same, from_config_dict, paths, to_dict
from ahm_jax.config.fields import STAGES
from ahm_jax.data import manifest
from ahm_jax.errors import UserError
from ahm_jax.runs import (
  checkpoint_files,
  checkpoint_folders,
  metrics_log,
  ownership,
  snapshots,
)
from ahm_jax.runs.stage import Stage, names
from ahm_jax.runtime import locks, places, schema
from ahm_jax.runtime.json_files import read_json, write_json

FILE = 'run.json'
IMAGES = 'images.json'  # What a run learns from, or a grid compares on; see `provenance`.
DATA = 'data.json'  # How many images it had, for its model card.
CLASSES = 'classes.json'  # The diagnoses that a classifier distinguishes.
IMPORTED = 'imported.json'  # What it took from other people's weights.
EVALUATION = 'evaluation.json'
CONDITIONS = ('stage', 'split', 'threshold')  # What that holds beside scores: how they were made.
PER_IMAGE = 'per_image.csv'
RESULTS = 'results.json'  # Of a grid.
REPORT = 'report.html'
PROFILE = 'profile'
LOCK = '.lock'
CHECKS = ('check.json', 'check.html')  # What `prepare_data --check` found.
PICTURES = ('masks.png', 'strategies.png', 'movement.png')  # Beside the report.
# Scores of the run, and of others on the same images, by their patterns.
EVALUATIONS = ('evaluation*.json', 'per_image*.csv')
# What a command may leave in a directory before its run has a run.json. Prepared data too.
BEFORE = (LOCK, IMAGES, *CHECKS, PROFILE)
# Folders and files that a run or a grid writes, by their patterns.
FOLDERS = (
  *(checkpoint_files.FOLDER, checkpoint_folders.DAMAGED, snapshots.FOLDER, manifest.HOME),
  *(PROFILE, *STAGES),
)
FILES = (
  *(FILE, IMAGES, DATA, CLASSES, IMPORTED, RESULTS, REPORT, LOCK, metrics_log.FILE),
  *(*CHECKS, *EVALUATIONS, *PICTURES, 'dice.svg', 'vs_*.svg'),
)

_RESTORE = 'restore it, or choose another --workdir'
_RUN = schema.record({'stage': schema.text, 'config': schema.mapping()}, {'workdir': schema.text})
_CLASSES = schema.list_of(schema.text, unique=True)
SUMMARY = schema.record(
  {
    'name': schema.text,
    'splits': schema.mapping(
      schema.record(dict.fromkeys(('images', 'masks', 'labels'), schema.count()))
    ),
    'class_names': _CLASSES,
    'trained_on': schema.count(1),
  }
)


class Held(NamedTuple):
  """What run.json says."""

  stage: str  # Or REPRODUCE.
  config: Config
  workdir: str  # As what it was begun; '': unknown, as in runs of old.


def held_run(workdir: Path) -> Held | None:
  """The run or grid that a folder holds; None where it holds none. Raises a UserError where that
  cannot be read.
  """
  path = Path(workdir) / FILE
  told = read_json(path, _RUN, _RESTORE)
  if told is None:
    return None
  try:
    return Held(told['stage'], from_config_dict(told['config']), told.get('workdir', ''))
  except UserError as error:
    raise UserError(f'{path} is damaged, or of another version: {error}; {_RESTORE}') from error


def check(workdir: Path, stage: str, config: Config) -> None:
  """Makes sure that `workdir` holds no run but this one; writes nothing.

  Where the data folder that it began with is gone, another may take its place, if the run has
  written down what it learns from.

  Raises:
    UserError: it holds a run of another stage, or one whose config differs in a field that the
      result depends on; or see `check_folder`.
  """
  check_folder(workdir)
  if held := held_run(workdir):
    if held.stage != stage:
      raise UserError(
        f'{workdir} holds a {held.stage} run, not a {stage} run; choose another --workdir'
      )
    free: tuple[str, ...] = ('init_from',) if _same_start(held, workdir, config) else ()
    is_known = (Path(workdir) / IMAGES).exists()
    free += ('data.root',) if is_known and is_gone(held.config.data.root) else ()
    remedy = 'choose another --workdir, or set the field back'
    check_same(f'{workdir} holds a {stage} run', stage, to_dict(held.config), config, free, remedy)


def check_folder(workdir: Path) -> None:
  """Makes sure that a run may write into a folder; writes nothing.

  Raises:
    UserError: its path is none that checkpoints can be saved below; it holds something, but no run
      of ours; or it has a link, or anything else that we have not made, where a file or folder of
      a run lies.
  """
  paths.check_named(workdir, '--workdir', paths.SAVING)
  ownership.check_kinds(workdir, FOLDERS, FILES)
  ownership.check_free(workdir, FILE, BEFORE)


def claim(workdir: Path, stage: str, config: Config) -> None:
  """Makes `workdir` the directory of this run, or makes sure that it already is; raises as `check`
  does.

  To be called when nothing can be refused any more: what is refused must leave the directory free
  for the corrected command.
  """
  check(workdir, stage, config)
  Path(workdir).mkdir(parents=True, exist_ok=True)
  write_json(
    Path(workdir) / FILE, {'stage': stage, 'workdir': str(workdir), 'config': to_dict(config)}
  )


def is_gone(path: str) -> bool:
  """Whether a path that a config names, as it may, is not there."""
  # `Path.expanduser` raises where there is no such user.
  return path != '' and not os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111


def check_writable(path: Path, flag: str) -> None:
  """Makes sure that a folder is there and can be written into, or can be made; makes nothing.

  Args:
    flag: that names the folder.

  Raises:
    UserError: it cannot.
  """
  nearest = next(home for home in (path, *path.absolute().parents) if os.path.lexists(home))
  if not nearest.is_dir():
    raise UserError(f'--{flag}={path} cannot be made: {nearest} is not a folder; choose another')
  if not os.access(nearest, os.W_OK | os.X_OK):
    raise UserError(
      f'--{flag}={path} cannot be written: {nearest} is read-only for this user; choose another'
    )


def _same_start(held: Held, workdir: Path, config: Config) -> bool:
  """Whether `init_from` lies where it did, seen from the run: both were moved together, or are
  named in another way.
  """
  old, new = held.config.init_from, config.init_from
  if not (old and new and held.workdir):
    return False
  return os.path.relpath(old, held.workdir) == os.path.relpath(new, workdir)


_OWN: set[Path] = set()  # The directories that this process has to itself.


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[bool]:
  """Whether this process has `workdir` to itself, until the context is left.

  The system lets go of it when the process dies. Where the file system has no locks, that is said,
  and nobody is kept out.
  """
  own = Path(workdir).resolve()
  if own in _OWN:
    yield True
    return
  places.check(Path(workdir))
  own.mkdir(parents=True, exist_ok=True)
  with locks.locked(own / LOCK, wait=False) as file:
    if file is None:
      yield False
      return
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    _OWN.add(own)
    try:
      with places.kept(workdir):
        yield True
    finally:
      _OWN.remove(own)


@contextlib.contextmanager
def owned(workdir: Path) -> Iterator[None]:
  """Has `workdir` to itself, until the context is left.

  Raises:
    UserError: another process has it.
  """
  with alone(workdir) as own:
    if not own:
      other = locks.owner(Path(workdir) / LOCK) or 'another process'
      raise UserError(
        f'{other} is at work in {workdir}; wait until it is done, or choose another --workdir'
      )
    yield


def read(workdir: Path, stages: Sequence[Stage]) -> tuple[Stage, Config]:
  """The stage and config of the run that `workdir` holds; `init_from` is where it lies now, if
  both were moved together.

  Raises:
    UserError: it holds no run, or one of a stage that is not among `stages`.
  """
  held = held_run(workdir)
  if held is None:
    raise UserError(f'{workdir} holds no run; give the --workdir of a {names(stages)} run')
  stage = next((stage for stage in stages if stage.name == held.stage), None)
  if stage is None:
    raise UserError(
      f'{workdir} holds a {held.stage} run; give the --workdir of a {names(stages)} run'
    )
  config = held.config
  if held.workdir and is_gone(config.init_from):
    moved = os.path.normpath(Path(workdir) / os.path.relpath(config.init_from, held.workdir))
    config = dataclasses.replace(config, init_from=moved) if Path(moved).exists() else config
  return stage, config


def class_names(workdir: Path) -> tuple[str, ...]:
  """The diagnoses that the run in `workdir` distinguishes, in the order of its outputs; raises a
  UserError where they cannot be read.
  """
  cure = f'write the list class_names of {DATA} beside it into it'
  return tuple(read_json(Path(workdir) / CLASSES, _CLASSES, cure) or ())


def summary(workdir: Path) -> dict[str, Any] | None:
  """What data.json holds; None where a run of old has none. Raises a UserError where it cannot be
  read.
  """
  cure = f'remove it; the command that trains in {workdir} writes it again'
  return read_json(Path(workdir) / DATA, SUMMARY, cure)
