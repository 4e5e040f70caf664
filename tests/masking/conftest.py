"""A small agent, the rollouts it learns from, and one lesson of any strategy, for the tests of
this folder.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import registry
from ahm_jax.masking.patches import side_by_side
from ahm_jax.masking.rollout import Rollout, rollout
from ahm_jax.masking.strategy import WORKERS, Context, Strategy


class TinyAgent(nn.Module):
  """The interface of ahm_jax.models.agent.Agent with a handful of weights.

  No bias where it could not matter: before batch norm, and under the policy map, which is centred
    later.
  """

  trunk: str = 'tiny'
  patch_size: int = 4
  width: int = 4
  modalities: int = 1
  output_variance: float = 1.0

  @nn.compact
  def __call__(self, x, train: bool):
    def block(x, kernel, stride=1):
      x = nn.Conv(self.width, (kernel, kernel), (stride, stride), use_bias=False)(x)
      return nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))

    features = block(x, self.patch_size, self.patch_size)
    first = nn.initializers.variance_scaling(self.output_variance, 'fan_in', 'normal')
    outputs = self.modalities, (1, 1)
    logits = nn.Conv(*outputs, use_bias=False, kernel_init=first, name='policy')(block(features, 3))
    values = nn.Conv(*outputs, name='value')(block(features, 3))
    return tuple(side_by_side(jnp.moveaxis(maps, -1, 1)) for maps in (logits, values))


@pytest.fixture(scope='session')
def tiny_agent():
  return TinyAgent


# Stands for a U-Net's variables.
UNET = {
  'params': jnp.float32(0.5),
  'batch_stats': jnp.float32(0.0),
}
# And for those that a teacher starts from.
FIRST_UNET = {
  'params': jnp.float32(0.3),
  'batch_stats': jnp.float32(0.1),
}


def reconstruct(variables, masked):
  """Stands for a U-Net in inference."""
  return variables['params'] * jnp.roll(masked, 3, axis=2) + variables['batch_stats']


@pytest.fixture(scope='session')
def unet():
  return UNET


@pytest.fixture(scope='session')
def first_unet():
  return FIRST_UNET


@pytest.fixture(scope='session')
def build():
  """build(**masking fields) -> (strategy, its masking config), with patches of 4 pixels."""

  def build(**fields):
    masking = MaskingConfig(**{'patch_size': 4, 'mask_ratio': 0.6, 'workers': 2, **fields})
    return registry.build(Context(masking, TinyAgent(), reconstruct, lambda tree: tree)), masking

  return build


@pytest.fixture(scope='session')
def images():
  """Normalised images of 2 workers: [K, b, H, W, C] = [2, 3, 16, 16, 2], a grid of 4 x 4
  patches.
  """
  return jax.random.normal(jax.random.key(7), (2, 3, 16, 16, 2), jnp.float32)


@pytest.fixture(scope='session')
def play():
  """play(strategy, masking, state, images, key, progress=0.5) -> rollouts of all workers, [K, T, b,
  ...], as in a step.

  The U-Net sees everything brighter by 0.25.
  """

  def blur(carry, masked):
    return jnp.tanh(masked + jnp.roll(masked, 3, axis=2)), (), carry

  def play(strategy, masking, state, images, key, progress=0.5):
    def work(images, key):
      def propose(observation, round_key):
        return strategy.propose(state, observation, round_key, progress, True)

      fields = {
        'patch_size': masking.patch_size,
        'rounds': masking.rounds,
        'distort': lambda seen: seen + 0.25,
      }
      return rollout(images, key, propose, blur, None, **fields)[0]

    keys = jax.random.split(key, images.shape[0])
    return jax.jit(jax.vmap(work, axis_name=WORKERS))(images, keys)

  return play


@pytest.fixture(scope='session')
def start(images):
  """start(strategy) -> its fresh state.

  Made once for all whose states have the same structure, since that is slow.
  """
  states = {}

  def start(strategy):
    arguments = (jax.random.key(0), images[0, :1], FIRST_UNET)
    structure = jax.tree.structure(jax.eval_shape(strategy.init, *arguments))
    if structure not in states:
      states[structure] = jax.jit(strategy.init)(*arguments)
    return states[structure]

  return start


class Lesson(NamedTuple):
  """One round of acting and learning from a fresh state."""

  strategy: Strategy
  masking: MaskingConfig
  state: Any
  rollouts: Rollout  # [K, T, b, ...]
  learnt: Any
  metrics: dict


@pytest.fixture(scope='session')
def lesson(build, images, play, start):
  """lesson(**masking fields) -> Lesson at progress 0.5, made once for each choice of fields."""

  @functools.cache
  def lesson(**fields):
    strategy, masking = build(**fields)
    state = start(strategy)
    rollouts = play(strategy, masking, state, images, jax.random.key(1))
    return Lesson(
      strategy, masking, state, rollouts, *jax.jit(strategy.learn)(state, rollouts, UNET, 0.5)
    )

  return lesson


@pytest.fixture(scope='session')
def leaves():
  """leaves(tree) -> its arrays by path."""

  def leaves(tree):
    return {
      jax.tree_util.keystr(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }

  return leaves


@pytest.fixture(scope='session')
def first_gradient():
  """first_gradient(state) -> the gradient of the first step: Adam's first moment after it is (1
  - 0.9) times that.
  """

  def first_gradient(state):
    return jax.tree.map(
      lambda moment: moment / 0.1, optax.tree_utils.tree_get(state.opt_state, 'mu')
    )

  return first_gradient
