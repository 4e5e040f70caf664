"""k-centre: images that leave no other far from a labelled one (core-set, Sener & Savarese, arXiv
1708.00489; greedy).
"""

import numpy as np

from ahm_jax.selection.distances import squared, squared_to_nearest
from ahm_jax.selection.pick import Pick


def k_centre(features: np.ndarray, labelled: np.ndarray, count: int) -> list[Pick]:
  """Chooses the image that is farthest from all that are labelled or chosen, again and again; the
  first of a cold start is the one nearest to the mean of all. Ties go to the first in order.

  Args:
    features: float64 [N, D].
    labelled: int [M], indices of what has a mask already.
    count: at most N - M.

  Returns:
    Of each the distance to the nearest before it.
  """
  nearest, picks = squared_to_nearest(features, features[labelled]), []
  taken = np.zeros(len(features), bool)
  taken[labelled] = True
  if not len(labelled) and count:
    first = int(squared(features, features.mean(0, keepdims=True))[:, 0].argmin())
    nearest, taken[first] = squared(features, features[[first]])[:, 0], True
    picks.append(Pick(first))
  while len(picks) < count:
    index = int(np.where(taken, -1, nearest).argmax())
    picks.append(Pick(index, float(np.sqrt(nearest[index]))))
    nearest, taken[index] = np.minimum(nearest, squared(features, features[[index]])[:, 0]), True
  return picks
