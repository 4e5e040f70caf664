"""A checkpoint as it lies on disk: read without its task, held against what was saved, set aside
where it is damaged.

Orbax reads many arrays at once, and where one is damaged the others go on in threads that complain
later; so arrays are read here one by one.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

from ahm_jax.task import TrainState

FOLDER = 'checkpoints'  # In a run's directory; holds a folder for each step.
DAMAGED = 'damaged'  # Beside it; takes the checkpoints that cannot be used.
STATE = 'default'  # Orbax's name for the part of a checkpoint that holds arrays,
METRICS = 'metrics'  # and for the one that holds numbers.
DIGESTS = 'digests'  # Among the numbers: a digest of each part of the state.
_HEADER = '.zarray'


class Damaged(Exception):
  """A checkpoint that cannot be used; the message completes 'the checkpoint ...'."""


def directory(workdir: Path) -> Path:
  return Path(workdir).absolute() / FOLDER


def steps(workdir: Path) -> list[int]:
  """The steps of all checkpoints in a run's directory, in order; loads nothing."""
  return sorted(
    int(home.name) for home in directory(workdir).glob('[0-9]*') if home.name.isdecimal()
  )


def numbers(home: Path) -> dict[str, Any]:
  """What the checkpoint in the folder `home` holds beside its arrays; raises Damaged."""
  with _damaged_where_unreadable():
    found = json.loads((home / METRICS / METRICS).read_text())
    return {**found, 'score': float(found['score']), DIGESTS: dict(found[DIGESTS])}


def arrays(home: Path, parts: Sequence[str] = TrainState._fields) -> dict[str, Any]:
  """Parts of the state in a checkpoint, whatever its task: NumPy arrays in nested dicts.

  Raises:
    Damaged: they cannot be read, or are not what was saved.
  """
  tree = stored(home / STATE, parts)
  saved = numbers(home)[DIGESTS]
  if any(digest(tree.get(part, {})) != saved.get(part) for part in parts):
    raise Damaged('is damaged: its numbers are not those that were saved')
  return tree


def stored(folder: Path, parts: Sequence[str]) -> dict[str, Any]:
  """Parts of what Orbax wrote into a folder: NumPy arrays in nested dicts.

  Raises Damaged where they cannot be read.
  """
  with _damaged_where_unreadable():
    return _opened(folder, parts, lambda array: array.read().result())


def shapes(home: Path, parts: Sequence[str] = TrainState._fields) -> dict[str, Any]:
  """As `arrays`, but shapes and dtypes alone, which takes no time: `jax.ShapeDtypeStruct`s in
  nested dicts. Raises Damaged.
  """
  with _damaged_where_unreadable():
    return _opened(
      home / STATE, parts, lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype.numpy_dtype)
    )


def _opened(
  folder: Path, parts: Sequence[str], look: Callable[[tensorstore.TensorStore], Any]
) -> dict[str, Any]:
  tree: dict[str, Any] = {}
  store = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{folder}/'}}
  for file in tensorstore.KvStore.open(store).result().list().result():
    name, _, file_name = file.decode().partition('/')
    if file_name == _HEADER and name.partition('.')[0] in parts:
      array = tensorstore.open(
        {'driver': 'zarr', 'kvstore': {**store, 'path': f'{name}/'}}
      ).result()
      _put(tree, name.split('.'), look(array))
  return tree


def _put(tree: dict, path: Sequence[str], leaf: Any) -> None:
  *nodes, last = path
  for node in nodes:
    tree = tree.setdefault(node, {})
  tree[last] = leaf


@contextlib.contextmanager
def _damaged_where_unreadable() -> Iterator[None]:
  try:
    yield
  # TensorStore's are ValueErrors.
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise Damaged(f'cannot be read ({line[:100]})') from error


def digest(tree: Any) -> str:
  """A SHA-256 over all arrays of a pytree, whatever the order and the kind of its nodes."""
  return hashlib.sha256(b''.join(sorted(map(_leaf_digest, jax.tree.leaves(tree))))).hexdigest()


def _leaf_digest(leaf: Any) -> bytes:
  array = np.asarray(leaf.addressable_shards[0].data if isinstance(leaf, jax.Array) else leaf)
  found = hashlib.sha256(f'{array.dtype} {array.shape} '.encode())
  found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
  return found.digest()


def set_aside(workdir: Path, step: int, problem: str) -> None:
  """Moves a checkpoint out of the way, and says so on standard error."""
  home = Path(workdir) / DAMAGED
  home.mkdir(exist_ok=True)
  earlier = len(list(home.glob(f'{step}*')))
  target = home / (f'{step}-{earlier}' if earlier else str(step))
  (directory(workdir) / str(step)).rename(target)
  print(
    f'the checkpoint of step {step} {problem}; it is not used, and was moved to {target}',
    file=sys.stderr,
  )


def tidy(workdir: Path) -> None:
  """Sets aside checkpoints that would keep Orbax from opening the others, and removes what a
  killed run had half deleted.
  """
  for step in steps(workdir):
    home = directory(workdir) / str(step)
    if not (home / METRICS).is_dir():
      shutil.rmtree(home)
      continue
    try:
      numbers(home)
    except Damaged as problem:
      set_aside(workdir, step, str(problem))
