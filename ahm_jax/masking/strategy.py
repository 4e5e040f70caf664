"""What a masking strategy is, and what several of them share: drawing, and the hardest patches
first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ahm_jax.config import MaskingConfig
from ahm_jax.masking.patches import draw_bernoulli, draw_exact
from ahm_jax.masking.rollout import Proposal

WORKERS = 'workers'  # Name of the vmapped axis of workers.
_CERTAIN = 1e6  # A logit that Gumbel noise does not reach.


class Context(NamedTuple):
  """What a strategy may use besides its own state."""

  masking: MaskingConfig
  # Flax module: images -> (logits, values), each [b, g, g]. In training it sees all workers' images
  # as one batch.
  agent: Any
  reconstruct: Callable[
    [Any, jax.Array], jax.Array
  ]  # (U-Net variables, masked images) -> reconstruction, without training.
  mean_over_devices: Callable[[Any], Any]  # Of a pytree.


class Strategy(NamedTuple):
  """The three functions of a masking strategy.

  init: (key, images [b, H, W, C], U-Net variables) -> state, a pytree.
  propose: (state, images [b, H, W, C], key, progress, train) -> Proposal. `progress` runs from 0 to
    1 over the training; `train` is False on held-out images. Under `train` it is called inside a
    vmap over workers, with the axis name WORKERS.
  learn: (state, Rollout with a leading axis of workers, U-Net variables after the step, progress)
    -> (state, metrics).
  """

  init: Callable[..., Any]
  propose: Callable[..., Proposal]
  learn: Callable[..., tuple[Any, dict[str, jax.Array]]]


def stay(state, rollouts, variables, progress):
  """The `learn` of a strategy that learns nothing."""
  del rollouts, variables, progress
  return state, {}


def grid_shape(images: jax.Array, masking: MaskingConfig) -> tuple[int, int, int]:
  """(b, g, g) of images [b, H, W, C]."""
  b, height, width, _ = images.shape
  return b, height // masking.patch_size, width // masking.patch_size


def action_ratio(masking: MaskingConfig) -> float:
  """Expected share of actions that are 1."""
  return masking.mask_ratio if masking.action_means == 'mask' else 1 - masking.mask_ratio


def hidden_count(masking: MaskingConfig, patches: int) -> int:
  """How many of an image's patches an exact count hides."""
  return round(masking.mask_ratio * patches)


def proposal(hidden: jax.Array, probability: jax.Array, masking: MaskingConfig) -> Proposal:
  """A `Proposal` by what is hidden, [b, g, g] in {0, 1}, and the probability of that."""
  return Proposal(hidden if masking.action_means == 'mask' else 1 - hidden, hidden, probability)


def draw(key: jax.Array, logits: jax.Array, masking: MaskingConfig) -> Proposal:
  """Draws actions from logits [b, g, g] that are already shifted to the budget, and says what they
  hide.

  With an exact count, the probability (and the log-probability that learning uses) is that of
  independent draws: near the true one, not equal to it.
  """
  if masking.exact_count:
    patches = logits.shape[-2] * logits.shape[-1]
    hidden = hidden_count(masking, patches)
    actions = draw_exact(
      key, logits, hidden if masking.action_means == 'mask' else patches - hidden
    )
  else:
    actions = draw_bernoulli(key, logits)
  probability = jax.nn.sigmoid(logits)
  if masking.action_means == 'keep':
    return Proposal(actions, 1 - actions, 1 - probability)
  return Proposal(actions, actions, probability)


def easing(progress: jax.Array, masking: MaskingConfig) -> jax.Array:
  """How far masks are the strategy's own: from 0 to 1 over `warmup` of the steps, back to 0 over
  the last `ease_out`.
  """
  factor = jnp.ones(())
  if masking.warmup > 0:
    factor = jnp.clip(progress / masking.warmup, 0, 1)
  if masking.ease_out > 0:
    factor = jnp.minimum(factor, jnp.clip((1 - progress) / masking.ease_out, 0, 1))
  return factor


def fully_eased(masking: MaskingConfig) -> float:
  """The last progress at which masks are wholly the strategy's own.

  Held-out images are masked as at that time.
  """
  return 1.0 - masking.ease_out


def growing_share(progress: jax.Array, masking: MaskingConfig, default: float) -> jax.Array:
  """The share of hidden patches that the strategy places: `easing` times `hard_share`."""
  return easing(progress, masking) * (default if masking.hard_share is None else masking.hard_share)


def hardest_first(
  key: jax.Array, scores: jax.Array, share: jax.Array, masking: MaskingConfig
) -> Proposal:
  """Hides the patches of the highest scores for sure, and others at random (as HPM does, arXiv
  2304.05919).

  Of N patches, floor(share * mask_ratio * N) with the highest scores are hidden; every other one is
  with the probability that makes the expected share mask_ratio, or by an exact count so many of
  them. Ties are broken at random.

  Args:
    scores: [b, g, g].
    share: of the hidden patches, in [0, 1]; may be traced.
  """
  b, rows, columns = scores.shape
  patches = rows * columns
  tie_key, draw_key = jax.random.split(key)
  count = hidden_count(masking, patches) if masking.exact_count else masking.mask_ratio * patches
  sure = jnp.floor(share * count + 1e-4)
  flat = scores.reshape(b, patches)
  order = jnp.lexsort((jax.random.uniform(tie_key, flat.shape), -flat))
  hardest = (jnp.argsort(order, -1) < sure).reshape(scores.shape)
  others = (count - sure) / (patches - sure)
  probability = jnp.where(hardest, 1.0, others)
  if masking.exact_count:
    hidden = draw_exact(draw_key, jnp.where(hardest, _CERTAIN, 0.0), count)
  else:
    hidden = jax.random.bernoulli(draw_key, probability).astype(jnp.float32)
  return proposal(hidden, probability, masking)


class Average(NamedTuple):
  """An exponential moving average of a pytree."""

  value: Any
  count: jax.Array  # How often it has moved.


def average_of(first: Any) -> Average:
  """An average that starts from a copy of `first`: the step gives up its buffers, and would give
  up shared ones twice.
  """
  return Average(jax.tree.map(jnp.copy, first), jnp.zeros((), jnp.int32))


def moving_average(
  average: Average, new: Any, progress: jax.Array, masking: MaskingConfig
) -> Average:
  """The average, moved towards `new`.

  The decay grows over the first quarter of the steps (arXiv 2407.06468), but is at most (1 + t) /
  (10 + t) after t moves, as TensorFlow's averages have it: over a few thousand steps 0.9999 alone
  would leave half of the random start in it.
  """
  first, last = masking.ema_decay
  decay = first + (last - first) * jnp.clip(4 * progress, 0, 1)
  decay = jnp.minimum(decay, (1 + average.count) / (10 + average.count))
  value = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average.value, new)
  return Average(value, average.count + 1)
