"""How numbers become grey levels of 8 bits.

8 bits stay as they are. More than 8 bits (integer or float grey) are mapped linearly onto 0..255:
from centre - width / 2 to centre + width / 2 where there is a window, else from the 0.5th to the
99.5th percentile of the file's own values (the range that nnU-Net clips to, Isensee et al. 2021),
or from lowest to highest where these two are equal. Files use a part of their type's range only,
often 12 of 16 bits, so that the full range would leave a few levels. A volume is mapped as a whole.

A modality is mapped by its entry in config.data.intensity whatever its bits: see `modality_range`.
"""

from collections.abc import Sequence

import numpy as np

from ahm_jax.config.ranges import WINDOW, ZSCORE

PERCENTILES = (0.5, 99.5)
DEVIATIONS = 3.0  # Standard deviations that 'zscore' shows on both sides of the mean.
MISSING = 128  # What a modality that is lacking is filled with, uint8: mid-grey.
SAMPLED = 2**22  # Values of a volume, evenly spaced, that its percentiles are taken from.


def value_range(values: np.ndarray, window: Sequence[float] | None = None) -> tuple[float, float]:
  """The values that become 0 and 255; see the top of this file.

  Args:
    values: numbers of any shape; those that are not finite do not count.
    window: (centre, width).
  """
  if window:
    centre, width = window
    return centre - width / 2, centre + width / 2
  flat = values.reshape(-1)
  flat = flat[:: max(1, flat.size // SAMPLED)].astype(np.float64)
  flat = flat[np.isfinite(flat)]
  if not flat.size:
    return 0.0, 0.0
  low, high = np.percentile(flat, PERCENTILES)
  return (float(low), float(high)) if low < high else (float(flat.min()), float(flat.max()))


def described(entry: str) -> str:
  """What an entry of config.data.intensity makes 0 and 255, in words."""
  kind, *numbers = entry.split('/')
  if kind == WINDOW:
    low, high = value_range(np.zeros(0), [float(number) for number in numbers])
    return f'0 and 255 are the values {low:g} and {high:g}'
  if kind == ZSCORE:
    ends = f'{DEVIATIONS:g} standard deviations below and above the mean'
  else:
    ends = f'the {PERCENTILES[0]}th and {PERCENTILES[1]}th percentile'
  return f"0 and 255 are {ends} of the case's values that are not 0"


def modality_range(values: np.ndarray, entry: str) -> tuple[float, float]:
  """The values of one modality of a case that become 0 and 255.

  Args:
    values: all of them; those that are not finite do not count, and of the others what is not 0 is
      the foreground, since air and what was cut away are 0.
    entry: 'window/CENTRE/WIDTH'; 'zscore', DEVIATIONS standard deviations below and above the
      foreground's mean; or 'percentile', PERCENTILES of the foreground. Where these two are equal,
      as those of no foreground are, from lowest to highest value.
  """
  kind, *numbers = entry.split('/')
  if kind == WINDOW:
    return value_range(values, [float(number) for number in numbers])
  flat = values.reshape(-1)
  flat = flat[:: max(1, flat.size // SAMPLED)].astype(np.float64)
  flat = flat[np.isfinite(flat)]
  foreground = flat[flat != 0]
  if kind == ZSCORE and foreground.size:
    mean, deviation = foreground.mean(), foreground.std()
    if deviation > 0:
      return mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation
  low, high = value_range(foreground)
  return (low, high) if low < high or not flat.size else (float(flat.min()), float(flat.max()))


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """`values` mapped linearly from [low, high] onto 0..255 and rounded, uint8.

  0 where they are nan, or low equals high.
  """
  with np.errstate(all='ignore'):
    span = high - low
    if np.isfinite(span) and span > 0:
      share = (values.astype(np.float64) - low) / span
    else:
      share = np.zeros(values.shape)
    return (np.clip(np.nan_to_num(share, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def with_channels(grey: np.ndarray, channels: int) -> np.ndarray:
  """uint8 [H, W] as [H, W, channels], without a copy."""
  return np.broadcast_to(grey[..., None], (*grey.shape, channels))
