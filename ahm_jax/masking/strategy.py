"""What a masking strategy is, and what several of them share: drawing, mask warm-up, the hardest
patches first, teachers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ahm_jax.config import MaskingConfig
from ahm_jax.masking.patches import draw_bernoulli
from ahm_jax.masking.rollout import Proposal
from ahm_jax.runtime.averages import Average, moved

WORKERS = 'workers'  # Name of the vmapped axis of workers.
TRAINED = 1.0  # Progress at the end of training: as then, held-out images are masked.
EMA_DECAY = 0.999, 0.9999  # Of teachers: at the start, and from a quarter of the steps on.


class Context(NamedTuple):
  """What a strategy may use besides its own state."""

  masking: MaskingConfig
  # Flax module: images -> (logits, values), each a map of their patches. In training it sees all
  # workers' images as one batch.
  agent: Any
  # (U-Net variables, masked images) -> reconstruction, without training.
  reconstruct: Callable[[Any, jax.Array], jax.Array]
  mean_over_devices: Callable[[Any], Any]  # Of a pytree.


class Strategy(NamedTuple):
  """The functions of a masking strategy.

  init: (key, images [b, H, W, C], U-Net variables) -> state, a pytree.
  propose: (state, images [b, H, W, C], key, progress, train) -> Proposal. `progress` runs from 0 to
    1 over the training; `train` is False on held-out images. Under `train` it is called inside a
    vmap over workers, with the axis name WORKERS.
  learn: (state, Rollout with a leading axis of workers, U-Net variables after the step, progress)
    -> (state, metrics).
  load_trunk: (state, {'trunk': parameters}) -> the first state with the trunk of a VGG16 that was
    trained elsewhere; None where the strategy has no such trunk.
  sees_lesions: in training `propose` also takes `lesions` [b, H, W], 1 in the lesion of an image.
  """

  init: Callable[..., Any]
  propose: Callable[..., Proposal]
  learn: Callable[..., tuple[Any, dict[str, jax.Array]]]
  load_trunk: Callable[[Any, Any], Any] | None = None
  sees_lesions: bool = False


def learn_nothing(state, rollouts, variables, progress):
  """The `learn` of a strategy that learns nothing."""
  del rollouts, variables, progress
  return state, {}


def grid_shape(images: jax.Array, masking: MaskingConfig) -> tuple[int, int, int]:
  """(b, g, g) of images [b, H, W, C]; per modality (b, g, C g)."""
  b, height, width, channels = images.shape
  count = channels if masking.per_modality else 1
  return b, height // masking.patch_size, count * (width // masking.patch_size)


def draw(key: jax.Array, logits: jax.Array) -> Proposal:
  """Masks each patch by itself, from logits [b, g, g] that are already shifted to the budget."""
  return Proposal(draw_bernoulli(key, logits), jax.nn.sigmoid(logits))


def warmup_factor(progress: jax.Array | float, masking: MaskingConfig) -> jax.Array:
  """How far masks are the strategy's own, a scalar: from 0 to 1 over `warmup` of the steps."""
  if masking.warmup == 0:
    return jnp.ones(())
  return jnp.clip(progress / masking.warmup, 0, 1)


def growing_share(progress: jax.Array | float, masking: MaskingConfig, default: float) -> jax.Array:
  """The share of masked patches that the strategy places: `warmup_factor` times `hard_share`."""
  share = default if masking.hard_share is None else masking.hard_share
  return warmup_factor(progress, masking) * share


def hardest_first(
  key: jax.Array, scores: jax.Array, share: jax.Array | float, masking: MaskingConfig
) -> Proposal:
  """Masks the patches of the highest scores for sure, and others at random (as HPM does, arXiv
  2304.05919).

  Of N patches, floor(share * mask_ratio * N) with the highest scores are masked; every other one is
  with the probability that makes the expected share mask_ratio. Ties are broken at random.

  Args:
    scores: [b, g, g].
    share: of the masked patches, in [0, 1]; may be traced.
  """
  b, rows, columns = scores.shape
  patches = rows * columns
  tie_key, draw_key = jax.random.split(key)
  count = masking.mask_ratio * patches
  sure = jnp.floor(share * count + 1e-4)
  flat = scores.reshape(b, patches)
  order = jnp.lexsort((jax.random.uniform(tie_key, flat.shape), -flat))
  hardest = (jnp.argsort(order, -1) < sure).reshape(scores.shape)
  others = (count - sure) / (patches - sure)
  probability = jnp.where(hardest, 1.0, others)
  return Proposal(jax.random.bernoulli(draw_key, probability).astype(jnp.float32), probability)


def moving_average(average: Average, new: Any, progress: jax.Array | float) -> Average:
  """The average, moved towards `new`, see `averages.moved`.

  The decay grows over the first quarter of the steps (arXiv 2407.06468).
  """
  first, last = EMA_DECAY
  decay = first + (last - first) * jnp.clip(4 * progress, 0, 1)
  return Average(moved(average.value, new, decay, average.moves), average.moves + 1)
