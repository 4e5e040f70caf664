import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.models import convolution
from ahm_jax.models.layers import ConvNorm


def plain(x, kernel):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def normal(seed, *shape, dtype=jnp.float64):
  return jax.random.normal(jax.random.key(seed), shape, dtype)


def with_gradients(function, x, kernel):
  """The result, and the gradients of a sum of weighted sines of it."""
  weights = normal(2, *x.shape[:3], kernel.shape[-1], dtype=x.dtype)

  @jax.jit
  def both(x, kernel):
    result, gradients = jax.vjp(function, x, kernel)
    return result, *gradients(weights * jnp.cos(result))

  return both(x, kernel)


@pytest.fixture
def by_tiles(monkeypatch):
  """Small convolutions are taken for wide and heavy.

  The list has one item for each product of stacks of tiles.
  """
  monkeypatch.setattr(convolution, 'WIDE', 3)
  monkeypatch.setattr(convolution, 'HEAVY', 0)
  calls = []
  tiles = convolution._input_tiles
  monkeypatch.setattr(convolution, '_input_tiles', lambda x: calls.append(x.shape) or tiles(x))
  return calls


@pytest.mark.parametrize(
  ('shape', 'features'), [((2, 6, 8, 5), 4), ((1, 2, 2, 3), 7), ((3, 4, 10, 4), 3)]
)
def test_by_tiles_equals_the_plain_convolution_and_its_gradients(shape, features, by_tiles):
  with jax.enable_x64(True):
    x, kernel = normal(0, *shape), normal(1, 3, 3, shape[-1], features)
    ours, theirs = (
      with_gradients(function, x, kernel) for function in (convolution.convolve3x3, plain)
    )
  # Forward, and the two gradients.
  assert by_tiles == [shape, (*shape[:3], features), shape]
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
  ('shape', 'features'),
  [((2, 6, 7, 5), 4), ((2, 5, 6, 5), 4), ((2, 6, 6, 2), 4), ((2, 6, 6, 4), 2)],
)
def test_odd_sides_and_few_channels_are_plain(shape, features, by_tiles):
  with jax.enable_x64(True):
    x, kernel = normal(0, *shape), normal(1, 3, 3, shape[-1], features)
    ours, theirs = (
      with_gradients(function, x, kernel) for function in (convolution.convolve3x3, plain)
    )
  assert not by_tiles
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_kernel_gradient_image_by_image(monkeypatch):
  monkeypatch.setattr(convolution, 'LARGE', 100)
  alone = []
  kernel_gradient = convolution._plain_kernel_gradient
  monkeypatch.setattr(
    convolution,
    '_plain_kernel_gradient',
    lambda x, g: alone.append(len(x)) or kernel_gradient(x, g),
  )
  with jax.enable_x64(True):
    x, kernel = normal(0, 3, 5, 6, 4), normal(1, 3, 3, 4, 2)
    ours, theirs = (
      with_gradients(function, x, kernel) for function in (convolution.convolve3x3, plain)
    )
  assert alone.count(1) == 3
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_the_error_in_float32_is_that_of_rounding():
  x, kernel = (
    normal(0, 4, 16, 16, 256, dtype=jnp.float32),
    normal(1, 3, 3, 256, 256, dtype=jnp.float32),
  )
  assert 'dot_general' in jax.jit(convolution.convolve3x3).lower(x, kernel).as_text()
  with jax.enable_x64(True):
    exact = np.asarray(plain(x.astype(jnp.float64), kernel.astype(jnp.float64)))
  error, usual = (
    np.abs(function(x, kernel) - exact).max() for function in (convolution.convolve3x3, plain)
  )
  assert error < 1e-5 * np.abs(exact).max()
  assert error < 10 * usual


@pytest.mark.usefixtures('by_tiles')
def test_elsewhere_than_on_cpu_the_program_has_no_tiles():
  x, kernel = normal(0, 2, 4, 4, 4, dtype=jnp.float32), normal(1, 3, 3, 4, 4, dtype=jnp.float32)

  def program(platform):
    gradients = jax.jit(jax.grad(lambda *inputs: convolution.convolve3x3(*inputs).sum(), (0, 1)))
    return gradients.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

  assert 'dot_general' in program('cpu')
  assert 'dot_general' not in program('cuda')
  assert 'convolution' in program('cuda')


@pytest.mark.parametrize(
  ('strides', 'dtype'), [(1, jnp.float32), (2, jnp.float32), (1, jnp.bfloat16)]
)
def test_a_layer_computes_what_flax_does(strides, dtype, by_tiles, monkeypatch):
  layer = ConvNorm(4, strides=strides, dtype=dtype)
  x = normal(0, 2, 4, 4, 4, dtype=jnp.float32)
  variables = layer.init(jax.random.key(1), x, train=False)
  ours = layer.apply(variables, x, train=False)
  assert bool(by_tiles) == (strides == 1 and dtype == jnp.float32)
  monkeypatch.setattr('ahm_jax.models.layers.convolve', lax.conv_general_dilated)
  np.testing.assert_allclose(ours, layer.apply(variables, x, train=False), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures('by_tiles')
def test_a_vmap_of_it_is_a_loop_of_it():
  with jax.enable_x64(True):
    x, kernel = normal(0, 3, 2, 4, 4, 4), normal(1, 3, 3, 4, 4)

    def total(kernel, of):
      return jnp.sin(jax.vmap(of, in_axes=(0, None))(x, kernel)).sum()

    ours, theirs = (
      jax.jit(jax.value_and_grad(total), static_argnums=1)(kernel, function)
      for function in (convolution.convolve3x3, plain)
    )
  for one, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-11)
