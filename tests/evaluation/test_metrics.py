import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn import metrics as sklearn_metrics

from ahm_jax.evaluation import metrics, per_image


def blob(rng, shape=(23, 31)):
  rows, columns = np.indices(shape)
  centre = rng.uniform(0, shape)
  radii = rng.uniform(2, 10, 2)
  mask = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
  return mask | (rng.uniform(size=shape) < 0.01)


def border(mask):
  """Border pixels by a plain loop: in the mask, and one of the four neighbours is not, or is off
  the image.
  """
  found = []
  for i, j in np.argwhere(mask):
    neighbours = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
    if not all(
      0 <= a < mask.shape[0] and 0 <= b < mask.shape[1] and mask[a, b] for a, b in neighbours
    ):
      found.append((i, j))
  return np.array(found)


def test_segmentation_scores_of_a_hand_worked_pair():
  truth = np.zeros((4, 6), bool)
  truth[1:3, 1:3] = True  # 4 pixels
  prediction = np.zeros((4, 6), bool)
  prediction[1:3, 2:5] = True  # 6 pixels, 2 of them right
  scores = metrics.segmentation_scores(prediction, truth)
  assert {key: scores[key] for key in ('tp', 'fp', 'fn')} == {'tp': 2, 'fp': 4, 'fn': 2}
  assert scores['dice'] == pytest.approx(2 * 2 / (4 + 6))
  assert scores['iou'] == pytest.approx(2 / 8)
  assert scores['precision'] == pytest.approx(2 / 6)
  assert scores['recall'] == pytest.approx(2 / 4)
  # Prediction to truth: columns 2, 3, 4 are 0, 1, 2 px away; 95th percentile of (0, 0, 1, 1, 2, 2)
  # is 2.
  assert scores['hd95'] == pytest.approx(2)


@pytest.mark.parametrize('seed', range(12))
def test_segmentation_scores_equal_sklearn(seed):
  rng = np.random.default_rng(seed)
  prediction, truth = blob(rng), blob(rng)
  scores = metrics.segmentation_scores(prediction, truth)
  flat = truth.ravel(), prediction.ravel()
  assert scores['dice'] == pytest.approx(sklearn_metrics.f1_score(*flat, zero_division=0))
  assert scores['iou'] == pytest.approx(sklearn_metrics.jaccard_score(*flat, zero_division=0))
  assert scores['precision'] == pytest.approx(
    sklearn_metrics.precision_score(*flat, zero_division=0)
  )
  assert scores['recall'] == pytest.approx(sklearn_metrics.recall_score(*flat, zero_division=0))


@pytest.mark.parametrize('seed', range(12))
def test_hausdorff95_equals_brute_force(seed):
  rng = np.random.default_rng(seed)
  prediction, truth = blob(rng), blob(rng)
  distances = cdist(border(prediction), border(truth))
  expected = max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))
  assert metrics.hausdorff95(prediction, truth) == pytest.approx(expected, abs=1e-9)
  assert metrics.hausdorff95(truth, prediction) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('seed', range(6))
def test_hausdorff95_in_millimetres_equals_brute_force(seed):
  """Pixels of 0.4 mm x 1.5 mm."""
  rng = np.random.default_rng(seed)
  prediction, truth, spacing = blob(rng), blob(rng), np.float32([0.4, 1.5])
  distances = cdist(border(prediction) * spacing, border(truth) * spacing)
  expected = max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))
  scores = metrics.segmentation_scores(prediction, truth, spacing)
  assert scores['hd95_mm'] == pytest.approx(expected, rel=1e-6)
  assert scores['hd95'] == metrics.hausdorff95(prediction, truth)


