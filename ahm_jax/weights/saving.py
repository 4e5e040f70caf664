"""Our weights by the names and layouts used elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ahm_jax.runtime import trees
from ahm_jax.weights import names
from ahm_jax.weights.names import Entry


def outward(variables: Any, entries: Sequence[Entry]) -> dict[str, np.ndarray]:
  """Our variables by foreign names.

  A network of fewer layers than `entries` has gives those it has.
  """
  flat = trees.flatten(variables)
  return {
    entry.theirs: entry.layout.outward(np.asarray(flat[entry.ours]))
    for entry in entries
    if entry.ours in flat
  }


def with_counters(arrays: Mapping[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
  """With the counters that PyTorch's batch norms want, [] int64, each after its `running_var`."""
  found = {}
  for name, array in arrays.items():
    found[name] = array
    if name.endswith('.running_var'):
      found[name.replace('running_var', names.COUNTER)] = np.array(step, np.int64)
  return found
