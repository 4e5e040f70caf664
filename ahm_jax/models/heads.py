"""Small networks on the features of others."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.models.layers import add_bias, he_normal


class PixelHead(nn.Module):
  """Dense, ReLU, dense at every position by itself: [..., C] -> float32 [..., features].

  As wide inside as its input. Sums over positions, of the biases' gradients, are float32.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    hidden = nn.relu(self._dense(x, x.shape[-1], 'hidden'))
    return self._dense(hidden, self.features, 'output').astype(jnp.float32)

  def _dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
    dense = nn.Dense(features, False, kernel_init=he_normal, dtype=self.dtype, name=name)
    return add_bias(dense(x), self.param(f'{name}_bias', nn.initializers.zeros, (features,)))
