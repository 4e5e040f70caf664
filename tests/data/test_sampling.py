"""Label budgets, and the order of training images."""

import numpy as np
import pytest

from ahm_jax.data import sampling
from ahm_jax.data.sampling import batch_indices, labelled_indices
from ahm_jax.errors import UserError
from tests.data.tiny_split import make_split

# Label budgets.


def test_no_budget_takes_all_with_a_mask():
  split = make_split([0, 1, 0, 1], [True, False, True, True])
  assert labelled_indices(split, 0, 3).tolist() == [0, 2, 3]


def test_budgets_are_nested():
  split = make_split(np.random.default_rng(0).integers(0, 3, 200))
  whole = labelled_indices(split, 200, 5)
  assert sorted(whole) == list(range(200))
  for count in (1, 20, 50, 199):
    np.testing.assert_array_equal(labelled_indices(split, count, 5), whole[:count])


@pytest.mark.parametrize(
  'sizes',
  [
    (100,),
    (60, 40),
    (70, 20, 10),
    (451, 1645, 179),
    (1, 1, 97),
    (30, 29, 1, 1, 1, 1),
    (7, 6, 5, 4, 3, 2, 1),
  ],
)
@pytest.mark.parametrize('seed', [0, 1])
def test_budgets_keep_class_shares_to_within_one_image(sizes, seed):
  labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
  chosen = labelled_indices(make_split(labels), sum(sizes), seed)
  assert sorted(chosen) == list(range(sum(sizes)))
  taken = np.cumsum(labels[chosen][:, None] == np.arange(len(sizes)), 0)
  wanted = np.arange(1, sum(sizes) + 1)[:, None] * np.array(sizes) / sum(sizes)
  assert np.abs(taken - wanted).max() < 1


def test_budgets_take_only_images_with_a_mask():
  has_mask = np.random.default_rng(0).random(100) < 0.3
  split = make_split([0] * 50 + [1] * 50, has_mask)
  chosen = labelled_indices(split, 15, 0)
  assert has_mask[chosen].all()
  assert len(set(chosen.tolist())) == 15


def test_without_labels_budgets_are_a_seeded_permutation():
  split = make_split([-1] * 40)
  first, second = (labelled_indices(split, 40, seed) for seed in (0, 1))
  assert sorted(first) == sorted(second) == list(range(40))
  assert first.tolist() != second.tolist()
  assert first.tolist() != list(range(40))


def test_budgets_differ_by_seed_within_classes():
  split = make_split([0] * 50 + [1] * 50)
  chosen = [frozenset(labelled_indices(split, 10, seed).tolist()) for seed in range(5)]
  assert len(set(chosen)) == 5


def test_budgets_by_label_pass_over_images_without_one():
  split = make_split([0] * 30 + [-1] * 20 + [1] * 30, [False] * 40 + [True] * 40)
  assert labelled_indices(split, 0, 0, by='label').tolist() == [*range(30), *range(50, 80)]
  chosen = labelled_indices(split, 20, 0, by='label')
  assert len(set(chosen.tolist())) == 20
  assert np.bincount(split.labels[chosen]).tolist() == [10, 10]


@pytest.mark.parametrize(
  ('by', 'said'),
  [
    ('mask', 'only 5 of 8 have a mask; lower config.data.labels'),
    ('label', 'only 4 of 8 have a label; lower config.classify.labels'),
  ],
)
def test_asking_for_more_labels_than_there_are(by, said):
  split = make_split([0] * 4 + [-1] * 4, [True] * 5 + [False] * 3)
  with pytest.raises(UserError, match=f'^6 labelled training images are asked for, but {said}'):
    labelled_indices(split, 6, 0, by)


# The order of training images.


def order(seed, steps, examples, batch_size):
  return np.concatenate([batch_indices(seed, step, examples, batch_size) for step in range(steps)])


@pytest.mark.parametrize(
  ('examples', 'batch_size'), [(12, 4), (10, 4), (7, 3), (5, 12), (1, 3), (8, 8)]
)
def test_every_epoch_is_a_permutation_and_batches_run_on(examples, batch_size):
  steps = 6 * examples
  numbers = order(0, steps, examples, batch_size)
  assert numbers.shape == (steps * batch_size,)
  epochs = numbers.reshape(-1, examples)
  np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(examples), (len(epochs), 1)))
  if examples > 4:
    assert len({tuple(epoch) for epoch in epochs[:4]}) == 4


def test_a_batch_is_a_function_of_seed_and_step():
  reference = batch_indices(3, 17, 100, 12)
  assert reference.dtype == np.int32
  for step in (400, 0):
    batch_indices(3, step, 100, 12)
  sampling._permutation.cache_clear()
  np.testing.assert_array_equal(batch_indices(3, 17, 100, 12), reference)
  assert batch_indices(4, 17, 100, 12).tolist() != reference.tolist()
  np.testing.assert_array_equal(batch_indices(3, np.int32(17), 100, 12), reference)


def test_the_batch_size_does_not_change_the_order():
  np.testing.assert_array_equal(order(1, 12, 10, 5), order(1, 5, 10, 12))


def test_the_order_is_the_same_on_every_platform():
  assert batch_indices(0, 0, 10, 10).tolist() == [9, 6, 4, 8, 7, 0, 5, 2, 1, 3]


def test_late_steps_do_not_overflow():
  indices = batch_indices(0, 2**40, 1000, 32)
  assert indices.min() >= 0 and indices.max() < 1000
  assert len(set(indices.tolist())) > 16


def test_no_examples():
  with pytest.raises(UserError, match='no images to train on'):
    batch_indices(0, 0, 0, 4)
