import numpy as np
import pytest

from ahm_jax.selection.typical import typicalities, typiclust
from tests.selection.made_up import groups, none


def test_typicality_by_hand():
  """On a line. Of the first cluster, 0, 1 and 3: the mean distances are 2, 1.5 and 2.5."""
  features = np.array([[0.0], [1], [3], [10], [14], [50]])
  found = typicalities(features, np.array([0, 0, 0, 1, 1, 2]))
  np.testing.assert_allclose(found, [1 / 2, 1 / 1.5, 1 / 2.5, 1 / 4, 1 / 4, 0], rtol=1e-4)


def test_typicality_is_of_20_neighbours():
  features = np.random.default_rng(0).standard_normal((50, 4))
  distances = np.linalg.norm(features[:, None] - features, axis=-1)
  expected = 1 / np.sort(distances, 1)[:, 1:21].mean(1)
  np.testing.assert_allclose(typicalities(features, np.zeros(50, int)), expected, rtol=1e-4)


def test_the_most_typical_of_every_cluster_the_largest_first():
  features, corners = groups((10, 40, 25))
  picks = typiclust(features, none(), 3, 0)
  assert [int(corners[pick.index]) for pick in picks] == [1, 2, 0]
  typicality = typicalities(features, corners)
  for pick in picks:
    own = corners == corners[pick.index]
    assert pick.score == pytest.approx(typicality[pick.index]) == typicality[own].max()
  assert len({pick.cluster for pick in picks}) == 3


def test_clusters_with_labels_come_last():
  features, corners = groups((10, 40, 25, 15))
  labelled = np.flatnonzero(corners == 1)[:2]
  picks = typiclust(features, labelled, 2, 0)
  assert not set(labelled) & {pick.index for pick in picks}
  assert [int(corners[pick.index]) for pick in picks] == [2, 3]


def test_clusters_of_few_come_last():
  features, corners = groups((4, 12, 8))
  assert [int(corners[pick.index]) for pick in typiclust(features, none(), 3, 0)][:2] == [1, 2]


def test_of_one_count_fewer_are_the_beginning_and_a_seed_tells_all():
  features = np.random.default_rng(0).standard_normal((60, 3))
  whole, again, other = (typiclust(features, none(), 10, seed) for seed in (0, 0, 1))
  assert whole == again != other
  assert [pick.index for pick in whole[:5]] != [p.index for p in typiclust(features, none(), 5, 0)]


@pytest.mark.parametrize('labelled', [(), (1, 5)])
def test_all_may_be_chosen_once_each(labelled):
  features = np.random.default_rng(0).standard_normal((14, 3))
  picks = typiclust(features, np.array(labelled, np.int64), 14 - len(labelled), 0)
  assert sorted([*labelled, *(pick.index for pick in picks)]) == list(range(14))
