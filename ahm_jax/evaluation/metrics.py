"""Scores of segmentations and classifications, at each image's own resolution (NumPy, SciPy,
scikit-learn).

What is undefined is treated as the field does. Prediction and truth both empty: every score is nan,
left out of means and counted apart (nnU-Net). One of them empty: overlap scores are 0 and HD95 is
the image's diagonal, its worst possible value (Metrics Reloaded, Maier-Hein et al. 2024), so that a
missed lesion never improves a mean; such images are counted too.
"""

import collections
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy

OVERLAP_SCORES = ('dice', 'iou', 'precision', 'recall')
ROUNDING = 1e-6  # Of float32, by which a score may pass its range.
COUNTS = ('tp', 'fp', 'fn')  # Of pixels.
IMAGE_COUNTS = ('images', 'both_empty', 'missed', 'false_alarms')  # In `summarise`.
_BY_CLASS = (
  'dice',
  'iou',
  'hd95',
  'precision',
  'recall',
  'pooled_dice',
  'both_empty',
  'missed',
  'false_alarms',
)
Scores = dict[str, float | int]
Spacing = Sequence[float] | np.ndarray
UNKNOWN = (math.nan, math.nan)  # Spacing.


def mask_scores(
  prediction: np.ndarray,
  truth: np.ndarray,
  mask_classes: Sequence[str],
  spacing: Spacing = UNKNOWN,
) -> Scores:
  """`class_scores` where there are classes, else `segmentation_scores`."""
  if mask_classes:
    return class_scores(prediction, truth, mask_classes, spacing)
  return segmentation_scores(prediction, truth, spacing)


def segmentation_scores(
  prediction: np.ndarray, truth: np.ndarray, spacing: Spacing = UNKNOWN
) -> Scores:
  """Scores one predicted mask against its truth.

  Args:
    prediction: bool [h, w].
    truth: bool [h, w].
    spacing: mm from a pixel to the next, down and across; nan: unknown.

  Returns:
    'dice', 'iou', 'precision', 'recall' in [0, 1]; 'hd95' in pixels (see `hausdorff95`) and, where
    spacing is known, 'hd95_mm' in mm; 'tp', 'fp', 'fn' in pixels. The scores are nan where both
    masks are empty; where a denominator alone is 0, the ratio counts as 0.

  Raises:
    ValueError: the two differ in shape or are not two-dimensional.
  """
  prediction, truth = _as_masks(prediction, truth)
  tp = int(np.sum(prediction & truth))
  fp = int(np.sum(prediction & ~truth))
  fn = int(np.sum(truth & ~prediction))
  empty = math.nan if tp + fp + fn == 0 else 0.0

  def ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else empty

  millimetres = (
    {'hd95_mm': hausdorff95(prediction, truth, spacing)} if np.isfinite(spacing).all() else {}
  )
  return {
    'dice': ratio(2 * tp, 2 * tp + fp + fn),
    'iou': ratio(tp, tp + fp + fn),
    'hd95': hausdorff95(prediction, truth),
    **millimetres,
    'precision': ratio(tp, tp + fp),
    'recall': ratio(tp, tp + fn),
    'tp': tp,
    'fp': fp,
    'fn': fn,
  }


def class_scores(
  prediction: np.ndarray,
  truth: np.ndarray,
  names: Sequence[str],
  spacing: Spacing = UNKNOWN,
) -> Scores:
  """Scores predicted class indices against the true ones, each class against all else.

  Args:
    prediction: integers [h, w], 0 for background and k for class k of `names`, from 1.
    truth: the same.
    names: of the K classes.
    spacing: as of `segmentation_scores`.

  Returns:
    The keys of `segmentation_scores`: scores are means over the classes that prediction or truth
    holds (nnU-Net too leaves out a class that both lack), nan where they hold none; 'tp', 'fp',
    'fn' are sums over all classes. Then, for each class, what `segmentation_scores` has, with its
    name in the key: 'dice_NAME', 'iou_NAME' and so on.

  Raises:
    ValueError: as `segmentation_scores`.
  """
  by_class = [
    segmentation_scores(prediction == k, truth == k, spacing) for k in range(1, len(names) + 1)
  ]
  overall: Scores = {}
  single: Scores = {}
  for key in by_class[0]:
    values = [scores[key] for scores in by_class]
    overall[key] = sum(values) if key in COUNTS else _known_mean(values)
    single |= {f'{key}_{name}': value for name, value in zip(names, values, strict=True)}
  return overall | single


