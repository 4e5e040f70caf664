import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def draw_variables():
  """draw_variables(model, x): random variables of He's scale, none of them 0 or 1, without
  compiling the model's own draw.
  """

  def draw(model, x):
    generator = np.random.default_rng(1)

    def fill(leaf):
      if len(leaf.shape) == 1:
        return 0.1 + generator.random(leaf.shape, np.float32)
      fan_in = math.prod(leaf.shape[:-1])
      return generator.standard_normal(leaf.shape, np.float32) * math.sqrt(2 / fan_in)

    shapes = jax.eval_shape(
      functools.partial(model.init, train=False), jax.random.key(0), jnp.asarray(x)
    )
    return jax.tree.map(lambda leaf: jnp.asarray(fill(leaf), leaf.dtype), shapes)

  return draw
