"""Splits of prepared data."""

import dataclasses

import numpy as np

from tests.data.tiny_split import make_split


def test_take():
  split = make_split([5, 6, 7, 8], [True, False, True, False])
  taken = split.take(np.array([2, 0]))
  assert len(taken) == 2
  assert taken.ids == taken.groups == ('i2', 'i0')
  assert taken.labels.tolist() == [7, 5]
  assert taken.has_mask.tolist() == [True, True]
  assert taken.images[:, 0, 0, 0].tolist() == [2, 0]
  assert split.take(split.has_mask).ids == ('i0', 'i2')
  assert len(split.take([])) == 0


def test_spacing_is_unknown_where_it_is_not_given():
  split = make_split([0, 1])
  assert split.spacing.shape == (2, 2) and split.spacing.dtype == np.float32
  assert np.isnan(split.spacing).all()
  known = dataclasses.replace(split, spacing=np.float32([[1, 2], [3, 4]]))
  assert known.take([1]).spacing.tolist() == [[3, 4]]
