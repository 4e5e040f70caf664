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


class DiagnosisHead(nn.Module):
  """Logits of the diagnoses of an image, from what a segmentation's U-Net computes for its masks.

  Its input is the mean of the deepest features over the image, and that of the last ones over the
  lesion; what is learnt here does not move the mask. Pooling, a dense layer, ReLU, a dense layer.
  Of its parameters `log_variances`, of masks and diagnosis, are for a training's losses alone.

  Attributes:
    diagnoses: how many.
    hidden: width of the layer between.
  """

  diagnoses: int
  hidden: int = 128

  @nn.compact
  def __call__(self, deep: jax.Array, last: jax.Array, pixels: jax.Array) -> jax.Array:
    """Of a batch.

    Args:
      deep: [B, h, w, C].
      last: [B, H, W, c].
      pixels: the logits of masks, [B, H, W, 1] of lesion or [B, H, W, K + 1] of background first.

    Returns:
      float32 [B, diagnoses].
    """
    self.param('log_variances', nn.initializers.zeros, (2,))
    deep, last = deep.astype(jnp.float32), last.astype(jnp.float32)
    lesion = jax.lax.stop_gradient(lesion_probability(pixels))[..., None]
    within = (last * lesion).sum((1, 2)) / (lesion.sum((1, 2)) + 1)
    pooled = jnp.concatenate([deep.mean((1, 2)), within], -1)
    hidden = nn.relu(nn.Dense(self.hidden, kernel_init=he_normal, name='hidden')(pooled))
    return nn.Dense(self.diagnoses, kernel_init=he_normal, name='output')(hidden)


def lesion_probability(pixels: jax.Array) -> jax.Array:
  """That of not being background, [..., H, W], of logits [..., H, W, 1] or [..., H, W, K + 1]."""
  if pixels.shape[-1] == 1:
    return jax.nn.sigmoid(pixels[..., 0])
  return 1 - jax.nn.softmax(pixels)[..., 0]
