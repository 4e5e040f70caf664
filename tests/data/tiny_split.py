"""Splits of a few images of 2 x 2 pixels, whose values are their numbers."""

import numpy as np

from ahm_jax.data.dataset import Split


def make_split(labels, has_mask=None):
  count = len(labels)
  names = tuple(f'i{index}' for index in range(count))
  return Split(
    ids=names,
    images=np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8),
    masks=np.zeros((count, 2, 2), np.uint8),
    labels=np.array(labels, np.int32),
    has_mask=np.ones(count, bool) if has_mask is None else np.array(has_mask),
    groups=names,
    full_masks=(b'',) * count,
  )
