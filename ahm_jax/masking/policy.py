"""From an agent's map to what is masked: bounds, mask warm-up, budget."""

import jax
import jax.numpy as jnp

from ahm_jax.config import TILE, MaskingConfig
from ahm_jax.masking.patches import bound_logits, budget_shift, centred, tile_budget_shift
from ahm_jax.masking.strategy import growing_share, warmup_factor

# Unbounded, logits saturated within 100 steps: exploration was over, and the bisection's range no
# longer held the ratio. Within 3 of the mean, with an entropy weight of 0.1, it does, and p keeps a
# spread of about 0.25.
LOGIT_BOUND = 3.0


def policy_logits(raw: jax.Array, progress: jax.Array | float, masking: MaskingConfig) -> jax.Array:
  """From the policy head's map to the logits of masking: bounded, warmed up, within the budget; all
  [b, g, g].

  p = (1 - s) r + s sigmoid(e z + shift), with r the mask ratio, z the bounded logits, and the shift
  that makes the mean of p equal r where `budget` says. Over the mask warm-up either e or s grows,
  as `warmup_by` says: 'logits', e from 0 to 1; 'share', s from 0 to `hard_share`.
  """
  if masking.warmup_by == 'share':
    share = growing_share(progress, masking, 1.0)
    return _mixed(_within_budget(raw, 1.0, masking), share, masking.mask_ratio)
  logits = _within_budget(raw, warmup_factor(progress, masking), masking)
  if masking.hard_share is None:
    return logits
  return _mixed(logits, masking.hard_share, masking.mask_ratio)


def _within_budget(raw: jax.Array, factor: jax.Array | float, masking: MaskingConfig) -> jax.Array:
  """The logits times `factor`, shifted so that `mask_ratio` holds where the budget says."""
  ratio = masking.mask_ratio
  if masking.budget == 'none':
    return factor * bound_logits(raw, LOGIT_BOUND) + jnp.log(ratio / (1 - ratio))
  logits = factor * bound_logits(centred(raw), LOGIT_BOUND)
  if masking.budget == 'tile':
    return logits + tile_budget_shift(logits, ratio, TILE)
  return logits + budget_shift(logits, ratio)


def _mixed(logits: jax.Array, share: jax.Array | float, ratio: float) -> jax.Array:
  """The logits of p = (1 - share) ratio + share sigmoid(logits), finite also where p rounds to 0
  or 1.
  """
  share = jnp.asarray(share, logits.dtype)
  of_one = jnp.logaddexp(
    jnp.log1p(-share) + jnp.log(ratio), jnp.log(share) + jax.nn.log_sigmoid(logits)
  )
  of_zero = jnp.logaddexp(
    jnp.log1p(-share) + jnp.log1p(-ratio), jnp.log(share) + jax.nn.log_sigmoid(-logits)
  )
  return of_one - of_zero
