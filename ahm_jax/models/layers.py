"""Layers that several networks share."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ahm_jax.models.convolution import convolve, convolve3x3


def init_variables(module: nn.Module, key: jax.Array, shape: tuple[int, ...]) -> dict:
  """Fresh variables of a network for inputs of `shape` [B, H, W, C]."""
  if isinstance(key, jax.core.Tracer):  # Under eval_shape, where compiler options are refused.
    return dict(module.init(key, jnp.zeros(shape), train=False))
  return dict(_compiled_init(module, shape)(key))


def infer(network: nn.Module, variables: Any, images: jax.Array, **asked: Any) -> Any:
  """The network's output for normalised images [B, H, W, C], without training.

  Args:
    asked: further arguments of the network's call.
  """
  return network.apply(variables, images, train=False, **asked)


def variable_shapes(network: nn.Module, shape: tuple[int, ...]) -> Any:
  """Shapes and dtypes of a network's variables, for images of `shape` [1, S, S, C]."""
  return jax.eval_shape(lambda: init_variables(network, jax.random.key(0), shape))


@functools.cache
def _compiled_init(module: nn.Module, shape: tuple[int, ...]):
  # The random draws run once; optimising their code would take many times as long as running it.
  options = {'xla_backend_optimization_level': 0}
  return jax.jit(
    lambda key: module.init(key, jnp.zeros(shape), train=False), compiler_options=options
  )


# Keeps the scale of activations through convolution and ReLU.
he_normal = nn.initializers.he_normal()


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """[..., C] + [C], in the dtype of `x`.

  Added in the bias's float32, for the sake of its gradient, which sums over all pixels: recent GPUs
  would sum it in bfloat16.
  """
  return (x + bias).astype(x.dtype)


EPSILON = 1e-5  # Added to variances in batch normalisation, as PyTorch does.


class Conv(nn.Module):
  """3x3 convolution with a bias: [B, H, W, C] -> [B, H, W, features].

  Parameters as those of `flax.linen.Conv`.
  """

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', he_normal, (3, 3, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return add_bias(convolve3x3(x, kernel), bias)


class ConvNorm(nn.Module):
  """3x3 convolution without bias, batch normalisation, ReLU: [B, H, W, C] -> [B, H/strides,
  W/strides, features].

  Running averages move by a tenth at each training step (PyTorch's momentum of 0.1). Batch
  statistics are float32 whatever the compute dtype, and are those of the batches of all devices and
  workers along `axis_name` together.
  """

  features: int
  strides: int = 1
  dtype: jnp.dtype = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    x = nn.Conv(
      self.features,
      (3, 3),
      self.strides,
      use_bias=False,
      kernel_init=he_normal,
      dtype=self.dtype,
      conv_general_dilated=convolve,
      name='convolution',
    )(x)
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=EPSILON,
      dtype=self.dtype,
      axis_name=self.axis_name,
      name='norm',
    )(x)
    return nn.relu(x)


def max_pool(x: jax.Array) -> jax.Array:
  """2x2 max pooling: [B, H, W, C] -> [B, H // 2, W // 2, C].

  Where several pixels share the maximum they share its gradient. Written as maxima of slices
  because on CPU the gradient of `nn.max_pool`, which looks for the winner again, takes twenty times
  as long.
  """
  height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  upper = jnp.maximum(x[:, 0:height:2, 0:width:2], x[:, 0:height:2, 1:width:2])
  lower = jnp.maximum(x[:, 1:height:2, 0:width:2], x[:, 1:height:2, 1:width:2])
  return jnp.maximum(upper, lower)
