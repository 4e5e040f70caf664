"""A diagnosis that a segmentation learns beside its masks, from images that have a label: masks are
few, diagnoses often many.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ahm_jax.config import DiagnosisConfig
from ahm_jax.models.unet import DIAGNOSIS
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.training.classify import balanced_weights

_TINY = 1e-6


@dataclass(frozen=True)
class Diagnosing:
  """How a segmentation step learns diagnoses; runs under an axis of devices named DEVICES.

  Attributes:
    class_weights: of each class in the loss.
  """

  config: DiagnosisConfig
  class_weights: tuple[float, ...]

  def loss(self, logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy, a weighted mean over the images of all devices that have a label, and metrics.

    Args:
      logits: [b, classes].
      labels: int [b]; -1: unknown.
    """
    known = labels >= 0
    target = jnp.maximum(labels, 0)
    weights = jnp.where(known, jnp.array(self.class_weights)[target], 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    right = known & (logits.argmax(-1) == labels)
    count, correct, weight = lax.psum((known.sum(), right.sum(), weights.sum()), DEVICES)
    # The mean over devices of what each adds, as gradients are taken.
    loss = lax.axis_size(DEVICES) * (weights * losses).sum() / (weight + _TINY)
    return loss, {'diagnosis_loss': loss, 'train_accuracy': correct / jnp.maximum(count, 1)}

  def joined(self, masks: jax.Array, diagnosis: jax.Array, params: Any) -> jax.Array:
    """The loss of both: the sum with a fixed weight, or by learnt variances.

    With s = log variance of each, the sum of exp(-s) L + s / 2 (Kendall, Gal, Cipolla, arXiv
    1705.07115, equation 10, for two losses that are log likelihoods of classes).

    Args:
      masks, diagnosis: the losses.
      params: of the U-Net.
    """
    if self.config.weighting == 'fixed':
      return masks + self.config.weight * diagnosis
    logs = params[DIAGNOSIS]['log_variances']
    return (jnp.exp(-logs) * jnp.stack([masks, diagnosis]) + logs / 2).sum()


def diagnosing(recipe: DiagnosisConfig, labels: np.ndarray, classes: int) -> Diagnosing:
  """How diagnoses are learnt.

  Args:
    labels: int [n], of the images that they are learnt from.
    classes: number of classes.
  """
  weights = balanced_weights(labels, classes) if recipe.balanced else (1.0,) * classes
  return Diagnosing(recipe, weights)
