"""Held-out images through the whole method: what the agent masked, how the U-Net reconstructed it,
what was segmented.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.data.augment import denormalise, normalise
from ahm_jax.data.dataset import Split
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.evaluation.metrics import mask_scores
from ahm_jax.masking.networks import Networks, strategy_state
from ahm_jax.masking.patches import mask_patches, over_images
from ahm_jax.masking.strategy import TRAINED
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
  policy, hidden, reconstruction = mask_and_reconstruct(nets, state, split.images, len(split))
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
  nets: Networks, state: TrainState, images: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What a pre-training makes of images uint8 [N, S, S, C].

  Returns:
    The policy, float32 [N, g, g]; one mask sampled from it, [N, g, g], 1 where hidden; the images
    with that reconstructed, uint8. Per modality, the former two are of the first one.
  """
  show, own = _show(nets), strategy_state(state)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return in_batches(lambda batch: show(own, variables, batch), images, batch_size)


def first_modality(maps: Any) -> Any:
  """Of maps [..., g, M g] of patches of each modality those of the first: [..., g, g]."""
  return maps[..., : maps.shape[-2]]


@functools.cache
def _show(nets: Networks):
  patch_size = nets.masking.patch_size

  @jax.jit
  def show(strategy_state, variables, images):
    """The policy and one mask sampled from it, [N, g, g], and the images [N, S, S, C] with the
    masked patches reconstructed, uint8.
    """
    proposal = nets.strategy.propose(
      strategy_state, normalise(images / 255.0), jax.random.key(0), TRAINED, False
    )
    masked = mask_patches(normalise(images / 255.0), proposal.hidden, patch_size)
    reconstruction = nets.reconstruct(variables, masked)
    pixels = over_images(proposal.hidden, images, patch_size)
    as_bytes = jnp.clip(denormalise(reconstruction) * 255 + 0.5, 0, 255).astype(jnp.uint8)
    policy, hidden = map(first_modality, (proposal.probability, proposal.hidden))
    return policy, hidden, jnp.where(pixels > 0, as_bytes, images)

  return show
