"""Splits that are drawn from a seed."""

import collections
from collections.abc import Sequence

import numpy as np

from ahm_jax.data.sets.items import SPLITS, Item


def by_group(items: Sequence[Item], fractions: tuple[float, ...], seed: int) -> list[Item]:
  """Assigns groups to train, validation and test from a seed, each to the split that lacks most of
  its share.

  A group that holds an image without a mask, which can only be trained on, goes to train as a
  whole.
  """
  groups = collections.defaultdict(list)
  for item in items:
    groups[item.group].append(item)
  bound = {
    name for name, members in groups.items() if any(member.mask is None for member in members)
  }
  free = sorted(set(groups) - bound)
  raw = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(free))
  wanted = np.array(fractions) * sum(len(groups[name]) for name in free)
  chosen = dict.fromkeys(bound, 'train')
  for index in np.argsort(raw, kind='stable'):
    split = int(np.argmax(wanted))
    chosen[free[index]] = SPLITS[split]
    wanted[split] -= len(groups[free[index]])
  return [item._replace(split=chosen[item.group]) for item in items]
