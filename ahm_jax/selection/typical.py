"""TypiClust: the most typical image of each cluster (Hacohen et al., arXiv 2202.02794)."""

import numpy as np

from ahm_jax.selection.clusters import k_means
from ahm_jax.selection.distances import squared
from ahm_jax.selection.pick import Pick

NEIGHBOURS = 20
_SMALL = 5  # Clusters of so few are outliers, and come last, as in the authors' code.
_LEAST = 1e-5  # Added to distances, as there.


def typiclust(features: np.ndarray, labelled: np.ndarray, count: int, seed: int) -> list[Pick]:
  """Chooses from as many clusters as there will be labels: those with the fewest labels first, of
  these the largest; in each the most typical image.

  Args:
    features: float64 [N, D].
    labelled: int [M], indices of what has a mask already.
    count: at most N - M.

  Returns:
    Of each its typicality. The clusters depend on `count`: only for one count is the choice of
    fewer the beginning of that of more.
  """
  clusters = k_means(features, len(labelled) + count, seed)
  sizes = np.bincount(clusters, minlength=len(labelled) + count)
  labels = np.bincount(clusters[labelled], minlength=len(sizes))
  typicality = typicalities(features, clusters)
  left = np.ones(len(features), bool)
  left[labelled] = False
  picks: list[Pick] = []
  while len(picks) < count:
    cluster = min(
      set(clusters[left].tolist()), key=lambda c: (sizes[c] <= _SMALL, labels[c], -sizes[c], c)
    )
    index = int(np.where(left & (clusters == cluster), typicality, -1).argmax())
    picks.append(Pick(index, float(typicality[index]), cluster))
    left[index] = False
    labels[cluster] += 1
  return picks


def typicalities(features: np.ndarray, clusters: np.ndarray) -> np.ndarray:
  """1 / the mean distance to the NEIGHBOURS nearest in the same cluster, or to all others where
  there are fewer: float64 [N]; 0 for one that is alone.
  """
  found = np.zeros(len(features))
  for cluster in np.unique(clusters):
    members = np.flatnonzero(clusters == cluster)
    count = min(NEIGHBOURS, len(members) - 1)
    if count:
      # The first of each row is the distance to itself.
      distances = np.sqrt(np.sort(squared(features[members], features[members]), 1))
      found[members] = 1 / (distances[:, 1 : count + 1].mean(1) + _LEAST)
  return found
