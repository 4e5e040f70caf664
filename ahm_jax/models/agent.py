"""The agent: it looks at an image and gives every patch a logit (mask it?) and a value (what
reward to expect there).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.errors import UserError
from ahm_jax.models.convolution import per_pixel
from ahm_jax.models.inputs import OWN
from ahm_jax.models.layers import ConvNorm, max_pool
from ahm_jax.models.vgg16 import VGG16Trunk

NEAR_ZERO = 1e-4  # Variance of the last layer's first weights, times their number.
PYTORCH_VARIANCE = 1 / 3  # The same of a layer of PyTorch's.


class Agent(nn.Module):
  """A trunk down to one pixel a patch, then a policy head and a value head of the same form.

  Attributes:
    trunk: 'vgg16': conv1_1 to conv3_3, then max pools. 'light': strided convolutions, and narrower
      heads for small patches; the whole agent then takes less than 5 % of the operations of a U-Net
      of the same width.
    width: channels of the trunk's first level; heads have four times as many, or less for 'light'
      and small patches.
    patch_size: side of a patch in pixels; 4, 8, 16 or 32.
    modalities: that have patches of their own; 1: all together have one.
    input: what a trunk 'vgg16' sees, one of `inputs.SCALINGS`.
    dtype: what convolutions compute in. Parameters, batch statistics and outputs are float32.
    output_variance: of the first weights of the heads' last layers, times their number.
    axis_name: mapped axis over which batch statistics are taken together.
  """

  trunk: str = 'vgg16'
  width: int = 64
  patch_size: int = 16
  modalities: int = 1
  input: str = OWN
  output_variance: float = NEAR_ZERO
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Runs the agent.

    Args:
      x: normalised images [B, H, W, C], H and W multiples of patch_size.
      train: normalise with the statistics of this batch and move the running averages (collection
        'batch_stats', to be passed as mutable), instead of using those.

    Returns:
      Logits and values, float32 [B, H / patch_size, modalities W / patch_size], one modality beside
      the other; not bounded, with NEAR_ZERO near zero before training.

    Raises:
      UserError: H or W is not a multiple of patch_size.
    """
    if x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
      raise UserError(
        f'patches of {self.patch_size} pixels do not tile images of {x.shape[1]}x{x.shape[2]}; '
        'make both sides multiples of the patch size'
      )
    halvings = int(math.log2(self.patch_size))
    if self.trunk == 'vgg16':
      trunk = VGG16Trunk(
        stages=3, width=self.width, input=self.input, dtype=self.dtype, name='trunk'
      )
      x = trunk(x)
      for _ in range(halvings - 2):
        x = max_pool(x)
      head_width = 4 * self.width
    else:
      x = LightTrunk(halvings, self.width, self.dtype, self.axis_name, name='trunk')(x, train)
      head_width = min(4, self.patch_size // 4) * self.width
    head = functools.partial(
      Head,
      head_width,
      outputs=self.modalities,
      output_variance=self.output_variance,
      dtype=self.dtype,
      axis_name=self.axis_name,
    )
    # The budget would take a bias of the logits out again.
    return head(bias=False, name='policy')(x, train), head(name='value')(x, train)


class LightTrunk(nn.Module):
  """3x3 convolutions of stride 2, one for every halving: [B, H, W, C] -> [B, H / 2^halvings, W /
  2^halvings, channels].
  """

  halvings: int
  width: int = 64
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for level in range(1, self.halvings + 1):
      features = min(4, 2 ** (level - 1)) * self.width
      x = ConvNorm(
        features, strides=2, dtype=self.dtype, axis_name=self.axis_name, name=f'level{level}'
      )(x, train)
    return x


class Head(nn.Module):
  """Three `ConvNorm` and a 1x1 convolution to so many numbers a patch: [B, g, g, C] -> float32 [B,
  g, outputs g], one map beside the other.
  """

  features: int
  outputs: int = 1
  bias: bool = True
  output_variance: float = NEAR_ZERO
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for name in ('first', 'second', 'third'):
      x = ConvNorm(self.features, dtype=self.dtype, axis_name=self.axis_name, name=name)(x, train)
    first = nn.initializers.variance_scaling(self.output_variance, 'fan_in', 'normal')
    output = {
      'kernel_init': first,
      'dtype': jnp.float32,
      'conv_general_dilated': per_pixel,
      'name': 'output',
    }
    maps = nn.Conv(self.outputs, (1, 1), use_bias=self.bias, **output)(x)
    if self.outputs == 1:
      return maps[..., 0]
    batch, rows, columns, _ = maps.shape
    return maps.swapaxes(-2, -1).reshape(batch, rows, self.outputs * columns)
