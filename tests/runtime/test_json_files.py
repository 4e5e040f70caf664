import errno
import gc
import json
import math
import os
import sys
import time
from pathlib import Path

import pytest

from ahm_jax.errors import UserError
from ahm_jax.runtime import json_files, schema
from ahm_jax.runtime.json_files import Damaged, read_json, write_json
from tests.hostile_json import DAMAGES

RUN = schema.record({'stage': schema.text}, {'steps': schema.list_of(schema.count(), unique=True)})


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path):
  path = tmp_path / 'scores.json'
  write_json(path, {'dice': (0.5, math.nan), 'by': {'a': math.inf, 'b': 1}})
  assert read_json(path, schema.anything) == {'dice': [0.5, None], 'by': {'a': None, 'b': 1}}
  assert [item.name for item in tmp_path.iterdir()] == ['scores.json']
  write_json(path, [])
  assert json.loads(path.read_text()) == []


def test_no_file_is_none_and_no_json_is_named(tmp_path):
  assert read_json(tmp_path / 'none.json', schema.anything) is None
  (tmp_path / 'cut.json').write_text('{"dice": ')
  with pytest.raises(UserError, match=r'cut\.json is damaged: it is no JSON'):
    read_json(tmp_path / 'cut.json', schema.anything)


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_said_in_one_line_with_the_cure(tmp_path, damage):
  path = tmp_path / 'run.json'
  path.write_bytes(DAMAGES[damage])
  start = time.monotonic()
  with pytest.raises(Damaged, match=r'run\.json is damaged: .*; choose another$') as caught:
    read_json(path, RUN, 'choose another')
  assert time.monotonic() - start < 5
  said = str(caught.value).removeprefix(str(path))
  assert '\n' not in said
  assert len(said) < 250


@pytest.mark.parametrize(
  ('number', 'said'),
  [
    (errno.EACCES, 'Permission denied'),
    (errno.EIO, 'Input/output error'),
    (errno.EMFILE, 'Too many open files'),
    (errno.ESTALE, 'Stale file handle'),
  ],
)
def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch, number, said):
  path = tmp_path / 'run.json'
  write_json(path, {'stage': 'segment'})

  def refuse(*_, **__):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, 'open', refuse)
  with pytest.raises(UserError, match=rf'run\.json cannot be read \({said}\); make it') as caught:
    read_json(path, RUN)
  assert not isinstance(caught.value, Damaged)


@pytest.mark.parametrize('make', [Path.mkdir, os.mkfifo], ids=['folder', 'pipe'])
def test_what_is_no_file_is_named(tmp_path, make):
  path = tmp_path / 'run.json'
  make(path)
  with pytest.raises(UserError, match=r'run\.json must be a file; move away') as caught:
    read_json(path, RUN)
  assert not isinstance(caught.value, Damaged)


@pytest.mark.parametrize(('place', 'name'), [(json_files, 'parse'), (os, 'fdopen')])
def test_want_of_memory_is_no_damage(tmp_path, monkeypatch, place, name):
  write_json(tmp_path / 'run.json', {'stage': 'a', 'steps': []})

  def refuse(*_, **__):
    raise MemoryError

  monkeypatch.setattr(place, name, refuse)
  with pytest.raises(UserError, match=r'run\.json cannot be read \(out of memory\)') as caught:
    read_json(tmp_path / 'run.json', RUN)
  assert not isinstance(caught.value, Damaged)


def test_within_a_file_there_is_none(tmp_path):
  (tmp_path / 'file').touch()
  assert read_json(tmp_path / 'file' / 'run.json', RUN) is None


@pytest.mark.parametrize(
  ('tree', 'said'),
  [
    ({'stage': 3}, 'stage is 3, not a text'),
    ({'steps': [1]}, 'stage is missing'),
    ({'stage': 'a', 'steps': [1, -1]}, r'steps\[1\] is -1, not a whole number from 0 on'),
    ({'stage': 'a', 'steps': [1, True]}, r'steps\[1\] is True, not a whole number'),
    ({'stage': 'a', 'steps': [1, 1]}, 'steps holds 1 twice'),
    ({'stage': 'a', 'steps': {'b': 1}}, 'steps is an object, not a list'),
    ({'stage': 'a\0b'}, r"stage is 'a\\x00b', not a text"),
    (['stage'], 'it is a list, not an object'),
  ],
)
def test_what_is_wrong_is_said_by_its_place(tmp_path, tree, said):
  write_json(tmp_path / 'run.json', tree)
  with pytest.raises(Damaged, match=rf'run\.json is damaged: {said}.*; restore it, or remove it$'):
    read_json(tmp_path / 'run.json', RUN)


def test_numbers_have_a_range_and_may_be_left_out():
  score = schema.optional(schema.number(0, 1))
  for fine in (None, 0, 1, 0.5):
    schema.require(score, fine)
  for wrong in (7, -0.1, True, '1', 10**30, [0.5]):
    with pytest.raises(ValueError, match=r'it is .*, not a number in \[0, 1\]$'):
      schema.require(score, wrong)
  schema.require(schema.either(score, schema.mapping(score)), {'a': None, 'b': 1})
  with pytest.raises(ValueError, match=r"\['b'\] is 2, not"):
    schema.require(schema.either(score, schema.mapping(score)), {'a': None, 'b': 2})


def test_a_file_that_is_too_large_is_not_read(tmp_path):
  path = tmp_path / 'run.json'
  with path.open('wb') as file:
    file.truncate(2**40)  # It takes no room.
  with pytest.raises(
    Damaged, match=r'run\.json is damaged: it holds 1099511627776 bytes, over 2684'
  ):
    read_json(path, RUN)
  write_json(path, {'stage': 'a' * 100})
  assert read_json(path, RUN, most=path.stat().st_size)
  with pytest.raises(Damaged, match=r', over 10; choose another$'):
    read_json(path, RUN, 'choose another', most=10)


class Cycle:
  """Garbage whose finalizer needs some of the stack."""

  def __init__(self):
    self.itself = self

  def __del__(self):
    self.deeper(40)

  def deeper(self, levels):
    return levels and self.deeper(levels - 1)


def test_what_nests_too_deeply_breaks_nobody_elses_finalizers(monkeypatch):
  failures = []
  monkeypatch.setattr(sys, 'unraisablehook', lambda args: failures.append(args.exc_type))
  thresholds = gc.get_threshold()
  gc.collect()
  try:
    for first in range(1, 2000, 5):  # Objects until the next collection, at any depth.
      Cycle()
      gc.set_threshold(first)
      with pytest.raises(ValueError, match='too deeply'):
        json_files.parse(b'{"a":' * 5000)
      gc.set_threshold(*thresholds)
  finally:
    gc.set_threshold(*thresholds)
  assert not failures and gc.isenabled()
