"""VGG16 (Simonyan and Zisserman, 2015, arXiv 1409.1556, configuration D): a classifier, and a trunk
for other networks.

The paper's has no normalisation. With `norm='batch'` it is torchvision's vgg16_bn, without the
biases of its convolutions, which batch normalisation would take out again.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.models.inputs import OWN, rescaled
from ahm_jax.models.layers import Conv, ConvNorm, he_normal, max_pool

# Of each stage: its channels, in widths, and its convolutions.
STAGES = (
  (1, 2),
  (2, 2),
  (4, 3),
  (8, 3),
  (8, 3),
)
DROPOUT = 0.5  # After each hidden layer of the classifier, as in the paper.


class VGG16(nn.Module):
  """Maps an image to class scores; 138,357,544 parameters at 1000 classes, 224x224 RGB and the
  default sizes.

  Attributes:
    num_classes: number of scores.
    width: channels of the first stage.
    hidden: width of the two hidden dense layers.
    head: what the hidden layers see. 'classic': every position of the last feature map (the paper;
      the image's size is then fixed by the parameters). 'pooled': its mean over positions, which
      suits any size.
    norm: after each convolution, '' (nothing) or 'batch'.
    input: what the first convolution sees, one of `inputs.SCALINGS`.
    dtype: what the layers compute in. Parameters, batch statistics and scores are float32.
    axis_name: mapped axis over which batch statistics are taken together.
  """

  num_classes: int
  width: int = 64
  hidden: int = 4096
  head: str = 'classic'
  norm: str = ''
  input: str = OWN
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
    """Runs the network.

    Args:
      x: normalised images [B, H, W, C], H and W at least 16.
      train: drop half of the hidden units at random; with batch normalisation, normalise with the
        statistics of this batch and move the running averages (collection 'batch_stats', to be
        passed as mutable), instead of using those.
      keys: random keys [B], one an image, which decide in training what is dropped.

    Returns:
      Logits, float32 [B, num_classes].
    """
    x = VGG16Trunk(
      stages=len(STAGES),
      width=self.width,
      norm=self.norm,
      input=self.input,
      dtype=self.dtype,
      axis_name=self.axis_name,
      name='trunk',
    )(x, train)
    if min(x.shape[1:3]) > 1:  # Of an image smaller than 32 pixels there is nothing left to pool.
      x = max_pool(x)
    x = x.mean((1, 2)) if self.head == 'pooled' else x.reshape(len(x), -1)
    for layer, name in enumerate(('hidden1', 'hidden2')):
      x = nn.relu(nn.Dense(self.hidden, kernel_init=he_normal, dtype=self.dtype, name=name)(x))
      if train:
        assert keys is not None
        x = _drop(x, jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, layer))
    return nn.Dense(self.num_classes, dtype=jnp.float32, name='logits')(x)


def _drop(x: jax.Array, keys: jax.Array) -> jax.Array:
  """Dropout of [B, units] by keys [B]: what an image loses does not depend on what else is in
  its batch.
  """
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - DROPOUT, x.shape[1:]))(keys)
  return jnp.where(kept, x / (1 - DROPOUT), 0)


class VGG16Trunk(nn.Module):
  """The first `stages` of five stages of VGG16, without the pool that ends the last of them.

  [B, H, W, C] -> [B, H / 2^(stages - 1), W / 2^(stages - 1), channels], odd sides rounded down.
  Three stages are conv1_1 to conv3_3, with 4 x `width` channels. Attributes as those of `VGG16`.
  """

  stages: int
  width: int = 64
  norm: str = ''
  input: str = OWN
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = rescaled(x, self.input)
    for stage, (widths, convolutions) in enumerate(STAGES[: self.stages], start=1):
      if stage > 1:
        x = max_pool(x)
      for index in range(1, convolutions + 1):
        features, name = widths * self.width, f'conv{stage}_{index}'
        if self.norm == 'batch':
          x = ConvNorm(features, dtype=self.dtype, axis_name=self.axis_name, name=name)(x, train)
        else:
          x = nn.relu(Conv(features, dtype=self.dtype, name=name)(x))
    return x
