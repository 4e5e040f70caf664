"""What a pre-training may minimise beside reconstruction, on the same U-Net and masks.

A teacher, a moving average of the U-Net, looks at the whole image in inference. Its features of
hidden patches are predicted from the masked image, as in data2vec (Baevski et al., arXiv
2202.03555) and MGD (Yang et al., arXiv 2205.01529); and an image and its patches are told from
others by them (Chaitanya et al., arXiv 2006.10511).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import PretrainConfig
from ahm_jax.masking.actor_critic import reconstruction_loss
from ahm_jax.masking.patches import patch_mean, to_pixels
from ahm_jax.masking.rollout import Rollout
from ahm_jax.masking.strategy import moving_average
from ahm_jax.models.heads import PixelHead
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.averages import Average, average_of
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.training.optimizers import Optimizer

TEMPERATURE = 0.1
PROJECTED = 128  # Numbers that images and patches are compared by.
_FINE = 3  # Level of the decoder whose features are at 1/4 of the resolution.
_TINY = 1e-12


class FeatureState(NamedTuple):
  """What learns beside the U-Net and the strategy."""

  heads: Any  # Parameters, by name.
  opt_state: Any
  teacher: Average  # Of the U-Net's variables.


class Targets(NamedTuple):
  """What the teacher says of a device's K x b images, constant to the gradient."""

  features: Mapping[str, jax.Array]  # By block, float32 [K, b, h, w, channels].
  images: jax.Array  # [N, channels]: pooled features of all images, of all devices.
  own: jax.Array  # int [K, b]: which of the N an image is.


class Terms(NamedTuple):
  """The losses of a step."""

  total: jax.Array  # Their weighted sum.
  patches: jax.Array | None  # That of features, of every patch: [K, T, b, g, g].
  metrics: dict[str, jax.Array]


