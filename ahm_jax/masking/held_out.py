"""What a pre-training makes of held-out images: where its strategy masks, and how its U-Net
reconstructs that.

Each part is one compiled program, so that the U-Net's serves all strategies, and a strategy's all
that is asked of it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ahm_jax.data.augment import normalise
from ahm_jax.masking.networks import Networks
from ahm_jax.masking.patches import mask_patches
from ahm_jax.masking.patches import patch_losses as losses_of
from ahm_jax.masking.strategy import TRAINED
from ahm_jax.models.layers import infer
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.batching import in_batches

BATCH = 16  # Images at once; fewer are filled up, since another number is another program.
POLICY_DRAWS = 8  # Of a strategy whose probabilities depend on a draw of its own.


def propose(
  nets: Networks, state: Any, images: Any, key: jax.Array, progress: Any = TRAINED
) -> tuple[jax.Array, jax.Array]:
  """One draw of a strategy.

  Args:
    state: the strategy's.
    images: uint8 [b, S, S, C].
    progress: through the training, in [0, 1], a scalar.

  Returns:
    Each patch's probability of being masked, and 1 where it was, float32 [b, g, g]; per modality
    [b, g, C g].
  """
  return _propose(nets, state, images, key, jnp.float32(progress))


@functools.partial(jax.jit, static_argnums=0)
def _propose(nets: Networks, state: Any, images: jax.Array, key: jax.Array, progress: jax.Array):
  chosen = nets.strategy.propose(state, normalise(images / 255.0), key, progress, False)
  return chosen.probability, chosen.hidden


@functools.partial(jax.jit, static_argnums=(0, 4))
def reconstruct(
  unet: UNet, variables: Any, images: jax.Array, hidden: jax.Array, patch_size: int
) -> jax.Array:
  """Normalised images [b, S, S, C] that the U-Net makes of uint8 images whose patches are masked
  where `hidden` is 1.
  """
  return infer(unet, variables, mask_patches(normalise(images / 255.0), hidden, patch_size))


@functools.partial(jax.jit, static_argnums=(2, 3))
def patch_losses(
  reconstruction: jax.Array, images: jax.Array, patch_size: int, per_modality: bool
) -> jax.Array:
  """As `patches.patch_losses`, against uint8 images."""
  return losses_of(reconstruction, normalise(images / 255.0), patch_size, per_modality)


def policy_maps(nets: Networks, state: Any, images: np.ndarray, progress: Any) -> np.ndarray:
  """The probabilities of `propose` for uint8 images [N, S, S, C]: [N, g, g], or [N, g, C g].

  The mean over draws if they are drawn.
  """
  keys = jax.random.split(jax.random.key(0), POLICY_DRAWS)

  def mean(batch):
    draws = [propose(nets, state, batch, key, progress)[0] for key in keys]
    return np.mean(jax.device_get(draws), 0)

  return in_batches(mean, images, BATCH)
