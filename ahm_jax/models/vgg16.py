"""VGG16 (Simonyan and Zisserman, 2015, arXiv 1409.1556, configuration D): a classifier, and a trunk for other networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.models.layers import Conv, he_normal, max_pool

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # Of each stage: its channels, in widths, and its convolutions.
DROPOUT = 0.5  # After each hidden layer of the classifier, as in the paper.


class VGG16(nn.Module):
  """Maps an image to class scores; 138,357,544 parameters at 1000 classes, 224x224 RGB and the default sizes.

  Attributes:
    num_classes: number of scores.
    width: channels of the first stage.
    hidden: width of the two hidden dense layers.
    head: what the hidden layers see. 'classic': every position of the last feature map (the paper; the image's size is then
      fixed by the parameters). 'pooled': its mean over positions, which suits any size.
    dtype: what the layers compute in. Parameters and scores are float32.
  """

  num_classes: int
  width: int = 64
  hidden: int = 4096
  head: str = 'classic'
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Runs the network.

    Args:
      x: normalised images [B, H, W, C], H and W at least 16.
      train: drop half of the hidden units at random, by the key of the collection 'dropout'.

    Returns:
      Logits, float32 [B, num_classes].
    """
    x = VGG16Trunk(stages=len(STAGES), width=self.width, dtype=self.dtype, name='trunk')(x)
    if min(x.shape[1:3]) > 1:  # Of an image smaller than 32 pixels there is nothing left to pool.
      x = max_pool(x)
    x = x.mean((1, 2)) if self.head == 'pooled' else x.reshape(len(x), -1)
    for name in ('hidden1', 'hidden2'):
      x = nn.relu(nn.Dense(self.hidden, kernel_init=he_normal, dtype=self.dtype, name=name)(x))
      x = nn.Dropout(DROPOUT, deterministic=not train)(x)
    return nn.Dense(self.num_classes, dtype=jnp.float32, name='logits')(x)


class VGG16Trunk(nn.Module):
  """The first `stages` of five stages of VGG16, without the pool that ends the last of them.

  [B, H, W, C] -> [B, H / 2^(stages - 1), W / 2^(stages - 1), channels], odd sides rounded down. Three stages are conv1_1 to
  conv3_3, with 4 x `width` channels.
  """

  stages: int
  width: int = 64
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for stage, (widths, convolutions) in enumerate(STAGES[: self.stages], start=1):
      if stage > 1:
        x = max_pool(x)
      for index in range(1, convolutions + 1):
        name = f'conv{stage}_{index}'
        x = nn.relu(Conv(widths * self.width, dtype=self.dtype, name=name)(x))
    return x
