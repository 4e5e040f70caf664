"""Held-out images through the whole method: what the agent masked, how the U-Net reconstructed it,
what was segmented.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.data.augment import denormalise
from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.metrics import mask_scores
from ahm_jax.masking import held_out
from ahm_jax.masking.networks import Networks, strategy_state
from ahm_jax.masking.patches import over_images
from ahm_jax.report.pictures import Example
from ahm_jax.runtime.batching import in_batches
from ahm_jax.task import TrainState


def make_examples(
  nets: Networks,
  state: TrainState,
  probabilities: np.ndarray,
  split: Split,
  threshold: float,
  mask_classes: Sequence[str] = (),
) -> list[Example]:
  """One `Example` for each image of `split`, all of which have a mask.

  Args:
    nets, state: of the pre-training, as for `learning_metrics`.
    probabilities: float32 [N, S, S], the segmentation's; with K classes [N, S, S, K + 1].
    threshold, mask_classes: as for `per_image.segmentation_rows`.
  """
  policy, hidden, reconstruction = mask_and_reconstruct(nets, state, split.images)
  examples = []
  for i, name in enumerate(split.ids):
    truth = split.full_mask(i)
    prediction = predicted_mask(probabilities[i], truth.shape, threshold)
    scores = mask_scores(prediction, truth, mask_classes)
    by_class = {item: scores[f'dice_{item}'] for item in mask_classes}
    shown = split.images[i], policy[i], hidden[i] > 0, reconstruction[i]
    examples.append(Example(*shown, truth, prediction, name, scores['dice'], by_class))
  return examples


def mask_and_reconstruct(
  nets: Networks, state: TrainState, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What a pre-training makes of images uint8 [N, S, S, C].

  Returns:
    The policy, float32 [N, g, g]; one mask sampled from it, [N, g, g], 1 where hidden; the images
    with that reconstructed, uint8. Per modality, the former two are of the first one.
  """
  own, patch_size = strategy_state(state), nets.masking.patch_size
  variables = {'params': state.params, 'batch_stats': state.batch_stats}

  def show(batch):
    policy, hidden = held_out.propose(nets, own, batch, jax.random.key(0))
    found = held_out.reconstruct(nets.unet, variables, batch, hidden, patch_size)
    as_bytes = jnp.clip(denormalise(found) * 255 + 0.5, 0, 255).astype(jnp.uint8)
    shown = jnp.where(over_images(hidden, batch, patch_size) > 0, as_bytes, batch)
    return first_modality(policy), first_modality(hidden), shown

  return in_batches(show, images, held_out.BATCH)


def first_modality(maps: Any) -> Any:
  """Of maps [..., g, M g] of patches of each modality those of the first: [..., g, g]."""
  return maps[..., : maps.shape[-2]]
