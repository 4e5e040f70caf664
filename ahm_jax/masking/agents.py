"""Agents that place the mask: adaptive hard masking, without a critic, and untrained."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from ahm_jax.config import TILE, MaskingConfig
from ahm_jax.masking import actor_critic
from ahm_jax.masking.patches import (
  bound_logits,
  budget_shift,
  centred,
  patch_losses,
  tile_budget_shift,
)
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import (
  WORKERS,
  Average,
  Context,
  Strategy,
  average_of,
  draw,
  growing_share,
  moving_average,
  stay,
  warmup_factor,
)
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.agent import PYTORCH_VARIANCE
from ahm_jax.models.layers import infer, init_variables
from ahm_jax.runtime.trees import replaced

# Unbounded, logits saturated within 100 steps: exploration was over, and the bisection's range no
# longer held the ratio. Within 3 of the mean, with an entropy weight of 0.1, it does, and p keeps a
# spread of about 0.25.
LOGIT_BOUND = 3.0


class AgentState(NamedTuple):
  """An agent's variables, and its optimizer's state."""

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


State = TypeVar('State', AgentState, TaughtState)


def fresh_agent(
  context: Context, optimizer: optax.GradientTransformation, key: jax.Array, images: jax.Array
) -> AgentState:
  """Random weights for images of the shape of `images` [b, H, W, C]."""
  variables = init_variables(context.agent, key, images.shape)
  return AgentState(
    variables['params'], variables['batch_stats'], optimizer.init(variables['params'])
  )


def variables_of(state: AgentState | TaughtState) -> dict[str, Any]:
  """The agent's, as its Flax module takes them."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def trunk_loader(
  context: Context, load: Callable[[Any, Any], Any] | None = None
) -> Callable[[Any, Any], Any] | None:
  """The `load_trunk` of a strategy with an agent: `load`, or None if its trunk is not a VGG16's.

  Without `load` the agent's parameters are replaced. Adam's zeros will do for those from elsewhere.
  """
  return (load or with_trunk) if context.agent.trunk == 'vgg16' else None


def with_trunk(state: State, params: Any) -> State:
  """The state with {'trunk': parameters} from elsewhere in place of the agent's own."""
  return state._replace(params=replaced(state.params, params))


def raw_logits(
  context: Context, state: AgentState | TaughtState, images: jax.Array, train: bool
) -> jax.Array:
  """The policy head's map [b, g, g].

  In training, under a vmap of workers, with the statistics of all their images.
  """
  if train:
    (raw, _), _ = as_one_batch(context.agent)(state.params, state.batch_stats, images)
  else:
    raw, _ = infer(context.agent, variables_of(state), images)
  return raw


def by_policy(context: Context) -> Callable[..., Proposal]:
  """The `propose` of a strategy that draws from its agent's policy."""

  def propose(state, images, key, progress, train):
    raw = raw_logits(context, state, images, train)
    return draw(key, policy_logits(raw, progress, context.masking))

  return propose


def policy_logits(raw: jax.Array, progress: jax.Array | float, masking: MaskingConfig) -> jax.Array:
  """From the policy head's map to the logits of masking: bounded, warmed up, within the budget; all
  [b, g, g].

  p = (1 - s) r + s sigmoid(e z + shift), with r the mask ratio, z the bounded logits, and the shift
  that makes the mean of p equal r where `budget` says. Over the mask warm-up either e or s grows,
  as `warmup_by` says: 'logits', e from 0 to 1; 'share', s from 0 to `hard_share`.
  """
  if masking.warmup_by == 'share':
    share = growing_share(progress, masking, 1.0)
    return _mixed(_within_budget(raw, 1.0, masking), share, masking.mask_ratio)
  logits = _within_budget(raw, warmup_factor(progress, masking), masking)
  if masking.hard_share is None:
    return logits
  return _mixed(logits, masking.hard_share, masking.mask_ratio)


def _within_budget(raw: jax.Array, factor: jax.Array | float, masking: MaskingConfig) -> jax.Array:
  """The logits times `factor`, shifted so that `mask_ratio` holds where the budget says."""
  ratio = masking.mask_ratio
  if masking.budget == 'none':
    return factor * bound_logits(raw, LOGIT_BOUND) + jnp.log(ratio / (1 - ratio))
  logits = factor * bound_logits(centred(raw), LOGIT_BOUND)
  if masking.budget == 'tile':
    return logits + tile_budget_shift(logits, ratio, TILE)
  return logits + budget_shift(logits, ratio)


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


def each_round(
  forward: Callable[[Any, Any, jax.Array], tuple[Any, Any]],
  params: Any,
  batch_stats: Any,
  observations: jax.Array,
) -> tuple[Any, Any]:
  """The agent on the rounds of one worker, one at a time as in acting.

  All rounds in one batch would be another policy than the one that acted: batch norm makes it
  depend on the batch.

  Args:
    forward: (params, batch_stats, images [b, H, W, C]) -> (logits, values), new batch_stats.
    observations: [T, b, H, W, C].

  Returns:
    (logits, values), each [T, b, g, g], and the mean of the rounds' batch statistics.
  """
  rounds = [forward(params, batch_stats, images) for images in observations]
  maps, new_stats = jax.tree.map(lambda *arrays: jnp.stack(arrays), *rounds)
  return maps, jax.tree.map(lambda x: x.mean(0), new_stats)


def mean_over_workers(
  context: Context,
  params: Any,
  batch_stats: Any,
  terms_of: Callable[..., Any],
  rollouts: Rollout,
  *others: Any,
) -> tuple[Any, Any]:
  """What the agent, in training, makes of the rounds of all workers.

  Args:
    terms_of: (logits [T, b, g, g], values [T, b, g, g], rollout, *others) of one worker -> the
      terms of its loss, a pytree of scalars.
    rollouts, others: with a leading axis of workers.

  Returns:
    The means of the terms, and the new batch statistics.
  """
  forward = as_one_batch(context.agent)

  def of_worker(rollout, *others):
    (logits, values), new_stats = each_round(forward, params, batch_stats, rollout.observations)
    return terms_of(logits, values, rollout, *others), new_stats

  by_worker = jax.vmap(of_worker, out_axes=(0, None), axis_name=WORKERS)
  terms, new_stats = by_worker(rollouts, *others)
  return jax.tree.map(jnp.mean, terms), new_stats


def improved(
  context: Context,
  optimizer: optax.GradientTransformation,
  state: State,
  objective: Callable[[Any], tuple[jax.Array, tuple[Any, Any]]],
) -> tuple[State, Any]:
  """One step of an agent's optimizer, over all devices.

  Args:
    objective: parameters -> the loss of this device, (auxiliary output, new batch statistics).

  Returns:
    The state, its teacher as it was if it has one; and the auxiliary output.
  """
  gradients, (auxiliary, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(
    context.mean_over_devices(gradients), state.opt_state, state.params
  )
  return state._replace(
    params=optax.apply_updates(state.params, updates),
    batch_stats=context.mean_over_devices(batch_stats),
    opt_state=opt_state,
  ), auxiliary


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

  return Strategy(init, by_policy(context), stay, trunk_loader(context))


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

  losses = patch_losses(
    context.reconstruct(unet, flat(rollouts.masked)), flat(images), context.masking.patch_size
  )
  return losses.reshape(rollouts.losses.shape)
