"""How sure a network is of a mask, and how well that ranks masks by their Dice.

Confidence is the probability whose log odds are the mean of those of the mask's pixels,
sigmoid(mean log(p / (1 - p))): 0.5 where the mask lies on the threshold, 1 where every pixel of it
is sure. Where nothing was found it is 1 - max(p).
"""

from collections.abc import Sequence

import numpy as np

from ahm_jax.evaluation.masks import at_own_size

_LEAST = 1e-3  # Probabilities count as at least this, and at most 1 less this.


def plane(probabilities: np.ndarray, k: int, shape: tuple[int, int]) -> np.ndarray:
  """Probability of class k, from 1, at the image's own size; of 0 with classes, of background.

  Args:
    probabilities: float32 [S, S], or with K classes [S, S, K + 1].
  """
  binary = probabilities.ndim == 2
  return at_own_size(
    probabilities if binary else np.ascontiguousarray(probabilities[..., k]), shape
  )


def confidence(probabilities: np.ndarray, mask: np.ndarray) -> float:
  """Of what `masks.predicted_mask` made of `probabilities`, in [0, 1]; with classes the mean over
  those found.
  """
  count = 1 if probabilities.ndim == 2 else probabilities.shape[-1] - 1
  found = (k for k in range(1, count + 1) if (mask == k).any())
  parts = [in_mask(plane(probabilities, k, mask.shape), mask == k) for k in found]
  return joined(parts, probabilities, mask.shape)


def in_mask(probability: np.ndarray, inside: np.ndarray) -> float | None:
  """Of one class, whose mask is `inside`; None where that is empty."""
  if not inside.any():
    return None
  p = np.clip(probability[inside].astype(np.float64), _LEAST, 1 - _LEAST)
  return float(1 / (1 + np.exp(-np.log(p / (1 - p)).mean())))


def joined(
  parts: Sequence[float | None], probabilities: np.ndarray, shape: tuple[int, int]
) -> float:
  """The mean over classes that were found, as `in_mask` has them; where there are none, 1 less the
  highest probability of any.
  """
  known = [part for part in parts if part is not None]
  if known:
    return float(np.mean(known))
  if probabilities.ndim == 2:
    return 1 - float(plane(probabilities, 1, shape).max())
  return float(plane(probabilities, 0, shape).min())


def ranking(confidences: Sequence[float], dice: Sequence[float]) -> dict[str, float]:
  """How well confidence ranks images by their Dice; those whose Dice is nan are left out.

  Returns:
    'confidence_rank_correlation': Spearman's, in [-1, 1].
    'risk_coverage_area': the mean over 1, 2, ..., N of 1 - Dice of so many images of the highest
      confidence (AURC, Geifman and El-Yaniv 2017), in [0, 1]: the less, the better; 1 less the mean
      Dice where it ranks nothing. Images of one confidence share their mean.
    'dice_surest_half': mean Dice of the half of the images of the highest confidence, rounded up.
    Each is nan where it is not defined.
  """
  from scipy import stats  # Here, since every command imports this module.

  sure, score = np.asarray(confidences, float), np.asarray(dice, float)
  known = np.isfinite(sure) & np.isfinite(score)
  sure, score = sure[known], score[known]
  names = ('confidence_rank_correlation', 'risk_coverage_area', 'dice_surest_half')
  if not len(sure):
    return dict.fromkeys(names, float('nan'))
  _, alike = np.unique(-sure, return_inverse=True)
  shared = (np.bincount(alike, score) / np.bincount(alike))[np.sort(alike)]
  means = np.cumsum(shared) / np.arange(1, len(shared) + 1)
  ranked = len(np.unique(sure)) > 1 and len(np.unique(score)) > 1
  correlation = float(stats.spearmanr(sure, score).statistic) if ranked else float('nan')
  half = means[(len(means) + 1) // 2 - 1]
  return dict(zip(names, (correlation, float(np.mean(1 - means)), float(half)), strict=True))
