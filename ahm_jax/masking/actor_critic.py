"""Rewards, returns and losses of the actor-critic.

A3C: Mnih et al., arXiv 1602.01783. Per pixel: Furuta et al., arXiv 1811.04323.

Every patch is an agent with an action, a reward, a value and a policy of its own; all of them share
the network. Maps are [..., b, g, g]: b images of one worker, a grid of g x g patches.
"""

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
  """Mean loss over hidden patches: sum(hidden * losses) / sum(hidden), a scalar.

  0 where nothing is hidden.
  """
  return (hidden * losses).sum() / jnp.maximum(hidden.sum(), 1)


def rewards(
  losses: jax.Array, hidden: jax.Array, form: str = 'log', reference: jax.Array | None = None
) -> jax.Array:
  """What each patch is paid: how hard it was to repair, among the hidden patches given: of a
  worker, or of an image.

  A visible patch gets 0, the reward of an average hidden one. Forms:
    'log': (log(l) - mean) / std over hidden patches; its scale does not drift as the U-Net learns.
    'relative': l / mean - 1 over hidden patches.
    'rank': rank of l among hidden patches, from -1 (easiest) to 1 (hardest).
    'progress': as 'log', of log(reference) - log(l): what was learnt since the reference, and not
    what is hard for good.

  Args:
    losses: [..., g, g], at least 0.
    hidden: [..., g, g] in {0, 1}.
    reference: [..., g, g], the losses of an older U-Net on the same masks; only 'progress' looks at
      them.

  Returns:
    [..., g, g]; constant to the gradient.
  """
  losses = lax.stop_gradient(losses)
  count = jnp.maximum(hidden.sum(), 1)
  if form in ('log', 'progress'):
    scores = jnp.log(losses + _EPSILON)
    if form == 'progress':
      scores = jnp.log(lax.stop_gradient(reference) + _EPSILON) - scores
    centred = scores - (hidden * scores).sum() / count
    scale = jnp.sqrt((hidden * centred**2).sum() / count)
    reward = centred / (scale + _EPSILON)
  elif form == 'relative':
    reward = losses / ((hidden * losses).sum() / count + _EPSILON) - 1
  elif form == 'rank':
    ordered = jnp.sort(jnp.where(hidden > 0, losses, jnp.inf).ravel())
    below, up_to = (jnp.searchsorted(ordered, losses, side=side) for side in ('left', 'right'))
    reward = (below + up_to - count) / jnp.maximum(
      count - 1, 1
    )  # Twice the mean rank of ties, from 0, is below + up_to - 1.
  else:
    raise ValueError(f'unknown form of reward: {form!r}')
  return hidden * reward


def discounted_returns(rewards: jax.Array, last_value: jax.Array, gamma: float) -> jax.Array:
  """R_t = r_t + gamma * R_{t+1}, with R_T = last_value (arXiv 1602.01783, algorithm S3).

  Args:
    rewards: [T, ...], r_0 .. r_{T-1}.
    last_value: [...], V(s_T) where the episode was cut after T rounds, 0 where it was over.

  Returns:
    [T, ...], R_0 .. R_{T-1}; constant to the gradient.
  """

  def back(following, reward):
    current = reward + gamma * following
    return current, current

  _, returns = lax.scan(back, last_value, rewards, reverse=True)
  return lax.stop_gradient(returns)


def log_probability(logits: jax.Array, actions: jax.Array) -> jax.Array:
  """log pi(a) of Bernoulli actions in {0, 1} whose P(1) is sigmoid(logits); any shape."""
  return actions * jax.nn.log_sigmoid(logits) + (1 - actions) * jax.nn.log_sigmoid(-logits)


def entropy(logits: jax.Array) -> jax.Array:
  """Entropy in nats of Bernoulli variables whose P(1) is sigmoid(logits); any shape."""
  return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)


def losses(logits: jax.Array, values: jax.Array, actions: jax.Array, returns: jax.Array) -> Losses:
  """Policy, value and entropy terms over all patches, hidden and visible alike, and all rounds.

  policy = -mean(log pi(a) * (R - V)), with the advantage R - V constant to the gradient;
  value = mean((R - V)^2) / 2; entropy = mean(H(p)).

  Both actions enter: with hidden patches alone the critic absorbs the difficulty of every patch and
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
