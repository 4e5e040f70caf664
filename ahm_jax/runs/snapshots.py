"""Small arrays that a run keeps at each validation, such as policy maps: snapshots/STEP.npz in
its directory.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ahm_jax.runtime import durable

FOLDER = 'snapshots'


def write(workdir: Path, step: int, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes, or writes again, the arrays of one step; the file appears when it is whole."""
  folder = Path(workdir) / FOLDER
  folder.mkdir(exist_ok=True)
  named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
  with durable.replacing(folder / f'{step}.npz') as scratch, scratch.open('wb') as file:
    np.savez_compressed(file, **named)


def read(workdir: Path) -> dict[int, dict[str, np.ndarray]]:
  """The arrays of each step, in the order of steps; empty where the run kept none."""
  found = {}
  for path in sorted((Path(workdir) / FOLDER).glob('*.npz'), key=lambda path: int(path.stem)):
    with np.load(path, allow_pickle=False) as file:
      found[int(path.stem)] = dict(file)
  return found
