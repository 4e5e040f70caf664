"""Which images are trained on, and in which order: label budgets and batches.

Randomness is the raw 64-bit output of NumPy's Philox generator, sorted: it is the same on every
platform and NumPy version.
"""

import functools

import numpy as np

from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError

# What tells the streams of random numbers apart that are drawn from one seed.
LABELS, ORDER, UNLABELLED, CLUSTERS, DIAGNOSED, RECONSTRUCTED = range(1, 7)


def labelled_indices(
  split: Split, count: int, seed: int, by: str = 'mask', field: str = ''
) -> np.ndarray:
  """Chooses images with a mask, or with a label, to learn from.

  The choice is nested: for one seed, that of a smaller count is the beginning of that of a larger
  one. It is stratified: of every class it holds what the class's share asks for, to within one
  image (images without a label are a class of their own). The classes take turns by a fair
  schedule, in which the k-th image of a class with n of N falls between places (k - 1) N / n and k
  N / n: of the classes that may come next, the one that must come soonest does (Baruah et al.
  1996).

  Args:
    count: how many; 0: all there are, in their order.
    seed: of the choice.
    by: what they must have, 'mask' or 'label'.
    field: that says `count`, for messages; '': that of each.

  Returns:
    int64 [count], indices into the split.

  Raises:
    UserError: fewer images than that have it, or none.
  """
  candidates = np.flatnonzero(split.has_mask if by == 'mask' else split.labels >= 0)
  if not len(candidates):
    where = 'the folder masks/' if by == 'mask' else 'the column label'
    raise UserError(f'no training image has a {by}; see {where} and the column split of labels.csv')
  if count == 0:
    return candidates
  if count > len(candidates):
    field = field or (
      'config.data.labels (or config.grid.labels)' if by == 'mask' else 'config.classify.labels'
    )
    raise UserError(
      f'{count} labelled training images are asked for, but only {len(candidates)} of {len(split)} '
      f'have a {by}; lower {field}'
    )
  return stratified(split.labels, candidates, count, seed)


def stratified(labels: np.ndarray, candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
  """The nested, stratified choice of `labelled_indices` among candidates.

  Args:
    labels: int [N], the class of every image.
    candidates: int [M], indices of images, in order.
    count: how many, at most M.
  """
  shuffled = candidates[_permutation(len(candidates), LABELS, seed)]
  classes = [shuffled[labels[shuffled] == label] for label in np.unique(labels[candidates])]
  return _take_turns(classes, count)


def _take_turns(classes: list[np.ndarray], count: int) -> np.ndarray:
  """The first `count` members of all classes by the fair schedule of `labelled_indices`."""
  total = sum(map(len, classes))
  taken = [0] * len(classes)
  chosen = []
  for place in range(count):
    ready = [
      c
      for c, members in enumerate(classes)
      if taken[c] < len(members) and taken[c] * total < (place + 1) * len(members)
    ]
    soonest = min(ready, key=lambda c: -(-(taken[c] + 1) * total // len(classes[c])))
    chosen.append(classes[soonest][taken[soonest]])
    taken[soonest] += 1
  return np.array(chosen, np.int64)


def batch_indices(
  seed: int, step: int, examples: int, batch_size: int, stream: int = ORDER
) -> np.ndarray:
  """The images of one training step; a function of its arguments alone.

  Image number i of a run is number i mod N of the permutation of epoch i // N; step k takes the
  numbers k B to k B + B - 1. So every epoch shows each image once, batches run on from one epoch
  into the next, and N may be smaller than B.

  Args:
    seed: of the run, at least 0.
    step: k, at least 0.
    examples: N.
    batch_size: B, over all devices.
    stream: ORDER, or that of another order of the same images, as UNLABELLED.

  Returns:
    int32 [batch_size], each in [0, examples).

  Raises:
    UserError: there are no examples.
  """
  if examples < 1:
    raise UserError(
      'there are no images to train on; see the split column of labels.csv and the folder masks/'
    )
  numbers = int(step) * batch_size + np.arange(batch_size, dtype=np.int64)
  epochs, places = numbers // examples, numbers % examples
  indices = np.empty(batch_size, np.int32)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    indices[here] = _permutation(examples, stream, seed, int(epoch))[places[here]]
  return indices


@functools.lru_cache(maxsize=8)
def _permutation(count: int, *seeds: int) -> np.ndarray:
  """A permutation of range(count), int64 [count], a function of its arguments alone."""
  raw = np.random.Philox(np.random.SeedSequence(seeds)).random_raw(count)
  permutation = np.argsort(raw, kind='stable')
  permutation.flags.writeable = False
  return permutation
