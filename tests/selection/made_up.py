"""Features whose groups are known."""

import numpy as np


def groups(sizes, spread=0.05, seed=0):
  """Points around the corners of a simplex, so many around each: float64 [N, len(sizes)], and the
  corner of each. Shuffled.
  """
  rng = np.random.default_rng(seed)
  corners = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
  noise = rng.standard_normal((sum(sizes), len(sizes)))
  return np.eye(len(sizes))[corners] + spread * noise, corners


def none():
  return np.array([], np.int64)
