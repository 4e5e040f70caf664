"""Losses of a segmentation against probabilities, where those of masks are in `segment_step`
and `multiclass`.
"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.runtime.parallel import DEVICES


def probabilities(logits: jax.Array) -> jax.Array:
  """Of logits [..., outputs]: of lesion, for one output; of background and K classes."""
  return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def confidence(p: jax.Array) -> jax.Array:
  """The probability of the most probable class, [...], of `probabilities` [..., outputs]."""
  return jnp.maximum(p, 1 - p)[..., 0] if p.shape[-1] == 1 else p.max(-1)


def most_probable(p: jax.Array) -> jax.Array:
  """The most probable class, int [...], of `probabilities` [..., outputs]: 0 is background."""
  return (p[..., 0] >= 0.5).astype(jnp.int32) if p.shape[-1] == 1 else p.argmax(-1)


def hardened(p: jax.Array) -> jax.Array:
  """1 for the most probable class and 0 for others, of `probabilities` [..., outputs]."""
  if p.shape[-1] == 1:
    return most_probable(p)[..., None].astype(p.dtype)
  return jax.nn.one_hot(most_probable(p), p.shape[-1], dtype=p.dtype)


def agreement(a: jax.Array, b: jax.Array, classes: int) -> jax.Array:
  """Dice of each two masks, [u]: its mean over the classes that either of them holds. Two empty
  masks agree.

  Args:
    a, b: integers [u, S, S], 0 for background, 1 to `classes`.
  """
  each = jnp.arange(1, classes + 1)[:, None, None, None]
  overlap = ((a == each) & (b == each)).sum((2, 3))  # [classes, u]
  total = (a == each).sum((2, 3)) + (b == each).sum((2, 3))
  dice = jnp.where(total > 0, 2 * overlap / jnp.maximum(total, 1), 0).sum(0)
  held = (total > 0).sum(0)
  return jnp.where(held > 0, dice / jnp.maximum(held, 1), 1.0)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Of every pixel, [...], against probabilities; both [..., outputs]."""
  if logits.shape[-1] == 1:
    return optax.sigmoid_binary_cross_entropy(logits, targets)[..., 0]
  return optax.softmax_cross_entropy(logits, targets)


def entropy(p: jax.Array) -> jax.Array:
  """Of `probabilities` [..., outputs], in nats: [...]."""
  both = jnp.concatenate([p, 1 - p], -1) if p.shape[-1] == 1 else p
  return jax.scipy.special.entr(both).sum(-1)


def soft_losses(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
  """Cross-entropy plus soft Dice loss, as `segment_step.segmentation_losses` and
  `multiclass.class_losses`, against probabilities, with a weight for every pixel.

  Cross-entropy is a mean over all pixels, so that where few count the loss is small (as in
  UniMatch). Dice's overlap is the sum of min(p, q), which for masks is that of p q: with p q the
  loss would be least not at p = q but at a p that is 1 wherever q is above some value (Wang et al.,
  arXiv 2303.16296).

  Args:
    logits, targets: [u, S, S, outputs].
    weights: [u, S, S].
  """
  found, lesions = probabilities(logits), slice(0 if logits.shape[-1] == 1 else 1, None)
  pixel_losses = cross_entropy(logits, targets)
  found, targets, pixels = found[..., lesions], targets[..., lesions], (0, 1, 2)
  weighted = weights[..., None]
  overlap, total = lax.psum(
    (
      (weighted * jnp.minimum(found, targets)).sum(pixels),
      (weighted * found).sum(pixels) + (weighted * targets).sum(pixels),
    ),
    DEVICES,
  )
  dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
  return (weights * pixel_losses).mean() + dice
