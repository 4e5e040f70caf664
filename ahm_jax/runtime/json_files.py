"""JSON files: strict, and whole after a power cut; what is read was checked."""

import contextlib
import gc
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ahm_jax.errors import UserError, cannot_read
from ahm_jax.runtime import durable, schema
from ahm_jax.runtime.schema import Check

MOST_BYTES = 2**28  # More than a file has that does not say another number.
MOST_DIGITS = 1000  # Of a number.
RESTORE = 'restore it, or remove it'


class Damaged(UserError):
  """A file that is there and can be read, and does not hold what was written."""


def read_json(path: Path, check: Check, cure: str = RESTORE, most: int = MOST_BYTES) -> Any:
  """What a JSON file holds; None where there is no such file.

  Args:
    check: that it must pass.
    cure: what the user can do where it is damaged.
    most: bytes that it may have.

  Raises:
    Damaged: it is no strict JSON (UTF-8, finite numbers, no name twice, not too deep), or does not
      pass the check.
    UserError: the system does not let it be read, or it is no file.
  """
  data = read_bytes(path, cure, most)
  if data is None:
    return None
  try:
    tree = parse(data)
    schema.require(check, tree)
  except MemoryError as error:
    raise UserError(cannot_read(path, error)) from error
  except ValueError as error:
    raise Damaged(f'{path} is damaged: {error}; {cure}') from error
  return tree


def read_bytes(path: Path, cure: str = RESTORE, most: int = MOST_BYTES) -> bytes | None:
  """What a file holds; None where there is none. `cure`, `most`: as of `read_json`.

  Raises:
    Damaged: it is larger than what was written can be.
    UserError: the system does not let it be read, or it is no file; not a word of damage.
  """
  try:
    # A pipe would wait for somebody to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
      status = os.fstat(descriptor)
      if not stat.S_ISREG(status.st_mode):
        raise UserError(f'{path} must be a file; move away what is there')
      if status.st_size > most:
        raise Damaged(f'{path} is damaged: it holds {status.st_size} bytes, over {most}; {cure}')
      with os.fdopen(descriptor, 'rb', closefd=False) as file:
        return file.read()
    finally:
      os.close(descriptor)
  except (FileNotFoundError, NotADirectoryError):  # In what is no folder there is no file either.
    return None
  except (OSError, MemoryError) as error:
    raise UserError(cannot_read(path, error)) from error


def parse(data: bytes) -> Any:
  """Strict JSON; raises a ValueError of one line for anything else."""
  try:
    with _no_collection():
      return json.loads(
        data.decode('utf-8-sig'),
        parse_float=_float,
        parse_int=_int,
        parse_constant=_refuse,
        object_pairs_hook=_object,
      )
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
  except json.JSONDecodeError as error:
    raise ValueError(f'it is no JSON ({error})') from None
  except UnicodeDecodeError as error:
    raise ValueError(f'byte {error.start} is not UTF-8') from None


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
  """Others' finalizers would fail, and say so, as deep as an attack on the parser goes."""
  was = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was:
      gc.enable()


def write_json(path: Path, tree: Any) -> None:
  """Writes strict JSON in one move; numbers that are not finite become null."""
  durable.write(path, (json.dumps(_finite(tree), indent=2, allow_nan=False) + '\n').encode())


def _finite(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {key: _finite(value) for key, value in tree.items()}
  if isinstance(tree, list | tuple):
    return [_finite(value) for value in tree]
  return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _refuse(name: str) -> NoReturn:
  raise ValueError(f'it holds {name}')


def _float(digits: str) -> float:
  value = float(digits)
  return value if math.isfinite(value) else _refuse(f'{digits[:20]}, which is too large')


def _int(digits: str) -> int:
  return int(digits) if len(digits) <= MOST_DIGITS else _refuse('a number of too many digits')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    _refuse(f'{schema.shown(schema.repeated(name for name, _ in pairs)[0])} twice')
  return found
