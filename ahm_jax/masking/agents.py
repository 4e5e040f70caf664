"""Agents that place the mask: adaptive hard masking, without a critic, and untrained."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import actor_critic
from ahm_jax.masking.learner import (
  AgentState,
  TaughtState,
  by_policy,
  fresh_agent,
  improved,
  mean_over_workers,
  trunk_loader,
)
from ahm_jax.masking.patches import patch_losses
from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.rollout import Rollout
from ahm_jax.masking.strategy import Context, Strategy, learn_nothing, moving_average
from ahm_jax.models.agent import PYTORCH_VARIANCE
from ahm_jax.runtime.averages import average_of


def ahm(context: Context) -> Strategy:
  """Adaptive hard masking: an actor-critic agent, paid where reconstruction is hard."""
  return _policy_gradient(context, critic=True)


def reinforce(context: Context) -> Strategy:
  """Williams, 1992: returns without a critic.

  Whitened rewards have mean 0, which serves as the baseline.
  """
  return _policy_gradient(context, critic=False)


def untrained(context: Context) -> Strategy:
  """An agent that never learns, as in the public reproduction of the paper, whose last layer
  starts as PyTorch's do.
  """
  context = context._replace(agent=context.agent.clone(output_variance=PYTORCH_VARIANCE))
  optimizer = optax.adam(context.masking.learning_rate)

  def init(key, images, variables):
    del variables
    return fresh_agent(context, optimizer, key, images)

  return Strategy(init, by_policy(context), learn_nothing, trunk_loader(context))


def _policy_gradient(context: Context, critic: bool) -> Strategy:
  masking = context.masking
  optimizer = optax.adam(masking.learning_rate)

  def init(key, images, variables):
    state = fresh_agent(context, optimizer, key, images)
    if masking.reward == 'progress':
      return TaughtState(*state, average_of(variables))
    return state

  def learn(state, rollouts, variables, progress):
    terms_of = functools.partial(_terms, masking, critic, progress)
    rewards = _rewards(rollouts, state, variables, context)

    def objective(params):
      terms, batch_stats = mean_over_workers(
        context, params, state.batch_stats, terms_of, rollouts, rewards
      )
      total = (
        terms.policy - masking.entropy_weight * terms.entropy + masking.value_weight * terms.value
      )
      return total, (terms, batch_stats)

    state, terms = improved(context, optimizer, state, objective)
    if isinstance(state, TaughtState):
      state = state._replace(teacher=moving_average(state.teacher, variables, progress))
    metrics = {'policy_loss': terms.policy, 'entropy': terms.entropy}
    return state, {**metrics, 'value_loss': terms.value} if critic else metrics

  return Strategy(init, by_policy(context), learn, trunk_loader(context))


def _terms(
  masking: MaskingConfig,
  critic: bool,
  progress: jax.Array,
  logits: jax.Array,
  values: jax.Array,
  rollout: Rollout,
  rewards: jax.Array,
) -> actor_critic.Losses:
  """The terms of one worker's loss; maps are [T, b, g, g]."""
  if not critic:
    values = jnp.zeros_like(values)
  returns = actor_critic.discounted_returns(rewards, masking.gamma)
  logits = policy_logits(logits, progress, masking)
  return actor_critic.losses(logits, values, rollout.hidden, returns)


def _rewards(
  rollouts: Rollout, state: AgentState | TaughtState, variables: Any, context: Context
) -> jax.Array:
  """What every patch is paid, [K, T, b, g, g], each round of each worker by itself, or each
  image of it.
  """
  masking = context.masking
  rewards_of: Callable[..., jax.Array]
  maps: tuple[jax.Array, ...] = rollouts.losses, rollouts.hidden
  if isinstance(state, TaughtState):
    rewards_of = actor_critic.progress_rewards
    # Both in inference: else batch statistics would be taken for progress.
    losses, reference = (
      _losses_of(unet, rollouts, context) for unet in (variables, state.teacher.value)
    )
    maps = losses, rollouts.hidden, reference
  elif masking.reward == 'rank':
    rewards_of = actor_critic.rank_rewards
  else:
    rewards_of = actor_critic.log_rewards
  if masking.reward_within == 'image':
    rewards_of = jax.vmap(rewards_of)
  rewards = jax.vmap(jax.vmap(rewards_of))(*maps)
  return rewards if masking.polarity == 'hard' else -rewards


def _losses_of(unet: Any, rollouts: Rollout, context: Context) -> jax.Array:
  """Patch losses [K, T, b, g, g], in inference, of a U-Net's variables on what the U-Net was
  given.
  """
  images = jnp.broadcast_to(rollouts.observations[:, :1], rollouts.observations.shape)

  def flat(x):
    return x.reshape(-1, *x.shape[3:])

  masking = context.masking
  reconstruction = context.reconstruct(unet, flat(rollouts.masked))
  losses = patch_losses(reconstruction, flat(images), masking.patch_size, masking.per_modality)
  return losses.reshape(rollouts.losses.shape)
