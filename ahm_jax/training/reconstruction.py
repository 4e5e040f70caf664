"""Reconstruction of masked images as a further task of a segmentation: what a pre-training learns,
while masks and diagnoses are learnt.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import lax

from ahm_jax.config import AugmentConfig, ReconstructionConfig
from ahm_jax.data.augment import augment_batch, normalise
from ahm_jax.masking.actor_critic import reconstruction_loss
from ahm_jax.masking.patches import patch_losses
from ahm_jax.masking.rollout import Proposal
from ahm_jax.models.unet import RECONSTRUCTION
from ahm_jax.task import Batch
from ahm_jax.training.hiding import Hiding


class Masked(NamedTuple):
  """Images of a step, with patches that are masked."""

  images: jax.Array  # [r, S, S, C], augmented and normalised.
  masked: jax.Array  # The same with masked patches at 0, mid-grey.
  proposal: Proposal


@dataclass(frozen=True)
class Reconstructing:
  """How a segmentation step reconstructs; runs under an axis of devices named DEVICES.

  Attributes:
    augment: of the images, as of those with a mask; no modality is dropped, for all are targets.
    hiding: of patches, by a strategy that is rewarded by their reconstruction's loss.
  """

  config: ReconstructionConfig
  augment: AugmentConfig
  hiding: Hiding

  def masked(self, key: jax.Array, batch: Batch, strategy_state: Any, step: jax.Array) -> Masked:
    """Images of a batch, whose masks are looked at by an oracle alone, with patches masked.

    Args:
      key: of the step.
      strategy_state: of the strategy that masks.
      step: how many were done before.
    """
    augment_key, hide_key = jax.random.split(key)
    moved, lesions = augment_batch(
      augment_key, batch.images, batch.masks > 0, batch.positions, self.augment
    )
    images = normalise(moved)
    proposal = self.hiding.propose(strategy_state, hide_key, batch.positions, images, lesions, step)
    return Masked(images, self.hiding.hide(proposal, images, ())[0], proposal)

  def loss(
    self, params: Any, batch_stats: Any, masked: Masked
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
    """The weighted mean squared error of masked patches, of workers in the mean as in a
    pre-training; metrics, and that of every patch, [r, g, g].

    Masked images are normalised as a batch of their own, and leave the running averages, by which
    whole images are normalised later, as they are.
    """
    variables = {'params': params, 'batch_stats': batch_stats}
    (_, found), _ = self.hiding.networks.unet.apply(
      variables, masked.masked, True, None, (RECONSTRUCTION,), mutable=['batch_stats']
    )
    size = self.hiding.networks.masking.patch_size
    losses = patch_losses(found[RECONSTRUCTION], masked.images, size)
    hidden = masked.proposal.hidden  # [K, r / K, g, g].
    loss = jax.vmap(reconstruction_loss)(losses.reshape(hidden.shape), hidden).mean()
    return self.config.weight * loss, ({'reconstruction_loss': loss}, lax.stop_gradient(losses))

  def learn(
    self, strategy_state: Any, masked: Masked, losses: jax.Array, variables: Any, step: jax.Array
  ) -> tuple[Any, dict[str, jax.Array]]:
    """The next state of the strategy, and its metrics.

    Args:
      losses: of every patch, as `loss` has them.
      variables: of the U-Net.
    """
    images, hidden, proposal = masked
    return self.hiding.learn(strategy_state, proposal, images, hidden, losses, variables, step)
