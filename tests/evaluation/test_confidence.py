import numpy as np
import pytest
from scipy import stats

from ahm_jax.evaluation.confidence import confidence, ranking


def test_it_is_the_mean_of_log_odds_over_the_mask():
  """Of 0.9 and 0.5: odds 9 and 1, whose geometric mean is 3; what lies outside does not count."""
  probabilities = np.float32([[0.9, 0.5], [0.4, 0.0]])
  assert confidence(probabilities, probabilities >= 0.5) == pytest.approx(0.75)
  on_threshold = np.full((2, 2), 0.5, np.float32)
  assert confidence(on_threshold, on_threshold >= 0.5) == pytest.approx(0.5)
  sure = np.ones((2, 2), np.float32)
  assert confidence(sure, sure > 0) == pytest.approx(0.999)
  assert confidence(probabilities / 3, np.zeros((2, 2), bool)) == pytest.approx(0.7)


def test_of_classes_it_is_the_mean_over_those_found():
  """Class 1 at 0.75 and 0.5, odds 3 and 1; class 2 at 0.9; class 3 nowhere."""
  p = np.float32([[0.2, 0.75, 0.05, 0], [0.4, 0.5, 0.1, 0], [0.05, 0.05, 0.9, 0], [0.9, 0.1, 0, 0]])
  mask = np.uint8([[1, 1], [2, 0]])
  odds = 3**0.5
  found = confidence(p.reshape(2, 2, 4), mask)
  assert found == pytest.approx((odds / (1 + odds) + 0.9) / 2, abs=1e-6)
  assert confidence(p.reshape(2, 2, 4), 0 * mask) == pytest.approx(0.05, abs=1e-6)


def test_ranking_by_hand():
  """The surest is the best of the three that have a Dice, the next the worst."""
  found = ranking([0.9, 0.7, 0.5, 0.99], [0.8, 0.2, 0.5, np.nan])
  assert found == {
    'confidence_rank_correlation': pytest.approx(0.5),
    'risk_coverage_area': pytest.approx((0.2 + 0.5 + 0.5) / 3),
    'dice_surest_half': pytest.approx(0.5),
  }


def test_ranking_against_scipy_and_the_best_and_worst_orders():
  rng = np.random.default_rng(0)
  dice = rng.uniform(0, 1, 101)
  sure = dice + 0.3 * rng.standard_normal(101)
  found, best, worst = ranking(sure, dice), ranking(dice, dice), ranking(-dice, dice)
  assert found['confidence_rank_correlation'] == pytest.approx(stats.spearmanr(sure, dice)[0])
  assert best['confidence_rank_correlation'] == pytest.approx(1)
  assert worst['confidence_rank_correlation'] == pytest.approx(-1)
  areas = [item['risk_coverage_area'] for item in (best, found, worst)]
  assert areas == sorted(areas)
  assert best['dice_surest_half'] == pytest.approx(np.sort(dice)[-51:].mean())


def test_what_ranks_nothing_leaves_the_mean_whatever_the_order():
  dice = [0.9, 0.1, 0.5, 0.7]
  for order in (dice, dice[::-1]):
    found = ranking([0.6] * 4, order)
    assert np.isnan(found.pop('confidence_rank_correlation'))
    assert found == {
      'risk_coverage_area': pytest.approx(1 - 0.55),
      'dice_surest_half': pytest.approx(0.55),
    }
  assert all(np.isnan(value) for value in ranking([], []).values())
  assert all(np.isnan(value) for value in ranking([0.3], [np.nan]).values())
  single = ranking([0.3], [0.4])
  assert np.isnan(single['confidence_rank_correlation']) and single['dice_surest_half'] == 0.4
