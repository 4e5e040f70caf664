"""ProbCover: images whose neighbourhoods hold the most others (Yehuda et al., arXiv 2205.11320), or
the most of what others weigh.
"""

import numpy as np

from ahm_jax.selection.centres import k_centre
from ahm_jax.selection.clusters import k_means
from ahm_jax.selection.distances import squared
from ahm_jax.selection.pick import Pick

PURITY = 0.95  # Share of balls that hold one cluster alone.
_ROWS = 512  # Of distances at a time.


def prob_cover(
  features: np.ndarray,
  labelled: np.ndarray,
  count: int,
  seed: int,
  classes: int = 2,
  weights: np.ndarray | None = None,
) -> list[Pick]:
  """Chooses the image whose ball covers the most weight that no ball of a labelled or chosen image
  covers, again and again; where all is covered, by `k_centre`. Ties go to the first in order.

  The radius is the largest at which the share PURITY of all balls are pure, by clusters that stand
  for classes. The choice of fewer is the beginning of that of more.

  Args:
    features: float64 [N, D].
    labelled: int [M], indices of what has a mask already.
    count: at most N - M.
    classes: how many clusters, at least 2. With as many as labels, on skin images 20 balls covered
      a tenth of all; with 2, four tenths.
    weights: int64 [N], what covering each is worth; None: all the same.

  Returns:
    Of each the share of all weight that it covers first.
  """
  if weights is None:
    weights = np.ones(len(features), np.int64)
  clusters = k_means(features, classes, seed)
  balls = _balls(features, squared_radius(features, clusters))
  gains = np.array([weights[ball].sum() for ball in balls])
  covered, taken = np.zeros(len(features), bool), np.zeros(len(features), bool)
  picks: list[Pick] = []

  def take(index):
    new = balls[index][~covered[balls[index]]]
    covered[new], taken[index] = True, True
    for other in new:
      gains[balls[other]] -= weights[other]

  for index in labelled:
    take(index)
  while len(picks) < count:
    index = int(np.where(taken, -1, gains).argmax())
    if covered.all():
      break
    picks.append(Pick(index, float(gains[index] / weights.sum()), int(clusters[index])))
    take(index)
  rest = k_centre(features, np.flatnonzero(taken), count - len(picks))
  return picks + [Pick(pick.index, 0.0, int(clusters[pick.index])) for pick in rest]


def squared_radius(features: np.ndarray, clusters: np.ndarray) -> float:
  """Square of the largest radius at which the share PURITY of balls are pure: all that is nearer to
  the centre than the radius is of its cluster.
  """
  to_others = [
    np.where(clusters[rows, None] == clusters, np.inf, squared(features[rows], features)).min(1)
    for rows in _rows(len(features))
  ]
  impure = int(len(features) * (1 - PURITY) + 1e-9)
  return float(np.sort(np.concatenate(to_others))[impure])


def _balls(features: np.ndarray, squared_radius: float) -> list[np.ndarray]:
  """Of each image, the indices of those that are nearer than the radius."""
  return [
    np.flatnonzero(row)
    for rows in _rows(len(features))
    for row in squared(features[rows], features) < squared_radius
  ]


def _rows(count: int) -> list[np.ndarray]:
  return [np.arange(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS)]