def test_millimetres_by_hand():
  """A square moved by 3 rows of 2 mm, or by 3 columns of 0.5 mm.

  A missed one; and pixels of unknown size.
  """
  truth, down, across = np.zeros((3, 30, 40), bool)
  truth[5:15, 5:15], down[8:18, 5:15], across[5:15, 8:18] = True, True, True
  spacing = (2.0, 0.5)
  assert metrics.segmentation_scores(down, truth, spacing)['hd95_mm'] == pytest.approx(6)
  assert metrics.segmentation_scores(across, truth, spacing)['hd95_mm'] == pytest.approx(1.5)
  assert metrics.segmentation_scores(np.zeros_like(truth), truth, spacing)['hd95_mm'] == math.hypot(
    60, 20
  )
  assert math.isnan(
    metrics.segmentation_scores(np.zeros_like(truth), np.zeros_like(truth), spacing)['hd95_mm']
  )
  for unknown in ((math.nan, math.nan), (math.nan, 1.0)):
    assert 'hd95_mm' not in metrics.segmentation_scores(down, truth, unknown)


def test_the_mean_in_millimetres_is_over_the_images_of_known_spacing(tmp_path):
  truth, down, empty = np.zeros((3, 30, 40), bool)
  truth[5:15, 5:15], down[8:18, 5:15] = True, True
  rows = [
    {'image': 'a', **metrics.segmentation_scores(down, truth)},
    {'image': 'b', **metrics.segmentation_scores(down, truth, (2, 1))},
    {'image': 'c', **metrics.segmentation_scores(down, truth, (4, 1))},
    {'image': 'd', **metrics.segmentation_scores(empty, empty, (4, 1))},
  ]
  assert metrics.summarise(rows)['hd95_mm'] == pytest.approx((6 + 12) / 2)
  assert 'hd95_mm' not in metrics.summarise(rows[:1])
  per_image.write(tmp_path / 'a.csv', rows)
  back = per_image.read(tmp_path / 'a.csv')
  assert math.isnan(back[0]['hd95_mm']) and back[2]['hd95_mm'] == 12
  assert metrics.summarise(back) == metrics.summarise(rows)


def test_hausdorff95_takes_the_larger_direction_not_the_pool():
  truth = np.zeros((1, 200), bool)
  truth[0, :100] = True
  prediction = truth.copy()
  prediction[0, 150] = (
    # One of 101 border pixels lies 51 px off: outside the 95th percentile of its own direction.
    True
  )
  assert metrics.hausdorff95(prediction, truth) == 0
  truth[0, :100], prediction[0, :100] = False, False
  truth[0, 0] = True
  prediction[0, :2] = (
    True  # Directed sets: (0, 1, 150) and (0). Pooled, the percentile would be 127.65.
  )
  assert metrics.hausdorff95(prediction, truth) == pytest.approx(1 + 0.9 * 149)


def test_hausdorff95_counts_the_image_edge_as_border():
  truth = np.ones((9, 9), bool)
  prediction = np.zeros((9, 9), bool)
  prediction[1:8, 1:8] = True
  # Corners lie sqrt(2) from the inner square's; 4 of 32 border pixels, more than 5 %.
  assert metrics.hausdorff95(prediction, truth) == pytest.approx(math.sqrt(2))


def test_undefined_scores():
  empty, lesion = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
  lesion[5:9, 5:9] = True
  both = metrics.segmentation_scores(empty, empty)
  assert all(math.isnan(both[key]) for key in ('dice', 'iou', 'hd95', 'precision', 'recall'))
  for prediction, truth in ((empty, lesion), (lesion, empty)):
    scores = metrics.segmentation_scores(prediction, truth)
    assert all(scores[key] == 0 for key in ('dice', 'iou', 'precision', 'recall'))
    assert scores['hd95'] == 50
  perfect = metrics.segmentation_scores(lesion, lesion)
  assert [perfect[key] for key in ('dice', 'iou', 'hd95', 'precision', 'recall')] == [1, 1, 0, 1, 1]


def test_masks_of_different_shape_are_refused():
  with pytest.raises(ValueError, match='one shape'):
    metrics.segmentation_scores(np.zeros((4, 5), bool), np.zeros((5, 4), bool))


