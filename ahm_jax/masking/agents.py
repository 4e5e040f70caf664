"""Agents that place the mask: adaptive hard masking, without a critic, and untrained."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import actor_critic
from ahm_jax.masking.patches import bound_logits, budget_shift, patch_losses
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import (
  WORKERS,
  Average,
  Context,
  Strategy,
  action_ratio,
  average_of,
  draw,
  easing,
  growing_share,
  moving_average,
  stay,
)
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.agent import PYTORCH_VARIANCE
from ahm_jax.models.layers import init_variables


class AgentState(NamedTuple):
  params: Any
  batch_stats: Any
  opt_state: Any


class TaughtState(NamedTuple):
  """The same, with a moving average beside it: of the U-Net's variables (learning progress), or
  of the agent's own (HPM).
  """

  params: Any
  batch_stats: Any
  opt_state: Any
  teacher: Average


def fresh_agent(
  context: Context, optimizer: optax.GradientTransformation, key: jax.Array, images: jax.Array
) -> AgentState:
  variables = init_variables(context.agent, key, images.shape)
  return AgentState(
    variables['params'], variables['batch_stats'], optimizer.init(variables['params'])
  )


def variables_of(state: AgentState | TaughtState) -> dict[str, Any]:
  return {'params': state.params, 'batch_stats': state.batch_stats}


def raw_logits(
  context: Context, state: AgentState | TaughtState, images: jax.Array, train: bool
) -> jax.Array:
  """The policy head's map [b, g, g].

  In training, under a vmap of workers, with the statistics of all their images.
  """
  if train:
    (raw, _), _ = as_one_batch(context.agent)(state.params, state.batch_stats, images)
  else:
    raw, _ = context.agent.apply(variables_of(state), images, train=False)
  return raw


def by_policy(context: Context) -> Callable[..., Proposal]:
  """The `propose` of a strategy that draws from its agent's policy."""

  def propose(state, images, key, progress, train):
    logits = policy_logits(raw_logits(context, state, images, train), progress, context.masking)
    return draw(key, logits, context.masking)

  return propose


def each_round(
  forward: Callable, params: Any, batch_stats: Any, observations: jax.Array
) -> tuple[Any, Any]:
  """The agent on the rounds of one worker, one at a time as in acting: batch norm makes the policy
  depend on the batch.

  Args:
    forward: (params, batch_stats, images [b, H, W, C]) -> maps, new batch_stats.
    observations: [T, b, H, W, C].

  Returns:
    The maps, each [T, b, g, g], and the mean of the rounds' batch statistics.
  """
  rounds = [forward(params, batch_stats, images) for images in observations]
  maps, new_stats = jax.tree.map(lambda *arrays: jnp.stack(arrays), *rounds)
  return maps, jax.tree.map(lambda x: x.mean(0), new_stats)


