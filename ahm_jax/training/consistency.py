"""The second use of unlabelled images: while a segmentation learns from a few masks, it learns to
agree with a teacher on images without them.

The teacher is a moving average of the student (Tarvainen, Valpola, arXiv 1703.01780) and sees an
image as it is; the student sees it moved, recoloured and with a box of another one pasted in
(French et al., arXiv 1906.01916), and is to predict what the teacher says of what it sees.
Confidence as in French et al., or of single pixels as in UniMatch (Yang et al., arXiv 2208.09910).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.config import UnlabelledConfig
from ahm_jax.data.augment import (
  augment_batch,
  geometry_only,
  move_batch,
  normalise,
  recolour_batch,
  without_dropout,
)
from ahm_jax.data.cutmix import boxes, partners
from ahm_jax.masking.rollout import Proposal
from ahm_jax.models.layers import infer
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch
from ahm_jax.training.hiding import Hiding
from ahm_jax.training.soft_losses import (
  agreement,
  confidence,
  hardened,
  most_probable,
  probabilities,
  soft_losses,
)


class Prediction(NamedTuple):
  """Of the teacher, for images [u, S, S, C]."""

  probabilities: jax.Array  # [u, S, S, outputs].
  trusted: jax.Array  # [u, S, S, 1]: whether the student learns from it, 0 or 1.


class Views(NamedTuple):
  """What the student sees, v views in all of u images, and what it is to say of them."""

  images: jax.Array  # [v, S, S, C], normalised.
  targets: jax.Array  # [v, S, S, outputs]: the teacher's probabilities, or 0 and 1.
  trusted: jax.Array  # [v, S, S]: 1 in images that count, else 0.
  confident: jax.Array  # [v, S, S]: 1 where the teacher is, else 0.
  scales: tuple[jax.Array, ...] = ()  # Of the encoder's channels, as the U-Net takes them.
  unmasked: jax.Array | None = None  # The images with no patch hidden, where some are:
  proposal: Proposal | None = None  # these.

  @property
  def counted(self) -> jax.Array:
    """[v, S, S]: 1 where both hold, else 0."""
    return self.trusted * self.confident


@dataclass(frozen=True)
class Consistency:
  """How a segmentation step uses unlabelled images; runs under an axis of devices named DEVICES.

  Attributes:
    total_steps: of the whole training, which the weight grows over.
    hiding: of patches from the student, if they are.
  """

  unet: UNet
  config: UnlabelledConfig
  total_steps: int
  hiding: Hiding | None = None

  def views(
    self, key: jax.Array, teacher: Any, batch: Batch, strategy_state: Any, step: jax.Array
  ) -> Views:
    """What is made of unlabelled images; their masks are looked at by an oracle alone.

    Args:
      key: of the step.
      teacher: variables of the U-Net.
      batch: u images, an even number; each two in a row are partners.
      strategy_state: of the strategy that hides patches.
      step: how many were done before.
    """
    config, positions = self.config, batch.positions
    look_key, move_key, hide_key, drop_key, *view_keys = jax.random.split(key, 4 + config.views)
    plain, lesions = augment_batch(
      move_key, batch.images, batch.masks > 0, positions, geometry_only(config.augment)
    )
    found, agree = self._predict(look_key, teacher, batch.images / jnp.float32(255), positions)
    found = move_batch(move_key, found, positions, config.augment)
    prediction = Prediction(
      found, jnp.broadcast_to(agree[:, None, None, None], plain[..., :1].shape)
    )
    shown = [self._view(key, positions, plain, prediction, lesions) for key in view_keys]
    images, predictions, lesions = jax.tree.map(lambda *parts: jnp.concatenate(parts), *shown)
    if self.hiding:
      proposal = self.hiding.propose(strategy_state, hide_key, positions, images, lesions, step)
      hidden, predictions = self.hiding.hide(proposal, images, predictions)
      return Views(hidden, *self._targets(predictions), unmasked=images, proposal=proposal)
    if not config.feature_dropout:
      return Views(images, *self._targets(predictions))
    images = jnp.concatenate([images, normalise(plain)])
    predictions = jax.tree.map(lambda *parts: jnp.concatenate(parts), predictions, prediction)
    return Views(images, *self._targets(predictions), self._dropped(drop_key, positions))

  def _predict(
    self, key: jax.Array, teacher: Any, images: jax.Array, positions: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The teacher's probabilities for images [u, S, S, C] in [0, 1], and 1.0 or 0.0 for each image,
    [u]: whether it is to count. With `agreement`, the mean of two looks at it.
    """

    def look(x):
      return lax.stop_gradient(probabilities(infer(self.unet, teacher, normalise(x))))

    config = self.config
    if not config.agreement:
      return look(images), jnp.ones(len(images))
    turned = slice(None, None, -1 if config.augment.flip else None)
    recoloured = recolour_batch(key, images, positions, without_dropout(config.augment))
    both = look(jnp.concatenate([images, recoloured[:, turned, turned]]))
    first, second = both[: len(images)], both[len(images) :, turned, turned]
    classes = max(1, first.shape[-1] - 1)
    same = agreement(most_probable(first), most_probable(second), classes)
    return (first + second) / 2, (same >= config.agreement).astype(jnp.float32)

  def _view(
    self,
    key: jax.Array,
    positions: jax.Array,
    plain: jax.Array,
    prediction: Prediction,
    lesions: jax.Array,
  ) -> tuple[jax.Array, Prediction, jax.Array]:
    """Images in other colours, normalised, with a box of their partners; the prediction for them,
    and their lesions.

    Args:
      plain: images in [0, 1].
    """
    colour_key, box_key = jax.random.split(key)
    changed = recolour_batch(colour_key, plain, positions, self.config.augment)
    box = boxes(box_key, jnp.repeat(positions[::2], 2), plain.shape[1], self.config)
    images, prediction = jax.tree.map(
      lambda x: jnp.where(box[..., None], partners(x), x), (normalise(changed), prediction)
    )
    return images, prediction, jnp.where(box, partners(lesions), lesions)

  def _targets(self, prediction: Prediction) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the student is to say, where that counts, and where the teacher is confident."""
    found, trusted = prediction
    confident = confidence(found) >= self.config.confidence
    targets = hardened(found) if self.config.targets == 'hard' else found
    return targets, trusted[..., 0], confident.astype(jnp.float32)

  def _dropped(self, key: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
    """Scales of the encoder's channels: 1 for all views but the last, of which some are dropped."""
    keep, keys = 1 - self.config.feature_dropout, jax.random.split(key, len(self.unet.widths))

    def of_level(key, width):
      each = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
      kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, (width,)))(each) / keep
      return jnp.concatenate([jnp.ones((self.config.views * len(positions), width)), kept])

    return tuple(map(of_level, keys, self.unet.widths))

  def loss(self, logits: jax.Array, views: Views, step: jax.Array) -> tuple[jax.Array, dict]:
    """The weighted loss of a step, and metrics: the loss without its weight, the share of pixels
    that are trusted, and of those the share that the teacher is confident of.

    Args:
      logits: [v, S, S, outputs], of the student for `views.images`.
      step: how many were done before.
    """
    trusted, both = lax.pmean((views.trusted.mean(), views.counted.mean()), DEVICES)
    share = both / jnp.maximum(trusted, 1e-6)
    if self.config.confident == 'share':
      loss = share * soft_losses(logits, views.targets, views.trusted)
    else:
      loss = soft_losses(logits, views.targets, views.counted)
    weight = self.config.weight * ramp(step, self.config.ramp * self.total_steps)
    metrics = {'consistency_loss': loss, 'trusted_share': trusted, 'confident_share': share}
    return weight * loss, metrics

  def learn(
    self, strategy_state: Any, views: Views, logits: jax.Array, teacher: Any, step: jax.Array
  ) -> tuple[Any, dict[str, jax.Array]]:
    """The next state of the strategy that hides patches, and its metrics.

    Args:
      logits: of the student, as `loss` takes them.
      teacher: variables of the U-Net.
    """
    if not self.hiding or views.proposal is None or views.unmasked is None:
      return strategy_state, {}
    losses = self.hiding.losses(logits, views.targets, views.counted)
    if self.config.reward == 'progress':
      of_teacher = infer(self.unet, teacher, views.images)
      losses = self.hiding.losses(of_teacher, views.targets, views.counted) / (losses + 1e-6)
    return self.hiding.learn(
      strategy_state, views.proposal, views.unmasked, views.images, losses, teacher, step
    )


def ramp(step: jax.Array, length: float) -> jax.Array:
  """exp(-5 (1 - t)^2), where t grows from 0 to 1 over `length` steps (Laine, Aila, arXiv
  1610.02242).
  """
  t = jnp.minimum(1.0, step / length) if length else 1.0
  return jnp.exp(-5 * (1 - t) ** 2)
