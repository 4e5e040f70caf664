"""Masks that know the true lesion: what a masking strategy could win at most, if lesions were what
counts. For experiments; an image without a known lesion is masked at random.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ahm_jax.masking.heuristics import no_state
from ahm_jax.masking.patches import patch_mean
from ahm_jax.masking.strategy import (
  Context,
  Strategy,
  grid_shape,
  growing_share,
  hardest_first,
  learn_nothing,
)


def _first(of: Callable[[jax.Array], jax.Array], context: Context) -> Strategy:
  """Masks the patches first of which `of` is highest, a function of their share of lesion."""
  masking = context.masking

  def propose(state, images, key, progress, train, lesions=None):
    del state, train
    if lesions is None:
      lesions = jnp.zeros(images.shape[:-1])
    scores = of(patch_mean(lesions, masking.patch_size))
    assert scores.shape == grid_shape(images, masking)
    return hardest_first(key, scores, growing_share(progress, masking, 1.0), masking)

  return Strategy(init=no_state, propose=propose, learn=learn_nothing, sees_lesions=True)


# Patches that are all lesion first, patches that are half lesion first, patches without any first.
lesion_first = functools.partial(_first, lambda share: share)
border_first = functools.partial(_first, lambda share: share * (1 - share))
background_first = functools.partial(_first, lambda share: -share)
