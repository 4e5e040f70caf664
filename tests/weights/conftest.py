import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.models.layers import variable_shapes
from ahm_jax.runtime import trees

SIZE = 32


@pytest.fixture(scope='session')
def draw():
  """draw(network, shape): random variables of He's scale, none of them 0 or 1, running
  statistics too.
  """

  def drawn(network, shape):
    generator = np.random.default_rng(3)
    found = {}
    for name, leaf in trees.flatten(variable_shapes(network, shape)).items():
      if name.endswith(('scale', 'var')):
        found[name] = generator.uniform(0.5, 1.5, leaf.shape)
      elif len(leaf.shape) == 1:
        found[name] = generator.normal(0, 0.3, leaf.shape)
      else:
        found[name] = generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
    return trees.unflatten({name: array.astype(np.float32) for name, array in found.items()})

  return drawn


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
