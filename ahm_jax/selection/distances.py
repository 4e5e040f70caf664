"""Distances between feature vectors."""

import numpy as np

# Of squared distances; features are of the order of 1. What differs in less is equal, so that the
# order of additions, which processors choose, decides nothing.
_DECIMALS = 9


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Squared distances of float64 features, [N, D] and [M, D] -> [N, M]."""
  both = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
  return np.round(np.maximum(both, 0), _DECIMALS)


def squared_to_nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Squared distance of every a to the nearest b, [N]; infinite where there is no b."""
  return squared(a, b).min(1, initial=np.inf)
