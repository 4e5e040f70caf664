"""Patches of unlabelled images that are hidden from the student, placed by a masking strategy that
is rewarded for what the student then says of them.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ahm_jax.data.cutmix import partners
from ahm_jax.masking.networks import Networks
from ahm_jax.masking.patches import patch_mean, to_pixels
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import WORKERS
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.training.soft_losses import cross_entropy, entropy

_TINY = 1e-6


@dataclass(frozen=True)
class Hiding:
  """How patches are hidden; runs under an axis of devices named DEVICES.

  Attributes:
    networks: the strategy, and its agent. Nothing is reconstructed.
    fill, reward: as `UnlabelledConfig` has `hide` and `reward`.
    total_steps: of the whole training, which masks warm up over.
  """

  networks: Networks
  fill: str
  reward: str
  total_steps: int

  def init(self, key: jax.Array, shape: tuple[int, ...], variables: Any) -> Any:
    """The strategy's first state, for images of `shape` [1, S, S, C] and a U-Net's variables."""
    return self.networks.strategy.init(key, jnp.zeros(shape), variables)

  def propose(
    self,
    state: Any,
    key: jax.Array,
    positions: jax.Array,
    images: jax.Array,
    lesions: jax.Array,
    step: jax.Array,
  ) -> Proposal:
    """Which patches are hidden, [K, u / K, g, g] of K workers.

    Args:
      state: the strategy's.
      key: of the step.
      positions: int [u], of the images in the global batch.
      images: [u, S, S, C], normalised.
      lesions: [u, S, S], which an oracle alone looks at.
      step: how many were done before.
    """
    strategy = self.networks.strategy
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, self._by_worker(positions)[:, 0])

    def of_worker(images, lesions, key):
      known = {'lesions': lesions} if strategy.sees_lesions else {}
      return strategy.propose(state, images, key, step / self.total_steps, True, **known)

    by_worker = jax.vmap(of_worker, axis_name=WORKERS)
    return lax.stop_gradient(by_worker(self._by_worker(images), self._by_worker(lesions), keys))

  def hide(self, proposal: Proposal, images: jax.Array, prediction: Any) -> tuple[jax.Array, Any]:
    """Images [u, S, S, C], and the teacher's prediction for them, a tree of [u, S, S, n], with
    the proposed patches hidden.
    """
    size = self.networks.masking.patch_size
    hidden = to_pixels(proposal.hidden.reshape(-1, *proposal.hidden.shape[2:]), size)[..., None] > 0
    if self.fill == 'grey':
      return jnp.where(hidden, 0, images), prediction
    return jax.tree.map(lambda x: jnp.where(hidden, partners(x), x), (images, prediction))

  def losses(self, logits: jax.Array, targets: jax.Array, confident: jax.Array) -> jax.Array:
    """Mean cross-entropy of every patch, of confident pixels where those are rewarded: [u, g, g].

    What the targets cost by themselves is left out.

    Args:
      logits, targets: [u, S, S, outputs].
      confident: [u, S, S] in {0, 1}.
    """
    size = self.networks.masking.patch_size
    excess = cross_entropy(logits, targets) - entropy(targets)
    if self.reward != 'confident':
      return patch_mean(excess, size)
    return patch_mean(excess * confident, size) / (patch_mean(confident, size) + _TINY)

  def learn(
    self,
    state: Any,
    proposal: Proposal,
    unmasked: jax.Array,
    masked: jax.Array,
    losses: jax.Array,
    variables: Any,
    step: jax.Array,
  ) -> tuple[Any, dict[str, jax.Array]]:
    """The strategy's next state, and its metrics.

    Args:
      unmasked, masked: images [u, S, S, C] before and after patches were hidden.
      losses: [u, g, g], that patches are rewarded by.
      variables: of the U-Net.
    """

    def rounds(x):
      return self._by_worker(x)[:, None]

    rollouts = Rollout(
      observations=rounds(unmasked),
      unmasked=rounds(unmasked),
      masked=rounds(masked),
      hidden=proposal.hidden[:, None],
      probability=proposal.probability[:, None],
      losses=rounds(losses),
    )
    state, metrics = self.networks.strategy.learn(
      state, lax.stop_gradient(rollouts), variables, step / self.total_steps
    )
    return state, {'mask_ratio': proposal.hidden.mean(), **metrics}

  def _by_worker(self, x: jax.Array) -> jax.Array:
    """[u, ...] as [K, u / K, ...], the K workers of this device."""
    return x.reshape(self.networks.masking.workers // lax.axis_size(DEVICES), -1, *x.shape[1:])
