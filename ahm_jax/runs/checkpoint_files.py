"""A checkpoint as it lies on disk: read without its task, and held against what was saved.

Only a wrong digest, or what cannot be parsed, is damage. What the system refuses to read is not: so
every file is read here, and TensorStore, whose errors do not tell the two apart, parses what is in
memory.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorstore

from ahm_jax.errors import UserError, cannot_read
from ahm_jax.runs import array_headers
from ahm_jax.runs.progress import Progress
from ahm_jax.task import TrainState

FOLDER = 'checkpoints'  # In a run's directory; holds a folder for each step.
STATE = 'default'  # Orbax's name for the part of a checkpoint that holds arrays,
METRICS = 'metrics'  # and for the one that holds numbers.
DIGESTS = 'digests'  # Among the numbers: a digest of each part of the state,
SEAL = 'seal'  # and one of all the numbers.
_NUMBERS = {*Progress._fields, DIGESTS}
_HEADER = '.zarray'
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedCheckpoint(Exception):
  """A checkpoint that cannot be used; the message completes 'the checkpoint ...'."""


class Saved(NamedTuple):
  """What a checkpoint holds beside its arrays."""

  progress: Progress
  digests: dict[str, str]  # Of the parts of the state.


def numbers(saved: Saved) -> dict[str, Any]:
  """What is to be written of it, as JSON, with a seal."""
  found = {**saved.progress._asdict(), DIGESTS: saved.digests}
  return {**found, SEAL: _seal(found)}


def _seal(found: Mapping[str, Any]) -> str:
  plain = json.dumps({name: found[name] for name in _NUMBERS}, sort_keys=True)
  return hashlib.sha256(plain.encode()).hexdigest()


def saved(home: Path) -> Saved:
  """What the checkpoint in the folder `home`, whose name begins with the step, holds beside its
  arrays.

  Raises:
    DamagedCheckpoint: it is not what was saved.
    UserError: it cannot be read.
  """
  content = read(home / METRICS / METRICS)
  with _parsing():
    found = json.loads(content)  # No strict JSON: scores may be -Infinity.
    if set(found) - {SEAL} != _NUMBERS:
      raise ValueError('its numbers are not all there')
    # Those of an earlier version have no seal.
    if found.get(SEAL, _seal(found)) != _seal(found):
      raise ValueError('its numbers are not those that were saved')
    if found['step'] != int(home.name.partition('.')[0]):
      raise ValueError(f'it is of step {found["step"]}')
    kinds = {name: type(default) for name, default in Progress._field_defaults.items()}
    progress = Progress(**{name: kind(found[name]) for name, kind in kinds.items()})
    progress = progress._replace(since_line=tuple(map(dict, progress.since_line)))
    return Saved(progress, dict(found[DIGESTS]))


def arrays(home: Path, parts: Sequence[str] = TrainState._fields) -> dict[str, Any]:
  """Parts of the state in a checkpoint, whatever its task: NumPy arrays in nested dicts.

  Raises:
    DamagedCheckpoint: they are not what was saved.
    UserError: they cannot be read.
  """
  digests = saved(home).digests
  tree = stored(home / STATE, parts)
  if any(digest(tree.get(part, {})) != digests.get(part) for part in parts):
    raise DamagedCheckpoint('is damaged: its numbers are not those that were saved')
  return tree


def stored(folder: Path, parts: Sequence[str]) -> dict[str, Any]:
  """Parts of what Orbax wrote into a folder: NumPy arrays in nested dicts.

  Raises:
    DamagedCheckpoint: they are not there, or not whole.
    UserError: they cannot be read.
  """
  contents = _contents(folder)
  with _parsing():
    return _opened(contents, parts)


def _opened(contents: Mapping[str, bytes], parts: Sequence[str]) -> dict[str, Any]:
  # Arrays one by one: where one is damaged, others that are read with it would go on in threads
  # that complain later.
  tree: dict[str, Any] = {}
  memory, context = 'memory://', tensorstore.Context()
  files = tensorstore.KvStore.open(memory, context=context).result()
  for name, content in contents.items():
    files.write(name, content).result()
  store = {'driver': 'ocdbt', 'base': memory}
  held = tensorstore.KvStore.open(store, context=context).result()
  claimed, size = 0, sum(map(len, contents.values()))
  for file in held.list().result():
    name, _, file_name = file.decode().partition('/')
    if file_name == _HEADER and name.partition('.')[0] in parts:
      claimed += array_headers.claim(held.read(file).result().value)
      array_headers.check_total(claimed, size)
      array = {'driver': 'zarr', 'kvstore': {**store, 'path': f'{name}/'}}
      opened = tensorstore.open(array, context=context).result()
      _put(tree, name.split('.'), opened.read().result())
  return tree


def _put(tree: dict, path: Sequence[str], leaf: Any) -> None:
  *nodes, last = path
  for node in nodes:
    tree = tree.setdefault(node, {})
  tree[last] = leaf


def _contents(folder: Path) -> dict[str, bytes]:
  """The files in a folder and below, by their paths there; raises as `_read` does."""

  def fail(error: OSError):
    raise error

  with reading(folder):
    walk = list(os.walk(folder, onerror=fail))
  paths = [Path(home) / name for home, _, names in walk for name in names]
  return {path.relative_to(folder).as_posix(): read(path) for path in paths}


def read(path: Path) -> bytes:
  with reading(path):
    # To open a pipe would wait for its other end.
    if not stat.S_ISREG(path.stat().st_mode):
      raise FileNotFoundError
    return path.read_bytes()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
  """Tells what is not there, which is damage, from what cannot be read now.

  Raises:
    DamagedCheckpoint: it is not there.
    UserError: it cannot be read.
  """
  try:
    yield
  except _ABSENT as error:
    raise DamagedCheckpoint(f'is damaged: {path.name} is not there') from error
  except (OSError, MemoryError) as error:
    cure = 'nothing was moved; make it readable and run the same command again'
    raise UserError(cannot_read(path, error, cure)) from error


@contextlib.contextmanager
def _parsing() -> Iterator[None]:
  try:
    yield
  # TensorStore's are ValueErrors.
  except (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
  ) as error:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DamagedCheckpoint(f'is damaged ({line[:100]})') from error


def digest(tree: Any) -> str:
  """A SHA-256 over all arrays of a pytree, whatever the order and the kind of its nodes."""
  return hashlib.sha256(b''.join(sorted(map(_leaf_digest, jax.tree.leaves(tree))))).hexdigest()


def _leaf_digest(leaf: Any) -> bytes:
  array = np.asarray(leaf.addressable_shards[0].data if isinstance(leaf, jax.Array) else leaf)
  found = hashlib.sha256(f'{array.dtype} {array.shape} '.encode())
  found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
  return found.digest()
