"""How we know that an agent learned where reconstruction is hard: measured on held-out images with
the same U-Net.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.metrics import spearman_within_images
from ahm_jax.masking import held_out
from ahm_jax.masking.networks import Networks, strategy_state
from ahm_jax.masking.patches import apart, patch_mean
from ahm_jax.runtime.batching import in_batches
from ahm_jax.task import TrainState

# Masks drawn per image; a patch is in none of them with chance (1 - mask_ratio)^8, and is then left
# out.
_DRAWS = 8


def learning_metrics(nets: Networks, state: TrainState, split: Split) -> dict[str, float]:
  """The agent's learning metrics on held-out images, the U-Net in inference mode. Where every
  modality has patches of its own, these are the patches.

  Args:
    state: of the pre-training.
    split: N held-out images; those without a mask are left out of `border_lift`.

  Returns:
    difficulty_rank_correlation: Spearman correlation between the policy and each patch's mean loss
      under uniform masks, within images, averaged over them; in [-1, 1]. A policy that is the same
      everywhere ranks nothing and gets 0.
    hardness_ratio: mean loss of patches that the policy masks / of those under uniform masks of
      `masking.mask_ratio`, which is the policy's own share too, unless it has no budget.
    border_lift: mean probability of patches that the lesion's border crosses / of patches without
      lesion.
    mask_ratio: mean share of patches masked.
    loss, uniform_loss: mean squared error of masked patches under the policy's masks and under
      uniform ones, in squared normalised units.
  """
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  probability, hard, hidden, uniform_loss, uniform_hidden = in_batches(
    functools.partial(_measure, nets, strategy_state(state), variables),
    (split.images, np.arange(len(split))),
    held_out.BATCH,
  )
  seen = uniform_hidden.sum(1)
  with np.errstate(invalid='ignore'):
    difficulty = (uniform_loss * uniform_hidden).sum(1) / seen  # nan where a patch was never masked
  correlation, _ = spearman_within_images(probability, difficulty)
  loss = (hard * hidden).sum() / hidden.sum()
  baseline = (uniform_loss * uniform_hidden).sum() / uniform_hidden.sum()
  return {
    'difficulty_rank_correlation': 0.0 if np.isnan(correlation) else correlation,
    'hardness_ratio': float(loss / baseline),
    'border_lift': border_lift(
      probability[split.has_mask], split.masks[split.has_mask], nets.masking.patch_size
    ),
    'mask_ratio': float(hidden.mean()),
    'loss': float(loss),
    'uniform_loss': float(baseline),
  }


def image_difficulty(
  nets: Networks, state: TrainState, images: np.ndarray, batch_size: int
) -> np.ndarray:
  """Mean loss of the patches of each image that the policy masks, the U-Net in inference mode:
  float32 [N], in squared normalised units.

  Args:
    state: of the pre-training.
    images: uint8 [N, S, S, C].
  """
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  measure = functools.partial(_measure, nets, strategy_state(state), variables)
  _, losses, hidden, *_ = in_batches(measure, (images, np.arange(len(images))), batch_size)
  return (losses * hidden).sum((1, 2, 3)) / np.maximum(hidden.sum((1, 2, 3)), 1)


def border_lift(probability: np.ndarray, masks: np.ndarray, patch_size: int) -> float:
  """Mean probability on border patches / on patches without lesion.

  Args:
    probability: [N, g, g], of being masked; or per modality [N, g, M g], of which the mean counts.
    masks: integers [N, H, W], 0 where there is no lesion; of several classes, any is lesion.

  Returns:
    nan when there is no patch of either kind.
  """
  count = probability.shape[2] // probability.shape[1]
  probability = np.asarray(apart(jnp.asarray(probability), count)).mean(1)
  share = np.asarray(patch_mean(jnp.asarray(np.asarray(masks) > 0, jnp.float32), patch_size))
  border, outside = (share > 0) & (share < 1), share == 0
  if not border.any() or not outside.any():
    return float('nan')
  return float(probability[border].mean() / probability[outside].mean())


def _measure(
  nets: Networks, state: Any, variables: Any, batch: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, ...]:
  """Of images and their numbers: the policy, [b, g, g], the mean over draws; then of each draw,
  [b, draws, g, g], losses and masked patches under the policy and under a uniform mask.

  Args:
    state: the strategy's.
  """
  images, indices = batch
  masking = nets.masking
  draws = []
  for key in jax.random.split(jax.random.key(indices[0]), _DRAWS):
    policy_key, uniform_key = jax.random.split(key)
    probability, hidden = held_out.propose(nets, state, images, policy_key)
    uniform = jax.random.bernoulli(uniform_key, masking.mask_ratio, hidden.shape)
    maps = [probability]
    for mask in (hidden, uniform.astype(jnp.float32)):
      found = held_out.reconstruct(nets.unet, variables, images, mask, masking.patch_size)
      maps += [
        held_out.patch_losses(found, images, masking.patch_size, masking.per_modality),
        mask,
      ]
    draws.append(jax.device_get(maps))
  policies, *others = zip(*draws, strict=True)
  return np.mean(policies, axis=0), *(np.stack(items, 1) for items in others)
