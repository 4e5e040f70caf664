"""k-means, the same for one seed on every platform: Lloyd's steps from greedy k-means++
(Arthur, Vassilvitskii, 2007), the best of several starts.
"""

import numpy as np

from ahm_jax.data.sampling import CLUSTERS
from ahm_jax.selection.distances import squared

_STARTS = 5
_STEPS = 100  # At most.


def k_means(features: np.ndarray, count: int, seed: int) -> np.ndarray:
  """The cluster of each feature vector, int64 [N] in [0, count); a cluster may be empty.

  Args:
    features: float64 [N, D], N at least 1.
  """
  shape = _STARTS, count, 2 + int(np.log(count))
  raw = np.random.Philox(np.random.SeedSequence((CLUSTERS, seed))).random_raw(int(np.prod(shape)))
  draws = (raw >> np.uint64(11)) * 2.0**-53  # In [0, 1).
  best, least = np.zeros(len(features), np.int64), np.inf
  for own in draws.reshape(shape):
    labels, error = _lloyd(features, _spread(features, own))
    if error < least:
      best, least = labels, error
  return best


def _spread(features: np.ndarray, draws: np.ndarray) -> np.ndarray:
  """First centres [k, D]: the best of a few each, by draws [k, few] in proportion to the squared
  distance to the centres before.
  """
  nearest = np.full(len(features), np.inf)
  chosen: list[int] = []
  for few in draws:
    weights = nearest if chosen and nearest.any() else np.ones(len(features))
    total = weights.cumsum()
    places = np.searchsorted(total, few * total[-1], side='right').clip(max=len(features) - 1)
    left = np.minimum(nearest, squared(features[places], features))
    best = left.sum(1).argmin()
    nearest = left[best]
    chosen.append(int(places[best]))
  return features[chosen]


def _lloyd(features: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
  """Labels [N] and the sum of squared distances to the centres; an empty cluster keeps its
  centre.
  """
  labels = np.full(len(features), -1)
  for _ in range(_STEPS):
    distances = squared(features, centres)
    before, labels = labels, distances.argmin(1)
    if np.array_equal(before, labels):
      break
    members = (labels == np.arange(len(centres))[:, None]).astype(float)
    sizes = members.sum(1, keepdims=True)
    centres = np.where(sizes > 0, members @ features / np.maximum(sizes, 1), centres)
  return labels, float(squared(features, centres).min(1).sum())
