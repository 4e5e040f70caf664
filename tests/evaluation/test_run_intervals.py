import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from ahm_jax.evaluation import run_intervals
from ahm_jax.evaluation.intervals import mean_over_images
from ahm_jax.evaluation.metrics import classification_scores
from ahm_jax.evaluation.run_intervals import MEANS, intervals

NAMES = ('benign', 'malignant', 'other')


def diagnosed(probabilities, labels, names=NAMES):
  """Rows of images of a classifier, one of them of unknown label."""
  rows = [
    {
      'image': f'i{k}',
      'label': names[label],
      'predicted': names[int(np.argmax(p))],
      **{f'probability_{name}': float(x) for name, x in zip(names, p, strict=True)},
    }
    for k, (p, label) in enumerate(zip(probabilities, labels, strict=True))
  ]
  return [*rows, {'image': 'unknown', 'label': '', 'predicted': ''}]


def made_up(classes=3, count=60):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, classes, count)
  logits = rng.standard_normal((count, classes)) + 1.2 * np.eye(classes)[labels]
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  return probabilities, labels


def test_means_over_images_are_those_of_groups():
  dice = np.array([0.2, 0.4, 0.9, 0.5])
  rows = [
    {'image': name, 'group': group, **dict.fromkeys(MEANS, float(value))}
    for name, group, value in zip('abcd', (0, 0, 1, 2), dice, strict=True)
  ]
  found = intervals(dict.fromkeys(MEANS, 0.5), rows, 500)
  _, (low, high) = mean_over_images(dice, 500, (0, 0, 1, 2))
  assert set(found) == set(MEANS)
  assert found['hd95'] == pytest.approx([max(low, 0), high])  # In pixels, without an upper end.
  assert found['dice'] == pytest.approx([max(low, 0), min(high, 1)])
  assert intervals({'dice': 0.6}, rows, 500) == {}  # Of other images than these.
  assert intervals({'dice': 0.5}, [], 500) == {}


@pytest.mark.parametrize('classes', [2, 3])
def test_what_a_sample_becomes_is_what_scikit_learn_says_of_it(classes, monkeypatch):
  probabilities, labels = made_up(classes)
  names, seen = NAMES[:classes], []
  monkeypatch.setattr(run_intervals, '_interval', lambda values, _: seen.append(values))
  scores = classification_scores(probabilities, labels)
  intervals(scores, diagnosed(probabilities, labels, names), 5)
  recalls, areas = seen
  assert recalls[0] == pytest.approx(scores['balanced_accuracy'])
  assert areas[0] == pytest.approx(scores['auc'])
  count = len(labels)
  draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=5)
  for k, weights in enumerate(draws, 1):
    drawn = np.repeat(np.arange(count), weights)
    p, truth = probabilities[drawn], labels[drawn]
    assert recalls[k] == pytest.approx(metrics.balanced_accuracy_score(truth, p.argmax(1)))
    expected = (
      metrics.roc_auc_score(truth, p[:, 1])
      if classes == 2
      else metrics.roc_auc_score(truth, p, multi_class='ovr')
    )
    assert areas[k] == pytest.approx(expected)


def test_intervals_of_diagnoses_are_as_wide_as_theory_says():
  """An accuracy over n images has the variance p (1 - p) / n, and so has the recall of a class
  over its own.
  """
  probabilities, labels = made_up(2, 400)
  scores = classification_scores(probabilities, labels)
  found = intervals(scores, diagnosed(probabilities, labels, NAMES[:2]), 4000)
  right = probabilities.argmax(1) == labels
  shares = [(right[labels == k].mean(), (labels == k).sum()) for k in (0, 1)]
  spread = np.sqrt(sum(p * (1 - p) / n for p, n in shares)) / 2
  width = 2 * stats.t.ppf(0.975, 399) * spread
  assert np.diff(found['balanced_accuracy'])[0] == pytest.approx(width, rel=0.05)
  assert np.mean(found['balanced_accuracy']) == pytest.approx(scores['balanced_accuracy'])
  # Hanley and McNeil 1982, equation 2.
  a, positives, negatives = scores['auc'], labels.sum(), (labels == 0).sum()
  q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
  variance = a * (1 - a) + (positives - 1) * (q1 - a**2) + (negatives - 1) * (q2 - a**2)
  width = 2 * stats.t.ppf(0.975, 399) * np.sqrt(variance / (positives * negatives))
  assert np.diff(found['auc'])[0] == pytest.approx(width, rel=0.15)


def test_of_one_class_or_one_group_little_is_known():
  probabilities, labels = made_up(2, 10)
  rows = diagnosed(probabilities, 0 * labels, NAMES[:2])
  scores = classification_scores(probabilities, 0 * labels)
  assert set(intervals(scores, rows, 100)) == {'accuracy', 'balanced_accuracy'}
  together = [row | {'group': 3} for row in rows]
  assert intervals(scores, together, 100) == {}