@dataclass(frozen=True)
class FeatureLosses:
  """Pure functions; `targets` and `terms` run under an axis of devices named DEVICES.

  Attributes:
    weights: of the terms.
    optimizer: of the heads, and their learning rate.
  """

  unet: UNet
  weights: PretrainConfig
  optimizer: Optimizer

  @property
  def blocks(self) -> dict[str, int]:
    """Channels of the U-Net's blocks whose features count: the bottleneck's, and those of the
    decoder's at 1/4 of the resolution.
    """
    widths = self.unet.widths
    fine = min(_FINE, len(widths) - 1)
    return {f'encoder{len(widths)}': widths[-1], f'decoder{fine}': widths[fine - 1]}

  def init(self, key: jax.Array, variables: Any) -> FeatureState:
    """The first state, beside a U-Net's fresh variables."""
    heads = {}
    for i, (name, (channels, _)) in enumerate(self._heads().items()):
      shape = jnp.zeros((1, channels))
      heads[name] = self._head(name).init(jax.random.fold_in(key, i), shape)['params']
    return FeatureState(heads, self.optimizer.transformation().init(heads), average_of(variables))

  def targets(self, state: FeatureState, images: jax.Array) -> Targets:
    """Of the whole images [K, b, H, W, C], normalised."""
    workers, count = images.shape[:2]
    flat = images.reshape(-1, *images.shape[2:])
    _, found = self.unet.apply(state.teacher.value, flat, train=False, blocks=tuple(self.blocks))
    features = {name: x.reshape(workers, count, *x.shape[1:]) for name, x in found.items()}
    deep, _ = self.blocks
    pooled = features[deep].mean((2, 3)).reshape(workers * count, -1)
    everyone = lax.all_gather(pooled, DEVICES, tiled=True)
    own = lax.axis_index(DEVICES) * len(pooled) + jnp.arange(len(pooled))
    return lax.stop_gradient(Targets(features, everyone, own.reshape(workers, count)))

  def terms(self, heads: Any, targets: Targets, rollouts: Rollout) -> Terms:
    """The losses of rollouts [K, T, ...], which the U-Net's features are in."""
    total, patches, metrics = jnp.zeros(()), None, {}
    if self.weights.features:
      patches = self._feature_losses(heads, targets, rollouts)
      # As a reconstruction's, each worker's mean over hidden patches.
      loss = jax.vmap(reconstruction_loss)(patches, rollouts.hidden).mean()
      total, metrics['feature_loss'] = total + self.weights.features * loss, loss
    if self.weights.contrast:
      loss = self._contrast_loss(heads, targets, rollouts)
      total, metrics['contrast_loss'] = total + self.weights.contrast * loss, loss
    return Terms(total, patches, metrics)

  def learn(
    self, state: FeatureState, gradients: Any, variables: Any, progress: jax.Array
  ) -> FeatureState:
    """The state after a step.

    Args:
      gradients: of the heads, by this device's share of the batch.
      variables: of the U-Net after the step, which the teacher follows.
    """
    transformation = self.optimizer.transformation()
    mean = lax.pmean(gradients, DEVICES)
    updates, opt_state = transformation.update(mean, state.opt_state, state.heads)
    heads = optax.apply_updates(state.heads, updates)
    return FeatureState(heads, opt_state, moving_average(state.teacher, variables, progress))

  def _feature_losses(self, heads: Any, targets: Targets, rollouts: Rollout) -> jax.Array:
    """1 - cosine between predicted features and the teacher's, of every patch, [K, T, b, g, g]: the
    mean over both blocks.

    The teacher's are layer-normalised at each position, without parameters, as in data2vec, of
    which a cosine sees the centring alone: after a ReLU all features point much the same way.
    """
    grid = rollouts.hidden.shape[-1]
    maps = []
    for block in self.blocks:
      said = self._apply(heads, f'predict_{block}', rollouts.features[block])
      truth = targets.features[block]
      truth = unit(truth - truth.mean(-1, keepdims=True))[:, None]
      # Rounding may make it less than 0, which has no logarithm.
      maps.append(to_grid(jnp.maximum(1 - (unit(said) * truth).sum(-1), 0), grid))
    return jnp.stack(maps).mean(0)

  def _contrast_loss(self, heads: Any, targets: Targets, rollouts: Rollout) -> jax.Array:
    """InfoNCE of images among all of the batch, by their bottleneck; plus that of patches among all
    of their image, by the decoder's features. One head serves student and teacher.
    """
    deep, fine = self.blocks
    grid = rollouts.hidden.shape[-1]

    def images(pooled):
      return self._apply(heads, 'project_images', pooled)

    def patches(features):
      pooled = pool(features, grid)
      return self._apply(heads, 'project_patches', pooled.reshape(*pooled.shape[:-3], grid**2, -1))

    seen = images(rollouts.features[deep].mean((-3, -2)))
    among_images = info_nce(seen, images(targets.images), targets.own[:, None])
    own = patches(targets.features[fine])[:, None]
    among_patches = info_nce(patches(rollouts.features[fine]), own, jnp.arange(grid**2))
    return among_images.mean() + among_patches.mean()

  def _heads(self) -> dict[str, tuple[int, int]]:
    """Channels in and out of each head, by name."""
    deep, fine = self.blocks
    heads: dict[str, tuple[int, int]] = {}
    if self.weights.features:
      heads |= {f'predict_{block}': (channels, channels) for block, channels in self.blocks.items()}
    if self.weights.contrast:
      heads['project_images'] = self.blocks[deep], PROJECTED
      heads['project_patches'] = self.blocks[fine], PROJECTED
    return heads

  def _head(self, name: str) -> PixelHead:
    _, features = self._heads()[name]
    return PixelHead(features, dtype=self.unet.dtype)

  def _apply(self, heads: Any, name: str, x: jax.Array) -> jax.Array:
    return jnp.asarray(self._head(name).apply({'params': heads[name]}, x))


def unit(x: jax.Array) -> jax.Array:
  """Vectors [..., C], of length 1; those of almost 0 stay so."""
  return x * lax.rsqrt((x**2).sum(-1, keepdims=True) + _TINY)


def info_nce(said: jax.Array, others: jax.Array, own: jax.Array) -> jax.Array:
  """-log softmax over n vectors of cosine / TEMPERATURE at the own one (van den Oord et al., arXiv
  1807.03748).

  Args:
    said: [..., q, D].
    others: [..., n, D], among them the own one of each of the q.
    own: integers [..., q].

  Returns:
    [..., q].
  """
  logits = jnp.einsum('...qd,...nd->...qn', unit(said), unit(others)) / TEMPERATURE
  labels = jnp.broadcast_to(own, logits.shape[:-1])
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def to_grid(x: jax.Array, grid: int) -> jax.Array:
  """A map [..., h, h] on the grid of patches [..., g, g]: means, or repeated where g is larger."""
  side = x.shape[-1]
  return patch_mean(x, side // grid) if side >= grid else to_pixels(x, grid // side)


def pool(x: jax.Array, grid: int) -> jax.Array:
  """Mean features of every patch: [..., h, h, C] -> [..., g, g, C], h a multiple of g."""
  return jnp.moveaxis(patch_mean(jnp.moveaxis(x, -1, -3), x.shape[-2] // grid), -3, -1)
