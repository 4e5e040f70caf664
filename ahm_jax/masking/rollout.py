"""One worker's masking rounds as a scan.

The workers of a step are a `vmap` of it: synchronous A3C.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.masking.patches import patch_losses, to_pixels


class Proposal(NamedTuple):
  """What a strategy proposes for b images; maps are [b, g, g]."""

  actions: jax.Array  # In {0, 1}: what was drawn.
  hidden: jax.Array  # In {0, 1}: 1 where the patch is hidden.
  probability: jax.Array  # Of being hidden.


class Rollout(NamedTuple):
  """T rounds of one worker on b images."""

  observations: jax.Array  # [T, b, H, W, C], what the agent saw
  unmasked: jax.Array  # [T, b, H, W, C], what the U-Net would have seen with nothing hidden
  masked: jax.Array  # [T, b, H, W, C], what the U-Net saw
  actions: jax.Array  # [T, b, g, g]
  hidden: jax.Array  # [T, b, g, g]
  probability: jax.Array  # [T, b, g, g], of being hidden
  losses: jax.Array  # [T, b, g, g], mean squared error of every patch
  last_observation: jax.Array  # [b, H, W, C]


def hide(
  images: jax.Array, hidden: jax.Array, patch_size: int, fill_value: float = 0.0
) -> jax.Array:
  """Images [b, H, W, C] with the patches where `hidden` [b, g, g] is 1 set to `fill_value`."""
  pixels = to_pixels(hidden, patch_size)[..., None]
  return images * (1 - pixels) + fill_value * pixels


def rollout(
  images: jax.Array,
  key: jax.Array,
  propose: Callable[[jax.Array, jax.Array], Proposal],
  reconstruct: Callable[[Any, jax.Array], tuple[jax.Array, Any]],
  carry: Any,
  *,
  patch_size: int,
  fill_value: float = 0.0,
  rounds: int = 1,
  distort: Callable[[jax.Array], jax.Array] = lambda images: images,
) -> tuple[Rollout, Any]:
  """Hides and repairs, `rounds` times.

  In the first round the agent sees the image; in each later one, the image with the patches hidden
  last replaced by their repair, so that it can go back to where the repair was poor. The U-Net
  always repairs towards the true image.

  Args:
    images: [b, H, W, C], normalised.
    key: this worker's own.
    propose: (observation [b, H, W, C], key) -> Proposal.
    reconstruct: (carry, masked images) -> (reconstruction [b, H, W, C], carry); the carry holds the
      U-Net's batch statistics.
    distort: what is done to an observation before patches of it are hidden from the U-Net; the
      agent sees it as it was.

  Returns:
    The rollout and the last carry. Losses carry the gradient to the U-Net; nothing else does.
  """

  def one_round(state, round_key):
    observation, carry = state
    proposal = propose(observation, round_key)
    unmasked = distort(observation)
    masked = hide(unmasked, proposal.hidden, patch_size, fill_value)
    reconstruction, carry = reconstruct(carry, masked)
    losses = patch_losses(reconstruction, images, patch_size)
    pixels = to_pixels(proposal.hidden, patch_size)[..., None]
    repaired = lax.stop_gradient(jnp.where(pixels > 0, reconstruction, observation))
    return (repaired, carry), (observation, unmasked, masked, *proposal, losses)

  keys = jax.random.split(key, rounds)
  if rounds == 1:
    (last_observation, carry), only = one_round((images, carry), keys[0])
    steps = jax.tree.map(lambda x: x[None], only)
  else:
    # Unrolled: on CPU, XLA's convolutions are ten times slower inside a loop, one of a single turn
    # too.
    (last_observation, carry), steps = lax.scan(one_round, (images, carry), keys, unroll=True)
  return Rollout(*steps, last_observation), carry
