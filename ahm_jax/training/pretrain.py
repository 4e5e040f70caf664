"""Pre-training: a strategy hides patches, the U-Net repairs them, the strategy is told how hard
that was.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ahm_jax.config import AugmentConfig, Config, MaskingConfig, ModelConfig, recipe
from ahm_jax.data.augment import (
  augment_batch,
  denormalise,
  geometry_only,
  normalise,
  recolour_batch,
)
from ahm_jax.data.dataset import Split
from ahm_jax.errors import UserError
from ahm_jax.evaluation.agent import learning_metrics
from ahm_jax.masking import actor_critic, registry
from ahm_jax.masking.rollout import rollout
from ahm_jax.masking.strategy import WORKERS, Context, Strategy
from ahm_jax.masking.workers import as_one_batch
from ahm_jax.models.agent import Agent
from ahm_jax.models.layers import init_variables
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.runtime.trees import replaced
from ahm_jax.task import Batch, Task, TrainState
from ahm_jax.training.optimizers import optimizer

VALIDATION_IMAGES = 32  # At most so many held-out images are repaired at each validation.
POLICY_DRAWS = 8  # Of a strategy whose probabilities depend on a draw of its own.
SNAPSHOT_IMAGES = 4  # Of so many of them the policy is kept at each validation.


class Networks(NamedTuple):
  unet: UNet
  strategy: Strategy


@functools.cache
def networks(model: ModelConfig, masking: MaskingConfig, channels: int) -> Networks:
  """The U-Net and the masking strategy.

  The same objects for the same arguments, so that runs share compiled programs.
  """
  # All workers' images are one batch to both networks, see `as_one_batch`.
  common = {
    'dtype': jnp.dtype(model.dtype),
    'axis_name': DEVICES if model.sync_batch_norm else None,
  }
  unet = UNet(out_channels=channels, width=model.unet_width, recompute=model.recompute, **common)
  agent = Agent(
    trunk=model.agent_trunk, width=model.agent_width, patch_size=masking.patch_size, **common
  )
  context = Context(
    masking=masking,
    agent=agent,
    reconstruct=functools.partial(unet.apply, train=False),
    mean_over_devices=lambda tree: lax.pmean(tree, DEVICES),
  )
  return Networks(unet, registry.build(context))


def check_workers(workers: int, batch_size: int, devices: int) -> None:
  """Makes sure that workers have the same number of images, and devices the same number of workers.

  Raises:
    UserError: they cannot.
  """
  if batch_size % workers:
    raise UserError(
      f'config.masking.workers is {workers}, which does not divide the batch_size of {batch_size}; '
      'every worker has the same number of images'
    )
  if workers % devices:
    raise UserError(
      f'config.masking.workers is {workers}, which {devices} devices cannot share evenly; make it a multiple of {devices}'
    )


def build(
  config: Config, validation: Split, steps: int, steps_per_epoch: float, foreign: Any = None
) -> Task:
  """The pre-training task.

  Args:
    validation: held-out images; the first VALIDATION_IMAGES of them are repaired at each
      validation.
    steps: length of the whole training, which the easing-in and the learning rate schedule run
      over.
    steps_per_epoch: batches in one pass over the images.
    foreign: {'params': {'trunk': ...}} of a VGG16 that was trained elsewhere, for the agent to
      start from; or None.
  """
  training = recipe(config, 'pretrain')
  nets = networks(config.model, config.masking, config.data.channels)
  tx = optimizer(training, steps, steps_per_epoch)
  held_out = validation.take(range(min(VALIDATION_IMAGES, len(validation))))

  def init(key):
    unet_key, strategy_key = jax.random.split(key)
    side = config.data.image_size
    sample = jnp.zeros((1, side, side, config.data.channels))
    variables = init_variables(nets.unet, unet_key, sample.shape)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=tx.init(variables['params']),
      extra=_with_trunk(nets.strategy.init(strategy_key, sample, variables), foreign),
    )

  def evaluate(state):
    if not len(held_out):
      return {'score': 0.0}
    metrics = learning_metrics(nets, state, held_out, config.masking)
    return {**metrics, 'score': -metrics['uniform_loss']}

  def snapshot(state):
    """The policy over some held-out images as it is at this step of the easing-in, [n, g, g]."""
    images = held_out.images[:SNAPSHOT_IMAGES]
    return {'policy': policy_maps(nets.strategy, state.extra, images, state.step / steps)}

  return Task(
    name='pretrain',
    init=init,
    step=make_step(nets, tx, config.masking, training.augment, steps),
    evaluate=evaluate,
    keep_best=False,
    shown='uniform_loss',
    snapshot=snapshot if len(held_out) else None,
  )


def has_vgg_trunk(config: Config) -> bool:
  """Whether the strategy of a config has an agent with the trunk of a VGG16."""
  nets = networks(config.model, config.masking, config.data.channels)
  shape = (1, config.data.image_size, config.data.image_size, config.data.channels)

  def init(key):
    return nets.strategy.init(key, jnp.zeros(shape), init_variables(nets.unet, key, shape))

  agent = jax.eval_shape(init, jax.random.key(0))
  return 'conv1_1' in getattr(agent, 'params', {}).get('trunk', {})


def _with_trunk(state: Any, foreign: Any) -> Any:
  """A strategy's first state with a trunk from elsewhere.

  Adam's zeros will do. A teacher starts as its agent does.
  """
  if foreign is None:
    return state
  teacher = getattr(state, 'teacher', None)
  if teacher is not None and 'trunk' in teacher.value['params']:
    state = state._replace(teacher=teacher._replace(value=replaced(teacher.value, foreign)))
  return state._replace(params=replaced(state.params, foreign['params']))


@functools.partial(jax.jit, static_argnums=0)
def policy_maps(
  strategy: Strategy, state: Any, images: jax.Array, progress: jax.Array
) -> jax.Array:
  """Each patch's probability of being hidden, [N, g, g], on uint8 images [N, S, S, C].

  The mean over draws if it is drawn.
  """
  keys = jax.random.split(jax.random.key(0), POLICY_DRAWS)
  draws = [
    strategy.propose(state, normalise(images / 255.0), key, progress, False).probability
    for key in keys
  ]
  return jnp.mean(jnp.stack(draws), 0)


@functools.cache
def make_step(
  nets: Networks,
  tx: optax.GradientTransformation,
  masking: MaskingConfig,
  augmentation: AugmentConfig,
  steps: int,
):
  """The pure pre-training step over one device's share of the batch.

  It runs under an axis of devices named DEVICES.
  """
  repair = as_one_batch(nets.unet)

  def step(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    progress = state.step / steps
    augment_key, masking_key = jax.random.split(key)
    images, positions = _workers(batch, augment_key, masking, augmentation)
    workers_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(masking_key, positions[:, 0])

    def propose(observation, round_key):
      return nets.strategy.propose(state.extra, observation, round_key, progress, True)

    def objective(params):
      def reconstruct(batch_stats, masked):
        return repair(params, batch_stats, masked)

      def work(images, positions, key):
        def distort(observation):
          if not masking.restore_colour:
            return observation
          return normalise(
            recolour_batch(augment_key, denormalise(observation), positions, augmentation)
          )

        done, batch_stats = rollout(
          images,
          key,
          propose,
          reconstruct,
          state.batch_stats,
          patch_size=masking.patch_size,
          fill_value=masking.fill_value,
          rounds=masking.rounds,
          distort=distort,
        )
        return actor_critic.reconstruction_loss(done.losses, done.hidden), done, batch_stats

      losses, rollouts, batch_stats = jax.vmap(work, out_axes=(0, 0, None), axis_name=WORKERS)(
        images, positions, workers_keys
      )
      return losses.mean(), (lax.stop_gradient(rollouts), batch_stats)

    (loss, (rollouts, batch_stats)), gradients = jax.value_and_grad(objective, has_aux=True)(
      state.params
    )
    gradients, batch_stats = lax.pmean((gradients, batch_stats), DEVICES)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    variables = {'params': params, 'batch_stats': batch_stats}
    extra, strategy_metrics = nets.strategy.learn(state.extra, rollouts, variables, progress)
    metrics = {
      'loss': loss,
      'mask_ratio': rollouts.hidden.mean(),
      'policy_spread': rollouts.probability.std((-2, -1)).mean(),
      **strategy_metrics,
    }
    return TrainState(state.step + 1, params, batch_stats, opt_state, extra), lax.pmean(
      metrics, DEVICES
    )

  return step


def _workers(
  batch: Batch, key: jax.Array, masking: MaskingConfig, augmentation: AugmentConfig
) -> tuple[jax.Array, jax.Array]:
  """Augmented, normalised images [workers here, images a worker, H, W, C], and their positions in
  the global batch.

  Where colours are to be restored, images are only moved: their colours are what the U-Net repairs
    towards.
  """
  if masking.restore_colour:
    augmentation = geometry_only(augmentation)
  images, _ = augment_batch(key, batch.images, batch.masks, batch.positions, augmentation)
  workers = masking.workers // lax.axis_size(DEVICES)
  return normalise(images).reshape(workers, -1, *images.shape[1:]), batch.positions.reshape(
    workers, -1
  )