def hausdorff95(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing = (1.0, 1.0)) -> float:
  """The 95th percentile Hausdorff distance, symmetric, in pixels or in what `spacing` is in.

  For each mask, the Euclidean distances from its border pixels to the other mask's nearest border
  pixel; the larger of the two sets' 95th percentiles (linear interpolation). This is the convention
  of MONAI and Metrics Reloaded; MedPy instead takes one percentile of both sets together. Border
  pixels are those of the mask with a 4-neighbour outside it, the image's edge counting as outside.

  Args:
    prediction: bool [h, w].
    truth: bool [h, w].
    spacing: distance of a pixel to the next, down and across.

  Returns:
    In [0, diagonal]; nan where both masks are empty, the image's diagonal where one is.
  """
  prediction, truth = _as_masks(prediction, truth)
  if not prediction.any() and not truth.any():
    return math.nan
  if not prediction.any() or not truth.any():
    return math.hypot(*np.multiply(truth.shape, spacing))
  box = scipy.ndimage.find_objects((prediction | truth).astype(np.uint8))[0]
  borders = [mask[box] & ~scipy.ndimage.binary_erosion(mask[box]) for mask in (prediction, truth)]
  sampling = tuple(map(float, spacing))
  directed = [
    scipy.ndimage.distance_transform_edt(~borders[1 - i], sampling)[borders[i]] for i in (0, 1)
  ]
  return float(max(np.percentile(distances, 95) for distances in directed))


def summarise(per_image: Iterable[dict]) -> Scores:
  """Means over images of `segmentation_scores`.

  Args:
    per_image: one dict an image, with the keys of `segmentation_scores`; those of `class_scores`
      are taken as one lesion of several parts, with `tp`, `fp` and `fn` of all classes together.

  Returns:
    'dice', 'iou', 'hd95', 'precision', 'recall': means over the images whose masks are not both
    empty, nan if there is none.
    'pooled_dice': Dice of all images' pixels taken together, another number than the mean. Counts:
    'images', 'both_empty', 'missed' (a lesion, and an empty prediction), 'false_alarms' (a
    prediction where there is no lesion). Where some images are without lesion also 'lesion_dice',
    the mean over the images with one, and 'false_alarm_rate', the share of the others with a
    prediction: a false alarm has a Dice of 0 and a right silence none, so that 'dice' holds the one
    and not the other. 'hd95_mm' is there where it is known of any scored image, and its mean over
    those.
  """
  rows = list(per_image)
  scored = [row for row in rows if row['tp'] + row['fp'] + row['fn'] > 0]
  means = {
    key: float(np.mean([row[key] for row in scored])) if scored else math.nan
    for key in ('hd95', *OVERLAP_SCORES)
  }
  millimetres = [row['hd95_mm'] for row in scored if math.isfinite(row.get('hd95_mm', math.nan))]
  false_alarms = sum(row['tp'] + row['fn'] == 0 for row in scored)
  result = {
    **{key: means[key] for key in ('dice', 'iou', 'hd95', 'precision', 'recall')},
    'pooled_dice': _pooled_dice(rows),
    'images': len(rows),
    'both_empty': len(rows) - len(scored),
    'missed': sum(row['tp'] + row['fp'] == 0 for row in scored),
    'false_alarms': false_alarms,
  }
  if millimetres:
    result['hd95_mm'] = float(np.mean(millimetres))
  lesions = [row['dice'] for row in rows if row['tp'] + row['fn'] > 0]
  if len(lesions) < len(rows):
    result['lesion_dice'] = float(np.mean(lesions)) if lesions else math.nan
    result['false_alarm_rate'] = false_alarms / (len(rows) - len(lesions))
  return result


def summarise_by_class(per_image: Iterable[dict], names: Sequence[str]) -> dict[str, Scores]:
  """Means over images of `class_scores`, class by class.

  Returns:
    'dice_by_class', 'iou_by_class' and so on, each by class name, for the scores and counts of
    `summarise`: so 'dice_by_class' holds means over the images whose prediction or truth holds the
    class.
  """
  rows = list(per_image)
  keys = ('hd95', *OVERLAP_SCORES, *COUNTS)
  by_class = {
    name: summarise({key: row[f'{key}_{name}'] for key in keys} for row in rows) for name in names
  }
  return {f'{key}_by_class': {name: by_class[name][key] for name in names} for key in _BY_CLASS}


