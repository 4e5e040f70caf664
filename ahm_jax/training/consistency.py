"""The second use of unlabelled images: while a segmentation learns from a few masks, it learns to
agree with a teacher on images without them.

The teacher is a moving average of the student (Tarvainen, Valpola, arXiv 1703.01780) and sees an
image as it is; the student sees it recoloured and with a box of another one pasted in (French et
al., arXiv 1906.01916), and is to predict what the teacher says of what it sees. Confidence as in
French et al., or of single pixels as in UniMatch (Yang et al., arXiv 2208.09910).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import UnlabelledConfig
from ahm_jax.data.augment import augment_batch, geometry_only, normalise, recolour_batch
from ahm_jax.masking.networks import Networks
from ahm_jax.masking.patches import patch_mean, to_pixels
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import WORKERS
from ahm_jax.models.layers import infer
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch

_TINY = 1e-6


class Views(NamedTuple):
  """What the student sees of u images, and what it is to say of it."""

  images: jax.Array  # [u, S, S, C], normalised.
  unmasked: jax.Array  # The same, with no patch hidden.
  targets: jax.Array  # [u, S, S, outputs]: the teacher's probabilities, or 0 and 1.
  confident: jax.Array  # [u, S, S]: 1 where the teacher is, else 0.
  proposal: Proposal | None  # Of patches hidden, [K, u / K, g, g] of K workers.


@dataclass(frozen=True)
class Consistency:
  """How a segmentation step uses unlabelled images; runs under an axis of devices named DEVICES.

  Attributes:
    total_steps: of the whole training, which the weight grows over.
    masker: places patches that are hidden from the student; its `unet` reconstructs nothing.
  """

  unet: UNet
  config: UnlabelledConfig
  total_steps: int
  masker: Networks | None = None

  def init_masker(self, key: jax.Array, shape: tuple[int, ...], variables: Any) -> Any:
    """The first state of the strategy that hides patches, () where none does.

    Args:
      shape: of an image, [1, S, S, C].
    """
    return self.masker.strategy.init(key, jnp.zeros(shape), variables) if self.masker else ()

  def views(
    self, key: jax.Array, teacher: Any, batch: Batch, masker: Any, step: jax.Array
  ) -> Views:
    """What is made of unlabelled images; their masks are looked at by an oracle alone.

    Args:
      key: of the step.
      teacher: variables of the U-Net.
      batch: u images, an even number; each two in a row are partners.
      masker: state of the strategy that hides patches.
      step: how many were done before.
    """
    config = self.config
    view_key, box_key, mask_key = jax.random.split(key, 3)
    plain, lesions = augment_batch(
      view_key, batch.images, batch.masks, batch.positions, geometry_only(config.augment)
    )
    says = lax.stop_gradient(probabilities(infer(self.unet, teacher, normalise(plain))))
    changed = normalise(recolour_batch(view_key, plain, batch.positions, config.augment))
    pairs = jnp.repeat(batch.positions[::2], 2)
    box = boxes(box_key, pairs, plain.shape[1], config)[..., None]
    images, says = (jnp.where(box, partners(x), x) for x in (changed, says))
    proposal, unmasked = None, images
    if self.masker:
      lesions = jnp.where(box[..., 0], partners(lesions), lesions)
      proposal = self._propose(mask_key, batch.positions, images, lesions, masker, step)
      images, says = self._hidden(proposal, images, says)
    confident = confidence(says) >= config.confidence
    targets = hardened(says) if config.targets == 'hard' else says
    return Views(images, unmasked, targets, confident.astype(jnp.float32), proposal)

  def _propose(
    self,
    key: jax.Array,
    positions: jax.Array,
    images: jax.Array,
    lesions: jax.Array,
    masker: Any,
    step: jax.Array,
  ) -> Proposal:
    assert self.masker
    strategy = self.masker.strategy
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, self._by_worker(positions)[:, 0])

    def propose(images, lesions, key):
      known = {'lesions': lesions} if strategy.sees_lesions else {}
      return strategy.propose(masker, images, key, step / self.total_steps, True, **known)

    of_worker = jax.vmap(propose, axis_name=WORKERS)
    return lax.stop_gradient(of_worker(self._by_worker(images), self._by_worker(lesions), keys))

  def _by_worker(self, x: jax.Array) -> jax.Array:
    """[u, ...] as [K, u / K, ...], the K workers of this device."""
    return x.reshape(self.config.masking.workers // lax.axis_size(DEVICES), -1, *x.shape[1:])

  def _hidden(
    self, proposal: Proposal, images: jax.Array, says: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Images, and what the teacher says of them, with the patches hidden that are proposed."""
    size = self.config.masking.patch_size
    hidden = to_pixels(proposal.hidden.reshape(-1, *proposal.hidden.shape[2:]), size)[..., None] > 0
    if self.config.hide == 'grey':
      return jnp.where(hidden, 0, images), says
    return jnp.where(hidden, partners(images), images), jnp.where(hidden, partners(says), says)

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

  def learn(
    self, masker: Any, views: Views, logits: jax.Array, teacher: Any, step: jax.Array
  ) -> tuple[Any, dict[str, jax.Array]]:
    """The next state of the strategy that hides patches, and its metrics.

    Args:
      logits: of the student, as `loss` takes them.
      teacher: variables of the U-Net.
    """
    if not self.masker or views.proposal is None:
      return masker, {}
    proposal, rounds = views.proposal, lambda x: self._by_worker(x)[:, None]
    losses = self._patch_losses(views, logits)
    if self.config.reward == 'progress':
      losses = self._patch_losses(views, infer(self.unet, teacher, views.images)) / (losses + _TINY)

    rollouts = Rollout(
      observations=rounds(views.unmasked),
      unmasked=rounds(views.unmasked),
      masked=rounds(views.images),
      hidden=proposal.hidden[:, None],
      probability=proposal.probability[:, None],
      losses=rounds(losses),
    )
    progress = step / self.total_steps
    masker, metrics = self.masker.strategy.learn(
      masker, lax.stop_gradient(rollouts), teacher, progress
    )
    return masker, {'mask_ratio': proposal.hidden.mean(), **metrics}

  def _patch_losses(self, views: Views, logits: jax.Array) -> jax.Array:
    """Mean cross-entropy of every patch, of confident pixels where those are rewarded: [u, g, g].

    What the targets cost by themselves is left out.
    """
    size, targets = self.config.masking.patch_size, views.targets
    excess = cross_entropy(logits, targets) - entropy(targets)
    if self.config.reward != 'confident':
      return patch_mean(excess, size)
    return patch_mean(excess * views.confident, size) / (patch_mean(views.confident, size) + _TINY)


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
  """Cross-entropy plus soft Dice loss, as `segment.segmentation_losses` and
  `multiclass.class_losses`, against probabilities, with a weight for every pixel.

  Cross-entropy is a mean over all pixels, so that where few count the loss is small (as in
  UniMatch).

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
      (weighted * found * targets).sum(pixels),
      (weighted * found).sum(pixels) + (weighted * targets).sum(pixels),
    ),
    DEVICES,
  )
  dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
  return (weights * pixel_losses).mean() + dice
