"""The pure step of a pre-training."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import lax

from ahm_jax.config import AugmentConfig, MaskingConfig
from ahm_jax.data.augment import (
  augment_batch,
  denormalise,
  drop_batch,
  geometry_only,
  normalise,
  recolour_batch,
  without_dropout,
)
from ahm_jax.masking import actor_critic
from ahm_jax.masking.networks import Joined, Networks, strategy_state
from ahm_jax.masking.rollout import Rollout, rollout
from ahm_jax.masking.strategy import WORKERS
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import Batch, TrainState
from ahm_jax.training.features import FeatureLosses, Targets
from ahm_jax.training.optimizers import Optimizer, descend


class _Workers(NamedTuple):
  """What the K workers of a device start from, b images each."""

  images: jax.Array  # [K, b, H, W, C], augmented and normalised
  lesions: jax.Array  # [K, b, H, W], moved with the images
  positions: jax.Array  # [K, b], in the global batch
  keys: jax.Array  # [K]


@dataclass(frozen=True)
class PretrainStep:
  """The pure pre-training step over one device's share of the batch.

  It runs under an axis of devices named DEVICES.

  Attributes:
    pixels: weight of the reconstruction.
    others: losses beside it, if there are.
  """

  nets: Networks
  optimizer: Optimizer
  augment: AugmentConfig
  total_steps: int
  pixels: float = 1.0
  others: FeatureLosses | None = None

  def __call__(
    self, state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    augment_key, masking_key = jax.random.split(key)
    workers = _share_out(batch, augment_key, masking_key, self.nets.masking, self.augment)
    targets = self.others.targets(state.extra.others, workers.images) if self.others else None

    def objective(params, heads):
      losses, rollouts, batch_stats = self._roll_out(params, state, workers, augment_key)
      loss, rollouts, metrics = self._objective(losses.mean(), rollouts, heads, targets)
      return loss, (lax.stop_gradient(rollouts), batch_stats, metrics)

    heads = state.extra.others.heads if self.others else ()
    gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (loss, (rollouts, batch_stats, parts)), gradients = gradient(state.params, heads)
    new = descend(self.optimizer.transformation(), state, gradients[0], batch_stats)
    variables = {'params': new.params, 'batch_stats': new.batch_stats}
    progress = state.step / self.total_steps
    extra, metrics = self.nets.strategy.learn(strategy_state(state), rollouts, variables, progress)
    if self.others:
      learnt = self.others.learn(state.extra.others, gradients[1], variables, progress)
      extra = Joined(extra, learnt)
    metrics = {
      'loss': loss,
      'mask_ratio': rollouts.hidden.mean(),
      'policy_spread': rollouts.probability.std((-2, -1)).mean(),
      **parts,
      **metrics,
    }
    return new._replace(extra=extra), lax.pmean(metrics, DEVICES)

  def _objective(
    self, pixel_loss: jax.Array, rollouts: Rollout, heads: Any, targets: Targets | None
  ) -> tuple[jax.Array, Rollout, dict[str, jax.Array]]:
    """The weighted sum of all terms.

    Returns:
      It; the rollouts with, as `losses`, those that the strategy learns from; and where there are
      several terms, each without its weight.
    """
    loss = pixel_loss if self.pixels == 1 else self.pixels * pixel_loss
    if not (self.others and targets):
      return loss, rollouts, {}
    terms = self.others.terms(heads, targets, rollouts)
    loss = loss + terms.total if self.pixels else terms.total
    losses = self._patch_losses(rollouts, terms.patches)
    metrics = {'pixel_loss': pixel_loss, **terms.metrics}
    return loss, rollouts._replace(losses=losses, features=()), metrics

  def _patch_losses(self, rollouts: Rollout, of_features: jax.Array | None) -> jax.Array:
    """The loss of every patch, [K, T, b, g, g], by the terms that have one, compared as the agent's
    rewards are.

    The contrast of patches is left out: it is high where an image has much that looks alike, and
    not where a patch is hard to infer.
    """
    if of_features is None:
      return rollouts.losses
    if not (self.pixels and self.others):
      return of_features
    weights = self.pixels, self.others.weights.features

    def joined(losses, others, hidden):
      return actor_critic.joined_losses((losses, others), weights, hidden)

    if self.nets.masking.reward_within == 'image':
      joined = jax.vmap(joined)
    return jax.vmap(jax.vmap(joined))(rollouts.losses, of_features, rollouts.hidden)

  def _roll_out(
    self, params: Any, state: TrainState, workers: _Workers, augment_key: jax.Array
  ) -> tuple[jax.Array, Rollout, Any]:
    """The rounds of all workers, with the U-Net of these parameters.

    Returns:
      Reconstruction losses [K], rollouts of [K, T, ...], and the U-Net's new batch statistics.
    """
    masking, strategy = self.nets.masking, self.nets.strategy
    progress = state.step / self.total_steps
    blocks = tuple(self.others.blocks) if self.others else ()
    unet = as_one_batch(self.nets.unet, blocks=blocks)

    def reconstruct(batch_stats, masked):
      outputs, batch_stats = unet(params, batch_stats, masked)
      reconstruction, features = outputs if blocks else (outputs, ())
      return reconstruction, features, batch_stats

    def of_worker(images, lesions, positions, key):
      known = {'lesions': lesions} if strategy.sees_lesions else {}

      def propose(observation, round_key):
        return strategy.propose(
          strategy_state(state), observation, round_key, progress, True, **known
        )

      def distort(observation):
        change = recolour_batch if masking.restore_colour else drop_batch
        changed = change(augment_key, denormalise(observation), positions, self.augment)
        return normalise(changed)

      is_changed = masking.restore_colour or without_dropout(self.augment) != self.augment

      done, batch_stats = rollout(
        images,
        key,
        propose,
        reconstruct,
        state.batch_stats,
        patch_size=masking.patch_size,
        per_modality=masking.per_modality,
        rounds=masking.rounds,
        distort=distort if is_changed else lambda observation: observation,
      )
      return actor_critic.reconstruction_loss(done.losses, done.hidden), done, batch_stats

    by_worker = jax.vmap(of_worker, out_axes=(0, 0, None), axis_name=WORKERS)
    return by_worker(*workers)


def _share_out(
  batch: Batch,
  augment_key: jax.Array,
  masking_key: jax.Array,
  masking: MaskingConfig,
  augment: AugmentConfig,
) -> _Workers:
  """The batch among the workers of this device.

  Where colours are to be restored, images are only moved: their colours are what the U-Net is to
  reconstruct. Nor does one become MISSING that is to be.
  """
  augment = geometry_only(augment) if masking.restore_colour else without_dropout(augment)
  lesions = batch.masks > 0  # Of any class.
  images, lesions = augment_batch(augment_key, batch.images, lesions, batch.positions, augment)
  count = masking.workers // lax.axis_size(DEVICES)
  positions = batch.positions.reshape(count, -1)
  return _Workers(
    images=normalise(images).reshape(count, -1, *images.shape[1:]),
    lesions=lesions.reshape(count, -1, *lesions.shape[1:]),
    positions=positions,
    keys=jax.vmap(jax.random.fold_in, in_axes=(None, 0))(masking_key, positions[:, 0]),
  )
