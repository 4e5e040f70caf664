import numpy as np
import pytest

from ahm_jax.selection.centres import k_centre
from tests.selection.made_up import none


def brute_force(features, labelled, count):
  """Greedy k-centre by its definition."""
  chosen, scores = list(labelled), []
  for _ in range(count):
    others = [i for i in range(len(features)) if i not in chosen]
    if chosen:
      gap = {i: min(np.linalg.norm(features[i] - features[j]) for j in chosen) for i in others}
      best = max(others, key=lambda i: gap[i])
      scores.append(gap[best])
    else:
      mean = features.mean(0)
      best = min(others, key=lambda i: np.linalg.norm(features[i] - mean))
      scores.append(None)
    chosen.append(best)
  return chosen[len(labelled) :], scores


@pytest.mark.parametrize('labelled', [(), (3,), (0, 7, 19)])
def test_the_choice_is_that_of_brute_force(labelled):
  features = np.random.default_rng(0).standard_normal((30, 3))
  picks = k_centre(features, np.array(labelled, np.int64), 12)
  chosen, scores = brute_force(features, labelled, 12)
  assert [pick.index for pick in picks] == chosen
  assert picks[0].score is None if not labelled else picks[0].score == pytest.approx(scores[0])
  assert [pick.score for pick in picks[1:]] == pytest.approx(scores[1:], abs=1e-6)


def test_by_hand():
  """On a line; 4 is nearest to the mean of 4.2, then come both ends, then what is amid a gap."""
  features = np.array([[0.0], [1], [4], [6], [10]])
  picks = k_centre(features, none(), 4)
  assert [(pick.index, pick.score) for pick in picks] == [(2, None), (4, 6), (0, 4), (3, 2)]
  assert [pick.index for pick in k_centre(features, np.array([4]), 2)] == [0, 2]


def test_fewer_are_the_beginning_of_more_and_all_may_be_chosen():
  features = np.random.default_rng(0).standard_normal((9, 2))
  features[3] = features[4]  # Two that are alike: the second has distance 0 to the first.
  whole = k_centre(features, none(), 9)
  assert sorted(pick.index for pick in whole) == list(range(9)) and whole[-1].score == 0
  for count in range(9):
    assert k_centre(features, none(), count) == whole[:count]
