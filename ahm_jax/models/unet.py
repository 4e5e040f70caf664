"""U-Net (Ronneberger, Fischer, Brox, 2015, arXiv 1505.04597), with batch normalisation and
padded convolutions.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.errors import UserError
from ahm_jax.models.convolution import per_pixel
from ahm_jax.models.heads import DiagnosisHead
from ahm_jax.models.layers import ConvNorm, add_bias, he_normal, max_pool

LEVELS = 5  # Resolutions: the input's, and four halvings.
# The diagnosis's layers, and its name among the blocks.
DIAGNOSIS = 'diagnosis'
RECONSTRUCTION = 'reconstruction'  # The same, of a second head.


class UNet(nn.Module):
  """Maps an image to `out_channels` numbers a pixel; 31,037,633 parameters at RGB input, width 64
  and one output channel.

  Its parameters are `encoder1` to `encoder5` (full resolution to 1/16, `width` to 16 x `width`
  channels), `up4` to `up1`, `decoder4` to `decoder1` (1/8 to full resolution), `head`, the only one
  whose shape depends on `out_channels`, and with diagnoses `diagnosis`.

  Attributes:
    out_channels: numbers at each pixel of the output.
    width: channels of the first level; each level down doubles them.
    dtype: what convolutions compute in. Parameters, batch statistics and the output are float32.
    axis_name: mapped axis over which batch statistics are taken together.
    diagnoses: how many the U-Net tells apart in an image as a whole; 0: it tells none.
    reconstructs: channels of images that a second head of it reconstructs; 0: there is none.
    recompute: keep only the inputs of the blocks for the gradient, and compute what is inside them
      once more.
  """

  out_channels: int = 1
  width: int = 64
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None
  recompute: bool = False
  diagnoses: int = 0
  reconstructs: int = 0

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each level's features."""
    return tuple(self.width * 2**level for level in range(LEVELS))

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    train: bool,
    scales: Sequence[jax.Array] | None = None,
    blocks: Sequence[str] = (),
  ) -> jax.Array | tuple[jax.Array, dict[str, jax.Array]]:
    """Runs the network.

    Args:
      x: normalised images [B, H, W, C]; any C, H and W multiples of 16.
      train: normalise with the statistics of this batch and move the running averages (collection
        'batch_stats', to be passed as mutable), instead of using those.
      scales: what the decoder gets of each channel of the encoder, [B, channels] for each level,
        from the first; None: all.
      blocks: names, such as 'encoder5' or 'decoder3', of those whose output is returned as well;
        DIAGNOSIS for that of a `DiagnosisHead`, RECONSTRUCTION for that of the second head.

    Returns:
      float32 [B, H, W, out_channels], not squashed; where blocks are named, a pair of it and of
      their outputs by name, each float32 [B, h, w, channels], the diagnosis's [B, diagnoses].

    Raises:
      UserError: H or W is not a multiple of 16.
    """
    factor = 2 ** (LEVELS - 1)
    if x.shape[1] % factor or x.shape[2] % factor:
      raise UserError(
        f'the U-Net cannot take images of {x.shape[1]}x{x.shape[2]} pixels; '
        f'make both multiples of {factor}'
      )

    outputs: dict[str, jax.Array] = {}
    block = nn.remat(TwoConvs, static_argnums=(1,)) if self.recompute else TwoConvs

    def convolve_twice(level, name, *inputs):
      features, name = self.widths[level - 1], f'{name}{level}'
      layers = block(features, dtype=self.dtype, axis_name=self.axis_name, name=name)
      outputs[name] = layers(train, *inputs)
      return outputs[name]

    skips = []
    for level in range(1, LEVELS):
      x = convolve_twice(level, 'encoder', x)
      skips.append(_scaled(x, scales, level))
      x = max_pool(x)
    x = _scaled(convolve_twice(LEVELS, 'encoder', x), scales, LEVELS)
    for level in range(LEVELS - 1, 0, -1):
      x = UpConvolution(self.widths[level - 1], dtype=self.dtype, name=f'up{level}')(x)
      x = convolve_twice(level, 'decoder', skips.pop(), x)

    def head(features, name):
      return nn.Conv(
        features, (1, 1), dtype=jnp.float32, conv_general_dilated=per_pixel, name=name
      )(x)

    pixels = head(self.out_channels, 'head')
    if self.reconstructs and (RECONSTRUCTION in blocks or self.is_initializing()):
      outputs[RECONSTRUCTION] = head(self.reconstructs, RECONSTRUCTION)
    if self.diagnoses and (DIAGNOSIS in blocks or self.is_initializing()):
      diagnosis = DiagnosisHead(self.diagnoses, name=DIAGNOSIS)
      outputs[DIAGNOSIS] = diagnosis(outputs[f'encoder{LEVELS}'], x, pixels)
    return (
      (pixels, {name: outputs[name].astype(jnp.float32) for name in blocks}) if blocks else pixels
    )


def _scaled(x: jax.Array, scales: Sequence[jax.Array] | None, level: int) -> jax.Array:
  return x if scales is None else x * scales[level - 1][:, None, None].astype(x.dtype)


class TwoConvs(nn.Module):
  """Two `ConvNorm` in a row, of inputs whose channels are joined: [B, H, W, C], ...

  -> [B, H, W, features].
  """

  features: int
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, train: bool, *inputs: jax.Array) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    for name in ('first', 'second'):
      x = ConvNorm(self.features, dtype=self.dtype, axis_name=self.axis_name, name=name)(x, train)
    return x


class UpConvolution(nn.Module):
  """Transposed convolution, 2x2 with stride 2: [B, H, W, C] -> [B, 2 H, 2 W, features].

  Every input pixel becomes a 2x2 block of its own, so this is a dense map to four pixels (kernel
  [C, 2, 2, features]) that are then laid out. On CPU a training step of the U-Net with
  `nn.ConvTranspose` takes 2.6 times as long.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, _ = x.shape
    blocks = nn.DenseGeneral(
      (2, 2, self.features), use_bias=False, kernel_init=he_normal, dtype=self.dtype, name='blocks'
    )(x)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    pixels = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, self.features)
    return add_bias(pixels, bias)
