"""The second use of unlabelled images: while a segmentation learns from a few masks, it learns to
agree with a teacher on images without them.

The teacher is a moving average of the student (Tarvainen, Valpola, arXiv 1703.01780) and sees an
image as it is; the student sees it recoloured and with a box of another one pasted in (French et
al., arXiv 1906.01916), and is to predict what the teacher says of what it sees. Confidence as in
French et al., or of single pixels as in UniMatch (Yang et al., arXiv 2208.09910).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import UnlabelledConfig
from ahm_jax.data.augment import augment_batch, geometry_only, normalise, recolour_batch
from ahm_jax.models.layers import infer
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch


class Views(NamedTuple):
  """What the student sees of u images, and what it is to say of it."""

  images: jax.Array  # [u, S, S, C], normalised.
  targets: jax.Array  # [u, S, S, outputs]: the teacher's probabilities, or 0 and 1.
  confident: jax.Array  # [u, S, S]: 1 where the teacher is, else 0.


@dataclass(frozen=True)
class Consistency:
  """How a segmentation step uses unlabelled images; runs under an axis of devices named DEVICES.

  Attributes:
    total_steps: of the whole training, which the weight grows over.
  """

  unet: UNet
  config: UnlabelledConfig
  total_steps: int

  def views(self, key: jax.Array, teacher: dict, batch: Batch) -> Views:
    """What is made of unlabelled images; their masks are not looked at.

    Args:
      key: of the step.
      teacher: variables of the U-Net.
      batch: u images, an even number; each two in a row are partners.
    """
    config = self.config
    view_key, mix_key = jax.random.split(key)
    plain, _ = augment_batch(
      view_key, batch.images, batch.masks, batch.positions, geometry_only(config.augment)
    )
    says = probabilities(infer(self.unet, teacher, normalise(plain)))
    changed = recolour_batch(view_key, plain, batch.positions, config.augment)
    box = boxes(mix_key, batch.positions // 2, plain.shape[1], config)
    images, says = (
      jnp.where(box[..., None], partners(x), x)
      for x in (normalise(changed), lax.stop_gradient(says))
    )
    confident = confidence(says) >= config.confidence
    targets = hardened(says) if config.targets == 'hard' else says
    return Views(images, targets, confident.astype(jnp.float32))

  def loss(self, logits: jax.Array, views: Views, step: jax.Array) -> tuple[jax.Array, dict]:
    """The weighted loss of a step, and metrics: the loss without its weight, and the share of
    pixels that the teacher is confident of.

    Args:
      logits: [u, S, S, outputs], of the student for `views.images`.
      step: how many were done before.
    """
    share = lax.pmean(views.confident.mean(), DEVICES)
    if self.config.confident == 'share':
      loss = share * soft_losses(logits, views.targets, jnp.ones_like(views.confident))
    else:
      loss = soft_losses(logits, views.targets, views.confident)
    weight = self.config.weight * ramp(step, self.config.ramp * self.total_steps)
    return weight * loss, {'consistency_loss': loss, 'confident_share': share}


def ramp(step: jax.Array, length: float) -> jax.Array:
  """exp(-5 (1 - t)^2), where t grows from 0 to 1 over `length` steps (Laine, Aila, arXiv
  1610.02242).
  """
  t = jnp.minimum(1.0, step / length) if length else 1.0
  return jnp.exp(-5 * (1 - t) ** 2)


def partners(x: jax.Array) -> jax.Array:
  """[u, ...], where each two in a row have changed places."""
  return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def boxes(key: jax.Array, pairs: jax.Array, size: int, config: UnlabelledConfig) -> jax.Array:
  """Where each of u images shows its partner: bool [u, size, size], a box or nothing.

  A box has a share of the area from `cutmix_area` and a random aspect ratio, as French et al. draw
  them: its height is that share to the power of a uniform number.

  Args:
    pairs: int [u], a number for each pair; both of its images have the same box.
  """

  def box(pair):
    any_key, area_key, height_key, corner_key = jax.random.split(jax.random.fold_in(key, pair), 4)
    low, high = config.cutmix_area
    area = jax.random.uniform(area_key, minval=low, maxval=high)
    height = area ** jax.random.uniform(height_key)
    sides = jnp.stack([height, area / height])
    corner = jax.random.uniform(corner_key, (2,)) * (1 - sides)
    centres = (jnp.arange(size) + 0.5) / size
    rows, columns = (
      (start <= centres) & (centres < start + side)
      for start, side in zip(corner, sides, strict=True)
    )
    return jax.random.bernoulli(any_key, config.cutmix) & rows[:, None] & columns

  return jax.vmap(box)(pairs)


def probabilities(logits: jax.Array) -> jax.Array:
  """Of logits [..., outputs]: of lesion, for one output; of background and K classes."""
  return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def confidence(p: jax.Array) -> jax.Array:
  """The probability of the most probable class, [...], of `probabilities` [..., outputs]."""
  return jnp.maximum(p, 1 - p)[..., 0] if p.shape[-1] == 1 else p.max(-1)


def hardened(p: jax.Array) -> jax.Array:
  """1 for the most probable class and 0 for others, of `probabilities` [..., outputs]."""
  if p.shape[-1] == 1:
    return (p >= 0.5).astype(p.dtype)
  return jax.nn.one_hot(p.argmax(-1), p.shape[-1], dtype=p.dtype)


def soft_losses(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
  """Cross-entropy plus soft Dice loss, as `segment.segmentation_losses` and
  `multiclass.class_losses`, against probabilities, with a weight for every pixel.

  Cross-entropy is a mean over all pixels, so that where few count the loss is small (as in
  UniMatch).

  Args:
    logits, targets: [u, S, S, outputs].
    weights: [u, S, S].
  """
  found, lesions = probabilities(logits), slice(0 if logits.shape[-1] == 1 else 1, None)
  cross_entropy = (
    optax.sigmoid_binary_cross_entropy(logits, targets)[..., 0]
    if logits.shape[-1] == 1
    else optax.softmax_cross_entropy(logits, targets)
  )
  found, targets, pixels = found[..., lesions], targets[..., lesions], (0, 1, 2)
  weighted = weights[..., None]
  overlap, total = lax.psum(
    (
      (weighted * found * targets).sum(pixels),
      (weighted * found).sum(pixels) + (weighted * targets).sum(pixels),
    ),
    DEVICES,
  )
  dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
  return (weights * cross_entropy).mean() + dice
