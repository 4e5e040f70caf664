"""From a network's probabilities to the mask that is scored, at the image's own resolution."""

import numpy as np
from PIL import Image


def at_own_size(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Probabilities float32 [S, S], resized bilinearly to `shape` (h, w).

  Those of that shape are returned as they are.
  """
  if probabilities.shape == tuple(shape):
    return probabilities
  height, width = shape
  return np.asarray(
    Image.fromarray(probabilities).resize((width, height), Image.Resampling.BILINEAR)
  )


def predicted_mask(
  probabilities: np.ndarray, shape: tuple[int, int], threshold: float
) -> np.ndarray:
  """What was found in an image, at its own resolution `shape` (h, w).

  Args:
    probabilities: float32 [S, S], or with classes [S, S, K + 1], that of background first; they are
      resized as `at_own_size`.
    threshold: lesion where the probability is at least this; with classes, the most probable is
      taken instead.

  Returns:
    bool [h, w], or with classes uint8 [h, w], 0 for background.
  """
  if probabilities.ndim == 2:
    return at_own_size(probabilities, shape) >= threshold
  highest = at_own_size(probabilities[..., 0], shape)
  found = np.zeros(shape, np.uint8)
  for k in range(1, probabilities.shape[-1]):  # One class at a time, for there may be many pixels.
    probability = at_own_size(probabilities[..., k], shape)
    found[probability > highest] = k
    highest = np.maximum(highest, probability)
  return found