def test_summarise_by_hand():
  empty, half, lesion = np.zeros((6, 8), bool), np.zeros((6, 8), bool), np.zeros((6, 8), bool)
  lesion[1:5, 1:5] = True  # 16 pixels
  half[1:5, 1:3] = True  # 8 of them
  pairs = [(lesion, lesion), (half, lesion), (empty, lesion), (lesion, empty), (empty, empty)]
  summary = metrics.summarise([metrics.segmentation_scores(*pair) for pair in pairs])
  assert summary['dice'] == pytest.approx((1 + 2 * 8 / 24 + 0 + 0) / 4)
  assert summary['iou'] == pytest.approx((1 + 0.5) / 4)
  assert summary['hd95'] == pytest.approx((0 + 2 + 10 + 10) / 4)
  assert summary['pooled_dice'] == pytest.approx(2 * 24 / (2 * 24 + 16 + 8 + 16))
  assert {key: summary[key] for key in ('images', 'both_empty', 'missed', 'false_alarms')} == {
    'images': 5,
    'both_empty': 1,
    'missed': 1,
    'false_alarms': 1,
  }
  assert summary['lesion_dice'] == pytest.approx((1 + 2 * 8 / 24 + 0) / 3)
  assert summary['false_alarm_rate'] == 1 / 2
  lesions_only = metrics.summarise([metrics.segmentation_scores(*pair) for pair in pairs[:3]])
  assert not {'lesion_dice', 'false_alarm_rate'} & set(lesions_only)


def test_dice_of_a_group_is_that_of_its_volume():
  """Two volumes of 5 and 3 slices against Dice of the three-dimensional masks.

  A third is empty, and none.
  """
  rng = np.random.default_rng(0)
  volumes = [rng.random((2, slices, 6, 6)) < 0.3 for slices in (5, 3)] + [
    np.zeros((2, 2, 6, 6), bool)
  ]
  volumes[0][:, 1] = False
  rows = [
    {'group': number, **metrics.segmentation_scores(found, truth)}
    for number, (prediction, truths) in enumerate(volumes)
    for found, truth in zip(prediction, truths, strict=True)
  ]
  expected = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in volumes[:2]]
  assert metrics.summarise_groups(rows) == {'group_dice': pytest.approx(np.mean(expected))}
  assert metrics.summarise(rows)['dice'] != pytest.approx(np.mean(expected), abs=1e-3)
  assert math.isnan(metrics.summarise_groups(rows[-2:])['group_dice'])
  assert metrics.summarise_groups([row | {'group': i} for i, row in enumerate(rows)]) == {}


def test_dice_of_a_group_by_class():
  """Two slices of one volume by hand; a volume of one slice without the second class."""
  volumes = [
    (np.array([[[1, 1, 2]], [[0, 2, 2]]]), np.array([[[1, 0, 2]], [[1, 2, 0]]])),
    (np.array([[[1, 1, 0]]]), np.array([[[1, 1, 1]]])),
  ]
  rows = [
    {'group': number, **metrics.class_scores(found, truth, ('a', 'b'))}
    for number, (prediction, truths) in enumerate(volumes)
    for found, truth in zip(prediction, truths, strict=True)
  ]
  a, b, other = 2 * 1 / (2 + 2), 2 * 2 / (3 + 2), 2 * 2 / (2 + 3)
  found = metrics.summarise_groups(rows, ('a', 'b'))
  assert found == {
    'group_dice': pytest.approx(((a + b) / 2 + other) / 2),
    'group_dice_by_class': {'a': pytest.approx((a + other) / 2), 'b': pytest.approx(b)},
  }


def test_summarise_without_any_lesion_is_nan():
  empty = np.zeros((4, 4), bool)
  summary = metrics.summarise([metrics.segmentation_scores(empty, empty)])
  assert math.isnan(summary['dice']) and math.isnan(summary['pooled_dice'])
  assert summary['both_empty'] == summary['images'] == 1


