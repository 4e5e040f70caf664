"""Small arrays that a run keeps at each validation, such as policy maps or pseudo-masks:
snapshots/STEP.npz in its directory.
"""

import io
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.errors import UserError, cannot_read, printable
from ahm_jax.runtime import durable, json_files, npz, places

FOLDER = 'snapshots'


def write(workdir: Path, step: int, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes, or writes again, the arrays of one step; the file appears when it is whole."""
  folder = Path(workdir) / FOLDER
  places.check(folder)
  folder.mkdir(exist_ok=True)
  named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
  with durable.replacing(folder / f'{step}.npz') as scratch, scratch.open('wb') as file:
    np.savez_compressed(file, **named)


def read(workdir: Path) -> dict[int, dict[str, np.ndarray]]:
  """The arrays of each step, in the order of steps; empty where the run kept none.

  A file that is damaged is left out, which is said: only a picture is made of it.

  Raises:
    UserError: the system does not let a file be read.
  """
  found = {}
  for path in (Path(workdir) / FOLDER).glob('*.npz'):
    data = json_files.read_bytes(path) or b''
    try:
      found[_step(path.stem)] = _arrays(data)
    except MemoryError as error:
      raise UserError(cannot_read(path, error)) from error
    except Exception as error:  # NumPy and zipfile raise many kinds.
      said = ' '.join(str(error).split())[:100]
      print(printable(f'{path} is damaged, and left out ({said})'), file=sys.stderr)
  return dict(sorted(found.items()))


def spread(steps: Iterable[int], count: int) -> list[int]:
  """At most `count` of the steps, evenly spread, the first and the last among them."""
  steps = list(steps)
  places = np.linspace(0, len(steps) - 1, min(count, len(steps)))
  return [steps[round(place)] for place in places.tolist()]


def _step(name: str) -> int:
  if not name.isdecimal() or name != str(int(name)):
    raise ValueError('its name is no step')
  return int(name)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
  held = npz.arrays(io.BytesIO(data))
  claimed = sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in held.values())
  if claimed > json_files.MOST_BYTES:
    raise ValueError(f'it holds {len(held)} arrays of {claimed} bytes')
  return {name: array.read() for name, array in held.items()}
