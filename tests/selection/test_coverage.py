import numpy as np
import pytest

from ahm_jax.selection import coverage
from ahm_jax.selection.clusters import k_means
from ahm_jax.selection.coverage import prob_cover, squared_radius
from tests.selection.made_up import groups, none


def brute_force(features, labelled, count, radius, weights):
  """Greedy maximum coverage by its definition, as long as anything is to be covered."""
  near = np.linalg.norm(features[:, None] - features, axis=-1) < radius
  chosen = list(labelled)
  for _ in range(count):
    free = ~near[chosen].any(0)
    gains = np.where(np.isin(np.arange(len(features)), chosen), -1, near @ (weights * free))
    chosen.append(int(gains.argmax()))
  return chosen[len(labelled) :]


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('labelled', [(), (3,), (0, 7, 19)])
@pytest.mark.parametrize('seed', range(3))
def test_the_choice_is_that_of_brute_force(labelled, weighted, seed, monkeypatch):
  monkeypatch.setattr(coverage, '_ROWS', 7)
  rng = np.random.default_rng(seed)
  features, count = rng.standard_normal((60, 2)), 8
  weights = rng.integers(1, 50, 60) if weighted else np.ones(60, np.int64)
  picks = prob_cover(
    features, np.array(labelled, np.int64), count, seed, 3, weights if weighted else None
  )
  clusters = k_means(features, 3, seed)
  radius = np.sqrt(squared_radius(features, clusters)) - 1e-6  # That of a pair, which is not in.
  assert [p.index for p in picks] == brute_force(features, labelled, count, radius, weights)
  assert [p.cluster for p in picks] == clusters[[p.index for p in picks]].tolist()
  scores = [p.score for p in picks]
  assert sum(scores) <= 1 and scores == sorted(scores, reverse=True)


def test_coverage_by_hand(monkeypatch):
  """On a line, with balls of radius 1.5: that of 1 covers three, that of 10 two; 5 and 20 are
  alone, and the first in order comes first.
  """
  monkeypatch.setattr(coverage, 'squared_radius', lambda *_: 2.25)
  features = np.array([[5.0], [20], [0], [1], [2], [10], [11]])
  picks = prob_cover(features, none(), 5, 0)
  assert [pick.index for pick in picks][:4] == [3, 5, 0, 1]
  assert [pick.score for pick in picks] == pytest.approx([3 / 7, 2 / 7, 1 / 7, 1 / 7, 0])
  # What is labelled covers its neighbours too.
  picks = prob_cover(features, np.array([2]), 2, 0)
  assert [(pick.index, pick.score) for pick in picks] == [(5, 2 / 7), (0, 1 / 7)]
  # The difficult ones first: 20 alone weighs more than three others.
  picks = prob_cover(features, none(), 2, 0, weights=np.array([1, 9, 1, 2, 1, 1, 1]))
  assert [(pick.index, pick.score) for pick in picks] == [(1, 9 / 16), (3, 4 / 16)]


@pytest.mark.parametrize('count', [20, 30, 39, 40, 100])
def test_the_radius_is_the_largest_of_that_purity(count):
  rng = np.random.default_rng(0)
  features, clusters = rng.standard_normal((count, 2)), rng.integers(0, 2, count)
  distances = np.linalg.norm(features[:, None] - features, axis=-1)
  radius = np.sqrt(squared_radius(features, clusters))

  def purity(radius):
    strange = (distances < radius) & (clusters[:, None] != clusters)
    return 1 - strange.any(1).mean()

  assert purity(radius - 1e-5) >= coverage.PURITY > purity(radius + 1e-5)


def test_balls_stay_within_groups():
  features, corners = groups((30, 20, 10))
  picks = prob_cover(features, none(), 3, 0, classes=3)
  assert [int(corners[pick.index]) for pick in picks] == [0, 1, 2]
  picks = prob_cover(features, np.flatnonzero(corners == 0)[:1], 2, 0, classes=3)
  assert [int(corners[pick.index]) for pick in picks] == [1, 2]


@pytest.mark.parametrize('labelled', [(), (1, 5)])
def test_all_may_be_chosen_once_each_and_fewer_are_the_beginning(labelled):
  features = np.random.default_rng(0).standard_normal((14, 3))
  labelled = np.array(labelled, np.int64)
  whole = prob_cover(features, labelled, 14 - len(labelled), 0)
  assert sorted([*labelled, *(pick.index for pick in whole)]) == list(range(14))
  for count in range(len(whole)):
    assert prob_cover(features, labelled, count, 0) == whole[:count]


def test_images_that_are_alike():
  assert [pick.index for pick in prob_cover(np.ones((4, 2)), none(), 3, 0)] == [0, 1, 2]
