"""Masks of several classes: how they are augmented, learnt from, and scored in a validation."""

from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax import lax

from ahm_jax.config import AugmentConfig
from ahm_jax.data.augment import augment_batch, move_batch
from ahm_jax.runtime.parallel import DEVICES


def augment_classes(
  key: jax.Array,
  images: jax.Array,
  masks: jax.Array,
  positions: jax.Array,
  config: AugmentConfig,
  values: int,
) -> tuple[jax.Array, jax.Array]:
  """`augment_batch` for masks of class indices, of which a mean would be another class.

  Each value's share of a pixel is interpolated, as an image's colours are, and the largest share
  wins.

  Args:
    key, images, positions, config: as for `augment_batch`.
    masks: uint8 [b, S, S], values 0 to values - 1.
    values: K + 1, with background.

  Returns:
    Images as `augment_batch`'s, and masks int32 [b, S, S].
  """
  images, _ = augment_batch(key, images, masks, positions, config)
  shares = jax.nn.one_hot(masks, values)
  return images, move_batch(key, shares, positions, config).argmax(-1)


def class_losses(logits: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy and soft Dice loss over classes, under an axis of devices named DEVICES.

  As in nnU-Net (Isensee et al. 2021, Nature Methods 18), Dice is that of the whole batch, and its
  mean is taken over all K classes but background, those that the batch lacks too: 1 - mean_k (2
  sum(p_k y_k) + 1) / (sum(p_k) + sum(y_k) + 1), with the counts summed over the devices. The 1,
  where nnU-Net has 1e-5, is that of `segmentation_losses`, so that one class costs what it does
  there. Cross-entropy is this device's mean over pixels.

  Args:
    logits: [b, H, W, K + 1], of background first.
    masks: integers [b, H, W], 0 to K.
  """
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, masks).mean()
  probabilities = jax.nn.softmax(logits)[..., 1:]
  truth = jax.nn.one_hot(masks, logits.shape[-1])[..., 1:]
  pixels = (0, 1, 2)
  # [K] each.
  overlap, total = lax.psum(
    ((probabilities * truth).sum(pixels), probabilities.sum(pixels) + truth.sum(pixels)), DEVICES
  )
  return cross_entropy, 1 - ((2 * overlap + 1) / (total + 1)).mean()


def class_dice(found: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, float]:
  """Mean Dice of predicted masks.

  Args:
    found, truth: integers [N, S, S], 0 for background and k for class k of `names`, from 1.

  Returns:
    'dice', and as 'score' once more: the mean over images of each one's mean over the classes that
    prediction or truth holds; images with none are left out, and it is 0 where there are no others.
    For each class, 'dice_NAME': the mean over the images in which prediction or truth holds it; nan
    where none does.
  """
  classes = range(1, len(names) + 1)
  overlap = np.stack([((found == k) & (truth == k)).sum((1, 2)) for k in classes])  # [K, N]
  total = np.stack([(found == k).sum((1, 2)) + (truth == k).sum((1, 2)) for k in classes])
  held = total > 0
  dice = np.divide(2 * overlap, total, out=np.zeros(total.shape), where=held)
  images = held.any(0)
  mean = float(np.mean(dice[:, images].sum(0) / held[:, images].sum(0))) if images.any() else 0.0
  by_class = {
    f'dice_{name}': float(dice[k][held[k]].mean()) if held[k].any() else float('nan')
    for k, name in enumerate(names)
  }
  return {'dice': mean, **by_class, 'score': mean}