def summarise_groups(
  per_image: Iterable[dict], names: Sequence[str] = ()
) -> dict[str, float | dict[str, float]]:
  """Dice of whole groups, of a volume that of all its slices together.

  Args:
    per_image: one dict an image, of `segmentation_scores`, or with `names` of `class_scores`, and
      its 'group'.
    names: of the classes.

  Returns:
    'group_dice': 2 tp / (2 tp + fp + fn) of a group's pixels, in the mean over the groups whose
    masks are not all empty, nan if there is none. With `names` a group's is the mean over the
    classes that it holds; 'group_dice_by_class' has each class's. Nothing where every image is a
    group of its own.
  """
  groups = collections.defaultdict(list)
  for row in per_image:
    groups[row['group']].append(row)
  if all(len(rows) == 1 for rows in groups.values()):
    return {}
  suffixes = [f'_{name}' for name in names] or ['']
  dice = np.array([[_pooled_dice(rows, suffix) for suffix in suffixes] for rows in groups.values()])
  result: dict[str, float | dict[str, float]]
  result = {'group_dice': _known_mean([_known_mean(row) for row in dice])}
  if names:
    result['group_dice_by_class'] = {
      name: _known_mean(column) for name, column in zip(names, dice.T, strict=True)
    }
  return result


def _pooled_dice(rows: Iterable[dict], suffix: str = '') -> float:
  tp, fp, fn = (sum(row[f'{key}{suffix}'] for row in rows) for key in COUNTS)
  return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan


def _known_mean(values: Iterable[float]) -> float:
  known = [value for value in values if not math.isnan(value)]
  return float(np.mean(known)) if known else math.nan


def classification_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """Scores of class probabilities; images of unknown label are left out.

  Args:
    probabilities: float [N, C], C >= 2, in [0, 1].
    labels: int [N], in 0..C-1, or -1 where unknown.

  Returns:
    'accuracy'; 'balanced_accuracy', the mean recall of the classes that occur among the labels;
    'auc', for two classes the area under the ROC curve, for more the plain mean over occurring
    classes of each against the rest. All in [0, 1]. All are nan where no label is known; 'auc' is
    nan where the labels hold a single class.
  """
  probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
  if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
    raise ValueError(
      f'probabilities {probabilities.shape} and labels {labels.shape} must be [N, C] and [N]'
    )
  known = labels >= 0
  probabilities, labels = probabilities[known], labels[known]
  if not len(labels):
    return {'accuracy': math.nan, 'balanced_accuracy': math.nan, 'auc': math.nan}
  # Imported here, since it takes a second and every command imports this module.
  from sklearn.metrics import recall_score

  predicted = probabilities.argmax(axis=1)
  present = np.unique(labels)
  recall = recall_score(labels, predicted, labels=present, average='macro', zero_division=0)
  return {
    'accuracy': float(np.mean(predicted == labels)),
    'balanced_accuracy': float(recall),
    'auc': _auc(probabilities, labels, present),
  }


def _auc(probabilities: np.ndarray, labels: np.ndarray, present: np.ndarray) -> float:
  if len(present) < 2:
    return math.nan
  from sklearn.metrics import roc_auc_score

  positives = [1] if probabilities.shape[1] == 2 else present
  return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in positives]))


def spearman_within_images(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
  """Spearman rank correlation of two maps, taken within each image and averaged over images.

  Args:
    a: float [N, g, g].
    b: float [N, g, g]; patches that are nan in either map are left out.

  Returns:
    The mean correlation in [-1, 1], nan if no image has one; and how many images were left out
    because a map was constant.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise ValueError(f'the maps differ in shape: {a.shape} and {b.shape}')
  correlations = []
  for first, second in zip(a, b, strict=True):
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    if first.size and np.ptp(first) > 0 and np.ptp(second) > 0:
      correlations.append(scipy.stats.spearmanr(first, second).statistic)
  return float(np.mean(correlations)) if correlations else math.nan, len(a) - len(correlations)


def _as_masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  prediction, truth = np.asarray(prediction, bool), np.asarray(truth, bool)
  if prediction.ndim != 2 or prediction.shape != truth.shape:
    raise ValueError(
      f'prediction {prediction.shape} and truth {truth.shape} must be two masks of one shape [h, w]'
    )
  return prediction, truth
