"""Rewards, returns and losses of the actor-critic.

A3C: Mnih et al., arXiv 1602.01783. Per pixel: Furuta et al., arXiv 1811.04323.

Every patch is an agent with an action, a reward, a value and a policy of its own; all of them share
the network. Maps are [..., b, g, g]: b images of one worker, a grid of g x g patches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_EPSILON = 1e-6


class Losses(NamedTuple):
  """The terms of the actor-critic objective, scalars."""

  policy: jax.Array
  value: jax.Array
  entropy: jax.Array


def reconstruction_loss(losses: jax.Array, hidden: jax.Array) -> jax.Array:
  """Mean loss over masked patches: sum(hidden * losses) / sum(hidden), a scalar.

  0 where nothing is masked.
  """
  return (hidden * losses).sum() / jnp.maximum(hidden.sum(), 1)


def log_rewards(losses: jax.Array, hidden: jax.Array) -> jax.Array:
  """(log(l) - mean) / std over the masked patches given: those of a worker, or of an image.

  A reward says how hard a patch was to reconstruct; a visible one gets 0, the reward of an average
  masked one. Its scale does not drift as the U-Net learns.

  Args:
    losses: [..., g, g], at least 0.
    hidden: [..., g, g] in {0, 1}.

  Returns:
    [..., g, g]; constant to the gradient.
  """
  return _whitened(jnp.log(lax.stop_gradient(losses) + _EPSILON), hidden)


def joined_losses(
  terms: Sequence[jax.Array], weights: Sequence[float], hidden: jax.Array
) -> jax.Array:
  """Several losses of every patch as one: exp of the weighted mean of the `log_rewards` of each.

  So the `log_rewards` of it are the weighted sum of those of each, of the scale that those of one
  have; and what ranks or compares patches by their loss can go by all of them.

  Args:
    terms: each [..., g, g], at least 0.
    weights: of the terms, above 0.
    hidden: [..., g, g] in {0, 1}.

  Returns:
    [..., g, g], 1 at visible patches; constant to the gradient.
  """
  total = sum(weights)
  rewards = [log_rewards(losses, hidden) for losses in terms]
  return jnp.exp(sum(w / total * reward for w, reward in zip(weights, rewards, strict=True)))


def progress_rewards(losses: jax.Array, hidden: jax.Array, reference: jax.Array) -> jax.Array:
  """As `log_rewards`, of log(reference) - log(l): what was learnt since the reference, and not what
  is hard for good.

  Args:
    reference: [..., g, g], the losses of an older U-Net on the same masks.
  """
  losses, reference = lax.stop_gradient((losses, reference))
  return _whitened(jnp.log(reference + _EPSILON) - jnp.log(losses + _EPSILON), hidden)


def rank_rewards(losses: jax.Array, hidden: jax.Array) -> jax.Array:
  """As `log_rewards`, but the rank of l among masked patches, from -1 (easiest) to 1 (hardest)."""
  losses = lax.stop_gradient(losses)
  count = jnp.maximum(hidden.sum(), 1)
  ordered = jnp.sort(jnp.where(hidden > 0, losses, jnp.inf).ravel())
  below, up_to = (jnp.searchsorted(ordered, losses, side=side) for side in ('left', 'right'))
  # Twice the mean rank of ties, from 0, is below + up_to - 1.
  return hidden * ((below + up_to - count) / jnp.maximum(count - 1, 1))


def _whitened(scores: jax.Array, hidden: jax.Array) -> jax.Array:
  """Scores with mean 0 and standard deviation 1 over masked patches, 0 where nothing is masked."""
  count = jnp.maximum(hidden.sum(), 1)
  deviations = scores - (hidden * scores).sum() / count
  scale = jnp.sqrt((hidden * deviations**2).sum() / count)
  return hidden * (deviations / (scale + _EPSILON))


def discounted_returns(rewards: jax.Array, gamma: float) -> jax.Array:
  """R_t = r_t + gamma * R_{t+1}, with R_T = 0: the episode is over after T rounds.

  Args:
    rewards: [T, ...], r_0 .. r_{T-1}.

  Returns:
    [T, ...], R_0 .. R_{T-1}; constant to the gradient.
  """

  def back(following, reward):
    current = reward + gamma * following
    return current, current

  _, returns = lax.scan(back, jnp.zeros_like(rewards[0]), rewards, reverse=True)
  return lax.stop_gradient(returns)


def log_probability(logits: jax.Array, actions: jax.Array) -> jax.Array:
  """log pi(a) of Bernoulli actions in {0, 1} whose P(1) is sigmoid(logits); any shape."""
  return actions * jax.nn.log_sigmoid(logits) + (1 - actions) * jax.nn.log_sigmoid(-logits)


def entropy(logits: jax.Array) -> jax.Array:
  """Entropy in nats of Bernoulli variables whose P(1) is sigmoid(logits); any shape."""
  return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)


def losses(logits: jax.Array, values: jax.Array, actions: jax.Array, returns: jax.Array) -> Losses:
  """Policy, value and entropy terms over all patches, masked and visible alike, and all rounds.

  policy = -mean(log pi(a) * (R - V)), with the advantage R - V constant to the gradient;
  value = mean((R - V)^2) / 2; entropy = mean(H(p)).

  Both actions enter: with masked patches alone the critic absorbs the difficulty of every patch and
  the policy learns nothing.

  Args:
    logits, values, actions, returns: [..., g, g], the logits shifted by the budget.
  """
  advantages = lax.stop_gradient(returns - values)
  return Losses(
    policy=-(log_probability(logits, actions) * advantages).mean(),
    value=((returns - values) ** 2).mean() / 2,
    entropy=entropy(logits).mean(),
  )