def improved(
  context: Context,
  optimizer: optax.GradientTransformation,
  state: AgentState | TaughtState,
  objective: Callable[[Any], tuple[jax.Array, tuple[Any, Any]]],
) -> tuple[AgentState | TaughtState, Any]:
  """One step of the optimizer, over all devices.

  Args:
    objective: parameters -> the loss of this device, (anything, new batch statistics).

  Returns:
    The state with its teacher, if any, as it was; and the anything.
  """
  gradients, (found, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(
    context.mean_over_devices(gradients), state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  return state._replace(
    params=params, batch_stats=context.mean_over_devices(batch_stats), opt_state=opt_state
  ), found


def ahm(context: Context) -> Strategy:
  """Adaptive hard masking: an actor-critic agent, paid where repair is hard."""
  return _agent_strategy(context, learns=True, critic=True)


def reinforce(context: Context) -> Strategy:
  """Williams, 1992: returns without a critic.

  Whitened rewards have mean 0, which serves as the baseline.
  """
  return _agent_strategy(context, learns=True, critic=False)


def untrained(context: Context) -> Strategy:
  """An agent that never learns, as in the public reproduction of the paper, whose last layer
  starts as PyTorch's do.
  """
  agent = context.agent.clone(output_variance=PYTORCH_VARIANCE)
  return _agent_strategy(context._replace(agent=agent), learns=False, critic=False)


def policy_logits(raw: jax.Array, progress: jax.Array, masking: MaskingConfig) -> jax.Array:
  """From the policy head's map to the logits of the actions: bounded, eased in, within the budget;
  all [b, g, g].

  p = (1 - s) r + s sigmoid(e z / temperature + shift), with r the expected share of actions 1, z
  the bounded logits, the shift that makes the mean of p equal r where `budget` says, and of e and s
  the one that `warmup_by` names growing over the training.
  """
  warmup_by = easing(progress, masking) if masking.warmup_by == 'logits' else 1.0
  ratio = action_ratio(masking)
  if masking.budget == 'none':
    bounded = masking.logit_bound * jnp.tanh(raw / masking.logit_bound)
    logits = warmup_by * bounded / masking.temperature + jnp.log(ratio / (1 - ratio))
  else:
    logits = warmup_by * bound_logits(raw, masking.logit_bound) / masking.temperature
    logits = logits + budget_shift(
      logits, ratio, masking.tile if masking.budget == 'tile' else None
    )
  if masking.warmup_by == 'logits' and masking.hard_share is None:
    return logits
  share = (
    growing_share(progress, masking, 1.0) if masking.warmup_by == 'share' else masking.hard_share
  )
  return _mixed(logits, share, ratio)


def _mixed(logits: jax.Array, share: jax.Array | float, ratio: float) -> jax.Array:
  """The logits of p = (1 - share) ratio + share sigmoid(logits), finite also where p rounds to 0
  or 1.
  """
  share = jnp.asarray(share, logits.dtype)
  of_one = jnp.logaddexp(
    jnp.log1p(-share) + jnp.log(ratio), jnp.log(share) + jax.nn.log_sigmoid(logits)
  )
  of_zero = jnp.logaddexp(
    jnp.log1p(-share) + jnp.log1p(-ratio), jnp.log(share) + jax.nn.log_sigmoid(-logits)
  )
  return of_one - of_zero


def _agent_strategy(context: Context, learns: bool, critic: bool) -> Strategy:
  masking = context.masking
  optimizer = optax.adam(masking.learning_rate)
  forward = as_one_batch(context.agent)
  has_teacher = learns and masking.reward == 'progress'

  def init(key, images, variables):
    state = fresh_agent(context, optimizer, key, images)
    return TaughtState(*state, average_of(variables)) if has_teacher else state

  def worker_losses(params, batch_stats, rollout, rewards, progress):
    (raw, values), new_stats = each_round(forward, params, batch_stats, rollout.observations)
    if not critic:
      values = jnp.zeros_like(values)
    last_value = jnp.zeros_like(values[0])
    if critic and masking.bootstrap:
      (_, last_value), _ = forward(params, batch_stats, rollout.last_observation)
    returns = actor_critic.discounted_returns(rewards, lax.stop_gradient(last_value), masking.gamma)
    logits = policy_logits(raw, progress, masking)
    return actor_critic.losses(logits, values, rollout.actions, returns), new_stats

  def learn(state, rollouts, variables, progress):
    rewards = _rewards(rollouts, state, variables, context)

    def objective(params):
      by_worker = jax.vmap(
        worker_losses, in_axes=(None, None, 0, 0, None), out_axes=(0, None), axis_name=WORKERS
      )
      terms, batch_stats = by_worker(params, state.batch_stats, rollouts, rewards, progress)
      terms = jax.tree.map(jnp.mean, terms)
      total = (
        terms.policy - masking.entropy_weight * terms.entropy + masking.value_weight * terms.value
      )
      return total, (terms, batch_stats)

    state, terms = improved(context, optimizer, state, objective)
    metrics = {'policy_loss': terms.policy, 'entropy': terms.entropy}
    if critic:
      metrics['value_loss'] = terms.value
    if has_teacher:
      state = state._replace(teacher=moving_average(state.teacher, variables, progress, masking))
    return state, metrics

  return Strategy(init, by_policy(context), learn if learns else stay)


def _rewards(
  rollouts: Rollout, state: AgentState | TaughtState, variables: Any, context: Context
) -> jax.Array:
  """What every patch is paid, [K, T, b, g, g], each round of each worker by itself, or each
  image of it.
  """
  masking = context.masking
  losses = reference = rollouts.losses
  if (
    masking.reward == 'progress'
  ):  # Both in inference: else batch statistics would be taken for progress.
    losses, reference = (
      _losses_of(unet, rollouts, context) for unet in (variables, state.teacher.value)
    )

  def paid(losses, hidden, reference):
    return actor_critic.rewards(losses, hidden, masking.reward, reference)

  of_a_round = jax.vmap(paid) if masking.reward_within == 'image' else paid
  rewards = jax.vmap(jax.vmap(of_a_round))(losses, rollouts.hidden, reference)
  return rewards if masking.polarity == 'hard' else -rewards


def _losses_of(unet: Any, rollouts: Rollout, context: Context) -> jax.Array:
  """Patch losses [K, T, b, g, g], in inference, of a U-Net's variables on what the U-Net was
  given.
  """
  images = jnp.broadcast_to(rollouts.observations[:, :1], rollouts.observations.shape)

  def flat(x):
    return x.reshape(-1, *x.shape[3:])

  losses = patch_losses(
    context.reconstruct(unet, flat(rollouts.masked)), flat(images), context.masking.patch_size
  )
  return losses.reshape(rollouts.losses.shape)
