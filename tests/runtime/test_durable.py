import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ahm_jax.runs import snapshots
from ahm_jax.runtime import durable, json_files, schema


@pytest.fixture
def synced(monkeypatch):
  """What was synced, in order, and 'rename' for a rename."""
  calls, fsync, rename = [], os.fsync, os.replace

  def count(descriptor):
    calls.append(Path(f'/proc/self/fd/{descriptor}').readlink().name)
    fsync(descriptor)

  def renamed(*args, **named):
    calls.append('rename')
    rename(*args, **named)

  monkeypatch.setattr(os, 'fsync', count)
  monkeypatch.setattr(os, 'replace', renamed)
  return calls


@pytest.mark.parametrize(
  ('write', 'name'),
  [
    (lambda home: durable.write(home / 'a.bin', b'1'), 'a.bin'),
    (lambda home: json_files.write_json(home / 'a.json', [1]), 'a.json'),
    (lambda home: snapshots.write(home.parent, 5, {'policy': np.zeros(2)}), '5.npz'),
  ],
  ids=['write', 'json', 'snapshot'],
)
def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, synced, write, name):
  home = tmp_path / snapshots.FOLDER
  home.mkdir()
  write(home)
  scratch, rename, folder = synced
  assert scratch.startswith(f'{name}.')
  assert durable.is_scratch(home / scratch)
  assert (rename, folder) == ('rename', home.name)
  assert [path.name for path in home.iterdir()] == [name]


@pytest.mark.parametrize('failing', ['write', 'sync'])
def test_where_writing_fails_the_earlier_file_stays(tmp_path, monkeypatch, failing):
  path = tmp_path / 'a.json'
  json_files.write_json(path, 1)

  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  if failing == 'write':
    monkeypatch.setattr('pathlib.Path.write_bytes', fail)
  else:
    monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='No space'):
    json_files.write_json(path, 2)
  assert json_files.read_json(path, schema.count()) == 1
  assert [item.name for item in tmp_path.iterdir()] == ['a.json']


@pytest.mark.parametrize(('number', 'passes'), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_without_synced_folders_will_do(tmp_path, monkeypatch, number, passes):
  fsync = os.fsync

  def refuse_folders(descriptor):
    if Path(f'/proc/self/fd/{descriptor}').is_dir():
      raise OSError(number, os.strerror(number))
    fsync(descriptor)

  monkeypatch.setattr(os, 'fsync', refuse_folders)
  if passes:
    durable.write(tmp_path / 'a', b'1')
  else:
    with pytest.raises(OSError, match='Input/output'):
      durable.write(tmp_path / 'a', b'1')
  assert (tmp_path / 'a').read_bytes() == b'1'
