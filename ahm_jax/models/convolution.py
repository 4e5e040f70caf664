"""3x3 convolution. On CPU, wide ones are computed by Winograd's minimal filtering, with gradients
of their own.

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, 2016, arXiv 1509.09308, F(2x2,
3x3): every output tile of 2x2 pixels takes 16 products in each pair of channels in place of 36.
With d the 4x4 input tile and g the kernel,

  Y = A^T [(G g G^T) * (B^T d B)] A

is linear in each of d and g, and so are its gradients, which take 16 products as well. Elsewhere
than on CPU, and for what is not wide enough to repay the transformations, the program is what
autodiff makes of `lax.conv_general_dilated`.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Channels in and out, and multiplications and additions, from which the transformations repay
# themselves, their compilation too.
WIDE = 128
HEAVY = 10**9
LARGE = 2**20  # Elements of one image from which XLA's kernel gradient is faster image by image.
_A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_G_TURNED = _G[:, ::-1]  # For a kernel turned by half.
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def convolve(x: jax.Array, kernel: jax.Array, strides, padding, **options) -> jax.Array:
  """What `flax.linen.Conv(conv_general_dilated=...)` calls; see `lax.conv_general_dilated`."""
  if (
    kernel.shape[:2] == (3, 3)
    and tuple(strides) == (1, 1)
    and padding == 'SAME'
    and x.ndim == 4
    and x.dtype == kernel.dtype
  ):
    return convolve3x3(x, kernel)
  return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def per_pixel(x: jax.Array, kernel: jax.Array, *_, **__) -> jax.Array:
  """As `convolve`, of a 1x1 kernel [1, 1, C, features] and stride 1, as a product of matrices.

  Into its operands XLA can fuse how they are made; those of a convolution it writes out first, on
  GPU and on CPU.
  """
  return x @ kernel[0, 0]


_AS_LAX: contextvars.ContextVar[bool] = contextvars.ContextVar('as_lax', default=False)


@contextlib.contextmanager
def as_lax() -> Iterator[None]:
  """What is traced in this context has plain convolutions, for every platform and batches of
  unknown size: to be exported.
  """
  token = _AS_LAX.set(True)
  try:
    yield
  finally:
    _AS_LAX.reset(token)


def convolve3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolution of stride 1, padded with zeros: [B, H, W, C], [3, 3, C, features] -> [B, H, W,
  features].
  """
  return _plain(x, kernel) if _AS_LAX.get() else _convolve3x3(x, kernel)


@jax.custom_vjp
def _convolve3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return lax.platform_dependent(x, kernel, cpu=_on_cpu, default=_plain)


def _forward(x, kernel):
  return _convolve3x3(x, kernel), (x, kernel)


def _backward(saved, gradient):
  x, kernel = saved
  return (
    lax.platform_dependent(
      gradient, kernel, cpu=_input_gradient_on_cpu, default=_plain_input_gradient
    ),
    lax.platform_dependent(
      x, gradient, cpu=_kernel_gradient_on_cpu, default=_plain_kernel_gradient
    ),
  )


_convolve3x3.defvjp(_forward, _backward)


def _pays(x: jax.Array, features: int) -> bool:
  _, height, width, channels = x.shape
  heavy = 2 * 9 * x.size * features >= HEAVY
  return (
    heavy
    and min(channels, features) >= WIDE
    and height % 2 == 0
    and width % 2 == 0
    and x.dtype != jnp.bfloat16
  )


def _plain(x, kernel):
  return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=_LAYOUT)


def _plain_input_gradient(gradient, kernel):
  x = jax.ShapeDtypeStruct((*gradient.shape[:3], kernel.shape[2]), gradient.dtype)
  return jax.linear_transpose(lambda x: _plain(x, kernel), x)(gradient)[0]


def _plain_kernel_gradient(x, gradient):
  kernel = jax.ShapeDtypeStruct((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
  return jax.linear_transpose(lambda kernel: _plain(x, kernel), kernel)(gradient)[0]


def _on_cpu(x, kernel):
  if not _pays(x, kernel.shape[-1]):
    return _plain(x, kernel)
  return _output(jnp.einsum('tpi,tio->tpo', _input_tiles(x), _kernel_tiles(kernel)), x.shape[:3])


def _input_gradient_on_cpu(gradient, kernel):
  if not _pays(gradient, kernel.shape[2]):
    return _plain_input_gradient(gradient, kernel)
  products = jnp.einsum('tpo,tio->tpi', _input_tiles(gradient), _kernel_tiles(kernel, _G_TURNED))
  return _output(products, gradient.shape[:3])


def _kernel_gradient_on_cpu(x, gradient):
  if _pays(x, gradient.shape[-1]):
    return _kernel_from_tiles(
      jnp.einsum('tpi,tpo->tio', _input_tiles(x), _gradient_tiles(gradient))
    )
  if len(x) > 1 and max(x[0].size, gradient[0].size) >= LARGE:
    return sum(_plain_kernel_gradient(x[i : i + 1], gradient[i : i + 1]) for i in range(len(x)))
  return _plain_kernel_gradient(x, gradient)


def _input_tiles(x):
  """B^T d B of every tile: [B, H, W, C] -> [16, B H/2 W/2, C]."""
  _, height, width, channels = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows = jnp.stack(_b([padded[:, i : i + height - 1 : 2] for i in range(4)]))
  # Fused with what follows, it would take long to compile and be no faster.
  rows = lax.optimization_barrier(rows)
  return jnp.stack(_b([rows[:, :, :, j : j + width - 1 : 2] for j in range(4)]), 1).reshape(
    16, -1, channels
  )


def _b(d):
  """B^T d."""
  return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _kernel_tiles(kernel, matrix=_G):
  """G g G^T: [3, 3, C, features] -> [16, C, features]."""
  return _transform(matrix, kernel).reshape(16, *kernel.shape[2:])


def _kernel_from_tiles(tiles):
  """G^T dU G: [16, C, features] -> [3, 3, C, features]."""
  return _transform(_G.T, tiles).reshape(3, 3, *tiles.shape[1:])


def _gradient_tiles(gradient):
  """A dY A^T of every tile: [B, H, W, features] -> [16, B H/2 W/2, features]."""
  batch, height, width, features = gradient.shape
  pixels = gradient.reshape(batch, height // 2, 2, width // 2, 2, features).transpose(
    2, 4, 0, 1, 3, 5
  )
  return _transform(_A, pixels).reshape(16, -1, features)


def _output(products, size):
  """A^T M A of every tile: [16, B H/2 W/2, features] -> [B, H, W, features]."""
  batch, height, width = size
  pixels = _transform(_A.T, products).reshape(2, 2, batch, height // 2, width // 2, -1)
  return pixels.transpose(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


def _transform(matrix, tiles):
  """T t T^T, [n^2, ...], of tiles t whose rows and columns come first.

  As one product, with a matrix for both sides.
  """
  both = np.kron(matrix, matrix).astype(tiles.dtype)
  return both @ tiles.reshape(both.shape[1], -1)
