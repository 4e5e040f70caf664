import numpy as np
import pytest
from sklearn.cluster import KMeans

from ahm_jax.selection.clusters import k_means
from tests.selection.made_up import groups


def error(features, labels):
  """Sum of squared distances to the means of clusters."""
  return sum(
    ((features[labels == c] - features[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels)
  )


@pytest.mark.parametrize('seed', [0, 1, 2**63 - 1])
def test_groups_are_found(seed):
  features, corners = groups((30, 20, 10, 3))
  found = k_means(features, 4, seed)
  assert len(set(zip(found.tolist(), corners.tolist(), strict=True))) == 4


@pytest.mark.parametrize('count', [1, 2, 5, 20, 60])
def test_clusters_are_as_tight_as_those_of_sklearn(count):
  features = np.random.default_rng(0).standard_normal((60, 4))
  other = KMeans(count, n_init=10, random_state=0).fit(features)
  assert error(features, k_means(features, count, 0)) <= 1.05 * other.inertia_ + 1e-9


def test_clusters_are_a_function_of_the_seed():
  features = np.random.default_rng(0).standard_normal((40, 3))
  first, second, other = (k_means(features, 12, seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, second)
  assert first.tolist() != other.tolist()
  noise = 1e-13 * np.random.default_rng(1).standard_normal(features.shape)
  np.testing.assert_array_equal(first, k_means(features + noise, 12, 0))


def test_clusters_are_the_same_on_every_platform():
  features = np.array([[0.0], [0.1], [0.2], [5.0], [5.3], [9.0], [9.1], [9.4], [9.6]])
  assert k_means(features, 3, 0).tolist() == [2, 2, 2, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize('count', [1, 3, 6])
def test_images_that_are_alike(count):
  assert k_means(np.ones((4, 2)), count, 0).tolist() == [0] * 4
