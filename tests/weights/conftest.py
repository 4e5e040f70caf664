from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import Config, DataConfig, MaskingConfig, ModelConfig
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import trees
from ahm_jax.weights import loading

SIZE = 32


@pytest.fixture(scope='session')
def draw():
  """draw(network, shape): random variables of He's scale, none of them 0 or 1, running
  statistics too.
  """

  def drawn(network, shape):
    generator = np.random.default_rng(3)
    found = {}
    for name, leaf in trees.flatten(loading.expected(network, shape)).items():
      if name.endswith(('scale', 'var')):
        found[name] = generator.uniform(0.5, 1.5, leaf.shape)
      elif len(leaf.shape) == 1:
        found[name] = generator.normal(0, 0.3, leaf.shape)
      else:
        found[name] = generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
    return trees.unflatten({name: array.astype(np.float32) for name, array in found.items()})

  return drawn


@pytest.fixture(scope='session')
def make_trained(draw):
  """make_trained(stage, classes=(), channels=3): what might have been trained."""

  def make(stage='segment', classes=(), channels=3):
    config = Config(
      data=DataConfig(
        name='folder', root='.', image_size=SIZE, channels=channels, mask_classes=classes
      ),
      model=ModelConfig(unet_width=2, vgg_width=2, vgg_hidden=8, dtype='bfloat16', recompute=True),
      masking=MaskingConfig(patch_size=8),
    )
    bare = Trained(
      Path('run'), stage, config, 7, None, ('benign', 'malignant') if stage == 'classify' else ()
    )
    return Trained(
      bare.path, stage, config, 7, draw(bare.network, (1, *bare.shape)), bare.class_names
    )

  return make


@pytest.fixture(scope='session')
def outputs():
  """outputs(network, variables, images float32 [B, H, W, C]) -> float32 NumPy array."""

  def run(network, variables, images):
    return np.asarray(
      jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, jnp.asarray(images))
    )

  return run


@pytest.fixture(scope='session')
def images():
  """float32 [3, 32, 32, 3], as normalised images are."""
  return np.random.default_rng(0).uniform(-2, 2, (3, SIZE, SIZE, 3)).astype(np.float32)
