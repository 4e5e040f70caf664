"""An agent that masks and learns: its state, its policy at work, a step of its optimizer."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from ahm_jax.masking.policy import policy_logits
from ahm_jax.masking.rollout import Proposal, Rollout
from ahm_jax.masking.strategy import WORKERS, Context, draw
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.layers import infer, init_variables
from ahm_jax.runtime.averages import Average
from ahm_jax.runtime.trees import replaced


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
  """The `load_trunk` of a strategy with an agent; None if the agent's trunk is not a VGG16's.

  Args:
    load: what it does; None: `with_trunk`.
  """
  return (load or with_trunk) if context.agent.trunk == 'vgg16' else None


def with_trunk(state: State, params: Any) -> State:
  """The first state with {'trunk': parameters} in place of the agent's own; the optimizer's state,
  zeros, suits them too.
  """
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
