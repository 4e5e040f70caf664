"""A small agent and the rollouts it learns from, for the tests of this folder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ahm_jax.config import MaskingConfig
from ahm_jax.masking import strategies


class TinyAgent(nn.Module):
  """The interface of ahm_jax.models.agent.Agent with a handful of weights.

  No bias where it could not matter: before batch norm, and under the policy map, which is centred later.
  """

  patch_size: int = 4
  width: int = 4

  @nn.compact
  def __call__(self, x, train: bool):
    def block(x, kernel, stride=1):
      x = nn.Conv(self.width, (kernel, kernel), (stride, stride), use_bias=False)(x)
      return nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))

    trunk = block(x, self.patch_size, self.patch_size)
    logits = nn.Conv(1, (1, 1), use_bias=False, name='policy')(block(trunk, 3))
    values = nn.Conv(1, (1, 1), name='value')(block(trunk, 3))
    return logits[..., 0], values[..., 0]


@pytest.fixture(scope='session')
def tiny_agent():
  return TinyAgent


@pytest.fixture(scope='session')
def build():
  """build(**masking fields) -> (strategy, its masking config), with patches of 4 pixels."""

  def build(**fields):
    masking = MaskingConfig(**{'patch_size': 4, 'mask_ratio': 0.6, 'workers': 2, **fields})
    context = strategies.Context(masking=masking, agent=TinyAgent(), reconstruct=None, mean_over_devices=lambda tree: tree)
    return strategies.build(context), masking

  return build


@pytest.fixture(scope='session')
def images():
  """Normalised images of 2 workers: [K, b, H, W, C] = [2, 3, 16, 16, 2], a grid of 4 x 4 patches."""
  return jax.random.normal(jax.random.key(7), (2, 3, 16, 16, 2), jnp.float32)
