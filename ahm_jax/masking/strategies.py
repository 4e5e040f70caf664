"""Masking strategies: which patches to hide, and how to get better at it.

A strategy is three pure functions. The pre-training step calls them and never asks which strategy it runs; a new one is a
function that builds a `Strategy`, and a line in `_BUILDERS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import a3c
from ahm_jax.masking.patches import bound_logits, budget_shift, draw_bernoulli, draw_exact
from ahm_jax.masking.rollout import Proposal
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.layers import init_variables

WORKERS = 'workers'  # Name of the vmapped axis of workers.


class Context(NamedTuple):
  """What a strategy may use besides its own state."""

  masking: MaskingConfig
  agent: Any  # Flax module: images -> (logits, values), each [b, g, g]. In training it sees all workers' images as one batch.
  reconstruct: Callable[[Any, jax.Array], jax.Array]  # (U-Net variables, masked images) -> reconstruction, without training.
  mean_over_devices: Callable[[Any], Any]  # Of a pytree.


class Strategy(NamedTuple):
  """The three functions of a masking strategy.

  init: (key, images [b, H, W, C], U-Net variables) -> state, a pytree.
  propose: (state, images [b, H, W, C], key, progress, train) -> Proposal. `progress` runs from 0 to 1 over the training;
    `train` is False on held-out images. Under `train` it is called inside a vmap over workers, with the axis name WORKERS.
  learn: (state, Rollout with a leading axis of workers, U-Net variables after the step, progress) -> (state, metrics).
  """

  init: Callable[..., Any]
  propose: Callable[..., Proposal]
  learn: Callable[..., tuple[Any, dict[str, jax.Array]]]


class AgentState(NamedTuple):
  params: Any
  batch_stats: Any
  opt_state: Any


def build(context: Context) -> Strategy:
  """The strategy that `context.masking.strategy` names."""
  return _BUILDERS[context.masking.strategy](context)


def draw(key: jax.Array, logits: jax.Array, masking: MaskingConfig) -> Proposal:
  """Draws actions from logits [b, g, g] that are already shifted to the budget, and says what they hide.

  With an exact count, the probability (and the log-probability that learning uses) is that of independent draws: near the true
  one, not equal to it.
  """
  if masking.exact_count:
    patches = logits.shape[-2] * logits.shape[-1]
    hidden_count = round(masking.mask_ratio * patches)
    actions = draw_exact(key, logits, hidden_count if masking.action_means == 'mask' else patches - hidden_count)
  else:
    actions = draw_bernoulli(key, logits)
  probability = jax.nn.sigmoid(logits)
  if masking.action_means == 'keep':
    return Proposal(actions, 1 - actions, 1 - probability)
  return Proposal(actions, actions, probability)


def policy_logits(raw: jax.Array, progress: jax.Array, masking: MaskingConfig) -> jax.Array:
  """From the policy head's map [b, g, g] to the logits of the actions: bounded, eased in, and shifted to the budget."""
  ease = 1.0 if masking.ease_in == 0 else jnp.clip(progress / masking.ease_in, 0, 1)
  logits = ease * bound_logits(raw, masking.logit_bound)
  return logits + budget_shift(logits, _action_ratio(masking))


def _action_ratio(masking: MaskingConfig) -> float:
  return masking.mask_ratio if masking.action_means == 'mask' else 1 - masking.mask_ratio


def _uniform(context: Context) -> Strategy:
  masking = context.masking

  def propose(state, images, key, progress, train):
    del state, progress, train
    b, height, width, _ = images.shape
    logits = jnp.zeros((b, height // masking.patch_size, width // masking.patch_size))
    return draw(key, logits + budget_shift(logits, _action_ratio(masking)), masking)

  return Strategy(
    init=lambda key, images, variables: (), propose=propose, learn=lambda state, rollouts, variables, progress: (state, {})
  )


def _ahm(context: Context) -> Strategy:
  return _agent_strategy(context, learns=True, critic=True)


def _reinforce(context: Context) -> Strategy:
  """Williams, 1992: returns without a critic; whitened rewards have mean 0, which serves as the baseline."""
  return _agent_strategy(context, learns=True, critic=False)


def _untrained(context: Context) -> Strategy:
  """An agent that never learns: what the public reproduction of the paper really ran."""
  return _agent_strategy(context, learns=False, critic=False)


def _agent_strategy(context: Context, learns: bool, critic: bool) -> Strategy:
  masking, agent = context.masking, context.agent
  optimizer = optax.adam(masking.learning_rate)
  forward = as_one_batch(agent)

  def init(key, images, variables):
    del variables
    agent_variables = init_variables(agent, key, images.shape)
    params = agent_variables['params']
    return AgentState(params, agent_variables['batch_stats'], optimizer.init(params))

  def propose(state, images, key, progress, train):
    if train:
      (raw, _), _ = forward(state.params, state.batch_stats, images)
    else:
      raw, _ = agent.apply({'params': state.params, 'batch_stats': state.batch_stats}, images, train=False)
    return draw(key, policy_logits(raw, progress, masking), masking)

  def worker_losses(params, batch_stats, rollout, progress):
    """Of one worker. The agent sees a round at a time, as in acting: batch norm makes the policy depend on the batch."""
    by_round = [forward(params, batch_stats, observations) for observations in rollout.observations]
    (raw, values), new_stats = jax.tree.map(lambda *rounds: jnp.stack(rounds), *by_round)
    new_stats = jax.tree.map(lambda x: x.mean(0), new_stats)
    if not critic:
      values = jnp.zeros_like(values)
    last_value = jnp.zeros_like(values[0])
    if critic and masking.bootstrap:
      (_, last_value), _ = forward(params, batch_stats, rollout.last_observation)
    returns = a3c.discounted_returns(rollout.rewards, lax.stop_gradient(last_value), masking.gamma)
    logits = policy_logits(raw, progress, masking)
    return a3c.losses(logits, values, rollout.actions, returns), new_stats

  def learn(state, rollouts, variables, progress):
    del variables

    def objective(params):
      by_worker = jax.vmap(worker_losses, in_axes=(None, None, 0, None), out_axes=(0, None), axis_name=WORKERS)
      terms, batch_stats = by_worker(params, state.batch_stats, rollouts, progress)
      terms = jax.tree.map(jnp.mean, terms)
      total = terms.policy - masking.entropy_weight * terms.entropy + masking.value_weight * terms.value
      return total, (terms, batch_stats)

    gradients, (terms, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(context.mean_over_devices(gradients), state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {'policy_loss': terms.policy, 'entropy': terms.entropy}
    if critic:
      metrics['value_loss'] = terms.value
    return AgentState(params, context.mean_over_devices(batch_stats), opt_state), metrics

  def stay(state, rollouts, variables, progress):
    del rollouts, variables, progress
    return state, {}

  return Strategy(init, propose, learn if learns else stay)


_BUILDERS = {'uniform': _uniform, 'untrained': _untrained, 'reinforce': _reinforce, 'ahm': _ahm}