def test_classification_scores_equal_sklearn():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 90)
  logits = rng.standard_normal((90, 3)) + 1.2 * np.eye(3)[labels]
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  scores = metrics.classification_scores(probabilities, labels)
  predicted = probabilities.argmax(1)
  assert scores['accuracy'] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
  assert scores['balanced_accuracy'] == pytest.approx(
    sklearn_metrics.balanced_accuracy_score(labels, predicted)
  )
  expected = sklearn_metrics.roc_auc_score(
    labels, probabilities, multi_class='ovr', average='macro'
  )
  assert scores['auc'] == pytest.approx(expected)


def test_classification_scores_of_two_classes_by_hand():
  probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
  scores = metrics.classification_scores(probabilities, np.array([0, 0, 1, 1]))
  # Positives 0.3 and 0.8 against negatives 0.1 and 0.4: three of four pairs in order.
  assert scores == {'accuracy': 0.75, 'balanced_accuracy': 0.75, 'auc': 0.75}


def test_classification_leaves_out_unknown_labels_and_absent_classes():
  probabilities = np.array(
    [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.0, 0.1, 0.9]]
  )
  scores = metrics.classification_scores(probabilities, np.array([0, 1, 1, 0, -1]))
  # Class 2 is predicted once but never true. Recall of class 0: 1/2, of class 1: 1/2.
  assert scores['accuracy'] == 0.5 and scores['balanced_accuracy'] == 0.5
  # Class 0: 0.8, 0.3 against 0.1, 0.1: area 1. Class 1: 0.8, 0.2 against 0.1, 0.4: 3 of 4 pairs.
  assert scores['auc'] == pytest.approx((1 + 0.75) / 2)


def test_classification_without_enough_labels_is_nan():
  probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
  one_class = metrics.classification_scores(probabilities, np.array([1, 1]))
  assert (
    one_class['accuracy'] == 0.5
    and one_class['balanced_accuracy'] == 0.5
    and math.isnan(one_class['auc'])
  )
  unknown = metrics.classification_scores(probabilities, np.array([-1, -1]))
  assert all(math.isnan(value) for value in unknown.values())
  with pytest.raises(ValueError, match='must be'):
    metrics.classification_scores(probabilities, np.array([1]))


def test_spearman_within_images():
  rng = np.random.default_rng(1)
  a = rng.integers(0, 6, (5, 4, 4)).astype(float)  # With ties.
  b = rng.standard_normal((5, 4, 4)) + a
  expected = [
    np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1] for x, y in zip(a, b, strict=True)
  ]
  mean, left_out = metrics.spearman_within_images(a, b)
  assert mean == pytest.approx(np.mean(expected)) and left_out == 0
  a[2] = 3  # A constant map ranks nothing.
  mean, left_out = metrics.spearman_within_images(a, b)
  assert mean == pytest.approx(np.mean(np.delete(expected, 2))) and left_out == 1


def test_spearman_is_taken_within_images_not_across_them():
  rising = np.arange(4.0).reshape(1, 2, 2)
  a = np.concatenate([rising, rising + 100])
  b = np.concatenate([-rising, 100 - rising])
  # Pooled over images it would be positive.
  assert metrics.spearman_within_images(a, b) == (
    pytest.approx(-1),
    0,
  )


def test_spearman_leaves_out_unknown_patches():
  a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
  b = np.array([[[1.0, np.nan], [5.0, 2.0]]])
  # Ranks (1, 2, 3) and (1, 3, 2).
  assert metrics.spearman_within_images(a, b) == (
    pytest.approx(0.5),
    0,
  )
  mean, left_out = metrics.spearman_within_images(np.ones((2, 3, 3)), np.ones((2, 3, 3)))
  assert math.isnan(mean) and left_out == 2
