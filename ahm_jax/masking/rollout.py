"""One worker's masking rounds as a scan.

The workers of a step are a `vmap` of it: synchronous A3C.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.masking.patches import mask_patches, over_images, patch_losses


class Proposal(NamedTuple):
  """What a strategy proposes for b images; maps are [b, g, g], per modality [b, g, M g]."""

  hidden: jax.Array  # The action drawn, in {0, 1}: 1 where the patch is masked.
  probability: jax.Array  # Of being masked.


class Rollout(NamedTuple):
  """T rounds of one worker on b images; per modality, [T, b, g, M g] stands for [T, b, g, g]."""

  observations: jax.Array  # [T, b, H, W, C], what the agent saw
  unmasked: jax.Array  # [T, b, H, W, C], what the U-Net would have seen with nothing masked
  masked: jax.Array  # [T, b, H, W, C], what the U-Net saw
  hidden: jax.Array  # [T, b, g, g], the actions: 1 where the patch was masked
  probability: jax.Array  # [T, b, g, g], of being masked
  losses: jax.Array  # [T, b, g, g], mean squared error of every patch, or what else is minimised
  features: Any = ()  # Of the U-Net's blocks that are asked for, each [T, b, h, w, channels]


def rollout(
  images: jax.Array,
  key: jax.Array,
  propose: Callable[[jax.Array, jax.Array], Proposal],
  reconstruct: Callable[[Any, jax.Array], tuple[jax.Array, Any, Any]],
  carry: Any,
  *,
  patch_size: int,
  rounds: int = 1,
  distort: Callable[[jax.Array], jax.Array] = lambda images: images,
  per_modality: bool = False,
) -> tuple[Rollout, Any]:
  """Masks and reconstructs, `rounds` times.

  In the first round the agent sees the image; in each later one, the image with the patches masked
  last replaced by their reconstruction, so that it can go back to where that was poor. The U-Net
  always reconstructs the true image.

  Args:
    images: [b, H, W, C], normalised.
    key: this worker's own.
    propose: (observation [b, H, W, C], key) -> Proposal.
    reconstruct: (carry, masked images) -> (reconstruction [b, H, W, C], features, carry); the carry
      holds the U-Net's batch statistics.
    distort: what is done to an observation before patches of it are masked for the U-Net; the
      agent sees it as it was.
    per_modality: whether every channel has patches of its own, see `patches`.

  Returns:
    The rollout and the last carry. Losses and features carry the gradient to the U-Net; nothing
    else does.
  """

  def one_round(state, round_key):
    observation, carry = state
    proposal = propose(observation, round_key)
    unmasked = distort(observation)
    masked = mask_patches(unmasked, proposal.hidden, patch_size)
    reconstruction, features, carry = reconstruct(carry, masked)
    losses = patch_losses(reconstruction, images, patch_size, per_modality)
    pixels = over_images(proposal.hidden, images, patch_size)
    following = lax.stop_gradient(jnp.where(pixels > 0, reconstruction, observation))
    seen = observation, unmasked, masked
    return (following, carry), Rollout(*seen, *proposal, losses, features)

  keys = jax.random.split(key, rounds)
  if rounds == 1:
    (_, carry), only = one_round((images, carry), keys[0])
    return jax.tree.map(lambda x: x[None], only), carry
  # Unrolled: on CPU, XLA's convolutions are ten times slower inside a loop, one of a single turn
  # too.
  (_, carry), steps = lax.scan(one_round, (images, carry), keys, unroll=True)
  return steps, carry
