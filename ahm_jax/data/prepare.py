"""Preparation: a data set becomes TFDS data that are never stale or half done."""

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from ahm_jax.config import DataConfig, paths
from ahm_jax.data import manifest, records, sets
from ahm_jax.data.sets.items import PROBLEMS_SHOWN, refuse
from ahm_jax.data.sets.source import DatasetSource, available
from ahm_jax.errors import UserError, printable
from ahm_jax.runtime import durable, locks, places

# Of which a folder of prepared data has one: beside ours, TFDS's own, whole or not yet.
_MARKS = {
  *(manifest.FILE, 'dataset_info.json', 'features.json'),
  *(records.Records.name, 'downloads'),
}


def prepare(config: DataConfig, workdir: Path) -> Path:
  """Writes the TFDS data of `config`, unless they are there for this very config and these very
  files.

  They are kept under `config.prepared_dir`, or `workdir/data`, in a folder whose name changes with
  whatever the data depend on. The folder appears, by renaming, once it is whole. Processes that
  prepare the same data at once wait for the first.

  Returns:
    the folder, for `tfds.builder_from_directory`.

  Raises:
    UserError: there is no such data set, or it cannot be used; one line that names the first files
      that are wrong. Or the folder holds something that is not ours, in the place of what is to be
      written.
  """
  source = sets.find(config)
  home = (
    Path(config.prepared_dir).expanduser() if config.prepared_dir else Path(workdir) / manifest.HOME
  )
  paths.check_named(home, '--config.data.prepared_dir', paths.PREPARING)
  target = home / manifest.folder_name(source.name, cache_key(source, config))
  if target.exists() and not manifest.fault(target):
    return target
  home.mkdir(parents=True, exist_ok=True)
  with places.kept(home), locks.locked(target.with_suffix('.lock'), wait=True):
    fault = manifest.fault(target) if target.exists() else 'none are there'
    if fault:
      _remove(target, fault)
      scratch = target.with_suffix('.incomplete')
      _remove(scratch)
      try:
        built = _build(source, config, scratch)
        manifest.write(built)
        built.rename(target)
        durable.sync_folder(home)
      finally:
        shutil.rmtree(scratch, ignore_errors=True)
  return target


def _remove(folder: Path, fault: str = '') -> None:
  """Removes prepared data, or what is left of a preparation, and says what is wrong with it.

  Raises:
    UserError: it is not ours.
  """
  if not folder.is_symlink() and not folder.exists():
    return
  names = {item.name for item in folder.iterdir()} if folder.is_dir() else {''}
  if folder.is_symlink() or (names and not names & _MARKS):
    raise UserError(f'{folder} is a link, or holds what was not prepared here; remove it')
  if fault:
    said = f'{folder}: the prepared data are damaged ({fault}); they are prepared again'
    print(printable(said), flush=True)
  shutil.rmtree(folder)


def cache_key(source: DatasetSource, config: DataConfig) -> str:
  """A short name of all that the prepared data depend on: config fields, files, and the versions of
  the record and of the data set.
  """
  with available():
    found = source.depends_on(config)
  parts: dict[str, Any] = {
    'versions': [records.VERSION, source.version],
    'size': config.image_size,
    'channels': config.channels,
    'seed': config.split_seed,
    **found,
  }
  if config.modalities:  # Else the key is that of data prepared before there were any.
    parts |= {'modalities': config.modalities, 'intensity': config.intensity}
    parts['may_lack'] = config.modality_dropout > 0
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _build(source: DatasetSource, config: DataConfig, scratch: Path) -> Path:
  """Writes the records of `config` under `scratch`; returns the folder that TFDS made there."""
  tfds.disable_progress_bar()
  builder = records.Records(source=source, options=config, data_dir=scratch)
  problems = builder.problems
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it would download.
      builder.download_and_prepare()
  except AssertionError as error:  # TFDS cannot write a split without records.
    if not problems and 'No examples' in str(error):
      names = ', '.join(builder.unreadable[:PROBLEMS_SHOWN])
      problems = [f'no image of a split can be read ({names}, ...); replace the files']
    elif not problems:
      raise
  refuse(Path(config.root), problems)
  return Path(builder.data_dir)
