"""Pre-training: a strategy masks patches, the U-Net reconstructs them, and how hard that was is the
strategy's reward. What else may be asked of the U-Net is in `ahm_jax.training.features`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ahm_jax.config import PRETRAIN, Config
from ahm_jax.data.augment import for_data
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation.agent import learning_metrics
from ahm_jax.masking.held_out import policy_maps
from ahm_jax.masking.networks import Joined, networks, strategy_state
from ahm_jax.masking.strategy import learn_nothing
from ahm_jax.models.layers import init_variables
from ahm_jax.task import Task
from ahm_jax.training.features import FeatureLosses
from ahm_jax.training.optimizers import first_state, optimizer
from ahm_jax.training.pretrain_step import PretrainStep

VALIDATION_IMAGES = 32  # At most so many held-out images are reconstructed at each validation.
SNAPSHOT_IMAGES = 4  # Of so many of them the policy is kept at each validation.


def check_workers(workers: int, batch_size: int, devices: int, section: str = 'masking') -> None:
  """Makes sure that workers have the same number of images, and devices the same number of workers.

  Args:
    section: of the config, that says how many workers there are.

  Raises:
    UserError: they cannot.
  """
  if batch_size % workers:
    raise UserError(
      f'config.{section}.workers is {workers}, which does not divide the batch_size of '
      f'{batch_size}; every worker has the same number of images'
    )
  if workers % devices:
    raise UserError(
      f'config.{section}.workers is {workers}, which {devices} devices cannot share evenly; '
      f'make it a multiple of {devices}'
    )


def check_reward(config: Config) -> None:
  """Raises a UserError where a strategy is to learn from the loss of patches, and no term of the
  objective has one.
  """
  recipe = config.pretrain
  learns = networks(config).strategy.learn is not learn_nothing
  if learns and not (recipe.pixels or recipe.features):
    raise UserError(
      f'config.masking.strategy is {config.masking.strategy}, which learns from the loss of single '
      'patches, and config.pretrain.contrast alone has none; give config.pretrain.pixels or '
      'config.pretrain.features a weight'
    )


def build(
  config: Config, validation: Split, steps: int, steps_per_epoch: float, foreign: Any = None
) -> Task:
  """The pre-training task.

  Args:
    validation: held-out images; the first VALIDATION_IMAGES of them are reconstructed at each
      validation.
    steps: length of the whole training, which the mask warm-up and the learning rate schedule run
      over.
    steps_per_epoch: batches in one pass over the images.
    foreign: {'params': {'trunk': ...}} of a VGG16 that was trained elsewhere, for the agent to
      start from, or None; a strategy without such a trunk takes nothing of it.
  """
  training = config.pretrain
  nets = networks(config)
  updates = optimizer(training, steps, steps_per_epoch)
  others = FeatureLosses(nets.unet, training, updates)
  step = PretrainStep(
    nets,
    updates,
    for_data(training.augment, config.data),
    steps,
    training.pixels,
    others if training.features or training.contrast else None,
  )
  held_out = validation.take(range(min(VALIDATION_IMAGES, len(validation))))

  def init(key):
    unet_key, strategy_key = jax.random.split(key)
    side = config.data.image_size
    sample = jnp.zeros((1, side, side, config.data.depth))
    variables = init_variables(nets.unet, unet_key, sample.shape)
    extra = nets.strategy.init(strategy_key, sample, variables)
    if foreign is not None and nets.strategy.load_trunk:
      extra = nets.strategy.load_trunk(extra, foreign['params'])
    if step.others:
      extra = Joined(extra, step.others.init(jax.random.fold_in(key, 1), variables))
    return first_state(step.optimizer.transformation(), variables, extra)

  def evaluate(state):
    if not len(held_out):
      return {'score': 0.0}
    metrics = learning_metrics(nets, state, held_out)
    return {**metrics, 'score': -metrics['uniform_loss']}

  def snapshot(state):
    """The policy over some held-out images as it is at this step of the mask warm-up, [n, g, g]."""
    images = held_out.images[:SNAPSHOT_IMAGES]
    return {'policy': policy_maps(nets, strategy_state(state), images, state.step / steps)}

  return Task(
    name=PRETRAIN,
    init=init,
    step=step,
    evaluate=evaluate,
    keep_best=False,
    shown='uniform_loss',
    snapshot=snapshot if len(held_out) else None,
  )
