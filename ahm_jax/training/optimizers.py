"""Optax chains and learning rate schedules, and how they move the state of a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import RecipeConfig
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import TrainState


def total_steps(recipe: RecipeConfig, examples: int) -> int:
  """Steps of a whole training over `examples` images: the recipe's steps or epochs, but
  min_epochs at least; whole steps.
  """
  steps_per_epoch = examples / recipe.batch_size
  steps = recipe.steps
  if steps is None:
    steps = round((recipe.epochs or 0) * steps_per_epoch)
  return max(1, steps, round(recipe.min_epochs * steps_per_epoch))


def schedule(recipe: RecipeConfig, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
  """The learning rate as a function of the number of steps done.

  rate(k) = learning_rate * decay(k) * min(1, k / (warmup * total_steps)), where decay(k) is 1 for
  'constant', (1 + cos(pi k / total_steps)) / 2 for 'cosine', and decay_rate ^ floor(k /
  (decay_epochs * steps_per_epoch)) for 'staircase'.

  Args:
    total_steps: length of the training; only 'cosine' and a warm-up look at it.
    steps_per_epoch: batches in one pass over the images, not necessarily whole; only 'staircase'
      looks at it.
  """
  match recipe.schedule:
    case 'cosine':
      decayed = optax.cosine_decay_schedule(recipe.learning_rate, total_steps)
    case 'staircase':
      interval = recipe.decay_epochs * steps_per_epoch
      decayed = optax.exponential_decay(
        recipe.learning_rate, interval, recipe.decay_rate, staircase=True
      )
    case _:
      decayed = optax.constant_schedule(recipe.learning_rate)
  if not recipe.warmup:
    return decayed
  return lambda count: decayed(count) * jnp.minimum(1, count / (recipe.warmup * total_steps))


@dataclass(frozen=True)
class Optimizer:
  """How a training updates parameters; equal for trainings that update them alike.

  Attributes:
    total_steps, steps_per_epoch: as `schedule` takes them; 0 where it does not look at them.
  """

  recipe: RecipeConfig
  total_steps: int
  steps_per_epoch: float

  def transformation(self) -> optax.GradientTransformation:
    """Clipping by global norm where the recipe asks for it, then Adam or AdamW under the recipe's
    schedule.
    """
    recipe = self.recipe
    rate = schedule(recipe, self.total_steps, self.steps_per_epoch)
    adam = (
      optax.adamw(rate, weight_decay=recipe.weight_decay)
      if recipe.optimizer == 'adamw'
      else optax.adam(rate)
    )
    return optax.chain(optax.clip_by_global_norm(recipe.clip), adam) if recipe.clip else adam


def optimizer(recipe: RecipeConfig, total_steps: int, steps_per_epoch: float) -> Optimizer:
  """That of a training of this length."""
  looks_at_length = recipe.schedule == 'cosine' or recipe.warmup > 0
  looks_at_epochs = recipe.schedule == 'staircase'
  return Optimizer(
    recipe, total_steps if looks_at_length else 0, steps_per_epoch if looks_at_epochs else 0
  )


def first_state(
  transformation: optax.GradientTransformation, variables: Mapping[str, Any], extra: Any = ()
) -> TrainState:
  """That before the first step, of a network's fresh 'params' and, with norms, 'batch_stats'."""
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables.get('batch_stats', {}),
    opt_state=transformation.init(params),
    extra=extra,
  )


def descend(
  transformation: optax.GradientTransformation,
  state: TrainState,
  gradients: Any,
  batch_stats: Any,
) -> TrainState:
  """The state after a step, with its `extra` as it was; under an axis of devices named DEVICES.

  Args:
    gradients, batch_stats: by this device's share of the batch; their means over devices count.
  """
  gradients, batch_stats = lax.pmean((gradients, batch_stats), DEVICES)
  updates, opt_state = transformation.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, batch_stats, opt_state, state.extra)
