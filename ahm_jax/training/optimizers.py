"""Optax chains and learning rate schedules."""

import functools

import jax.numpy as jnp
import optax

from ahm_jax.config import RecipeConfig


def total_steps(recipe: RecipeConfig, examples: int) -> int:
  """Steps of a whole training over `examples` images: the recipe's steps or epochs, but
  min_epochs at least; whole steps.
  """
  steps_per_epoch = examples / recipe.batch_size
  steps = round(recipe.epochs * steps_per_epoch) if recipe.steps is None else recipe.steps
  return max(1, steps, round(recipe.min_epochs * steps_per_epoch))


def schedule(
  recipe: RecipeConfig, total_steps: int | None, steps_per_epoch: float | None
) -> optax.Schedule:
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


def optimizer(
  recipe: RecipeConfig, total_steps: int, steps_per_epoch: float
) -> optax.GradientTransformation:
  """Clipping by global norm where the recipe asks for it, then Adam or AdamW under the recipe's
  schedule.

  Lengths that one recipe trains alike with give the same object, so that their runs share compiled
  steps.
  """
  looks_at_length = recipe.schedule == 'cosine' or recipe.warmup > 0
  looks_at_epochs = recipe.schedule == 'staircase'
  return _optimizer(
    recipe, total_steps if looks_at_length else None, steps_per_epoch if looks_at_epochs else None
  )


@functools.cache
def _optimizer(
  recipe: RecipeConfig, total_steps: int | None, steps_per_epoch: float | None
) -> optax.GradientTransformation:
  rate = schedule(recipe, total_steps, steps_per_epoch)
  adam = (
    optax.adamw(rate, weight_decay=recipe.weight_decay)
    if recipe.optimizer == 'adamw'
    else optax.adam(rate)
  )
  return optax.chain(optax.clip_by_global_norm(recipe.clip), adam) if recipe.clip else adam
