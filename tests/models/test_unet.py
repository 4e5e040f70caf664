import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax import lax

from ahm_jax.errors import UserError
from ahm_jax.models import unet
from ahm_jax.models.layers import ConvNorm, max_pool
from ahm_jax.models.unet import UNet, UpConvolution

WIDTH = 4


@pytest.fixture
def shallow(monkeypatch):
  """Three resolutions instead of five, since what each of them does is the same."""
  monkeypatch.setattr(unet, 'LEVELS', 3)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def abstract_variables(model, *shape):
  return jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros(shape)
  )


def test_parameter_count_is_that_of_the_original():
  assert count(abstract_variables(UNet(), 1, 64, 64, 3)['params']) == 31_037_633


@pytest.mark.parametrize(
  ('height', 'width', 'channels', 'out'), [(16, 16, 1, 1), (32, 48, 3, 1), (224, 224, 3, 3)]
)
def test_output_has_the_size_of_the_input(height, width, channels, out):
  model = UNet(out_channels=out, width=WIDTH)
  x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
  variables = abstract_variables(model, *x.shape)
  result = jax.eval_shape(functools.partial(model.apply, train=False), variables, x)
  assert result.shape == (2, height, width, out)
  assert result.dtype == jnp.float32


def test_side_that_is_no_multiple_of_16_is_refused():
  with pytest.raises(UserError, match='32x40 pixels; make both multiples of 16'):
    abstract_variables(UNet(width=WIDTH), 1, 32, 40, 3)


def test_only_the_head_depends_on_the_output_channels():
  one, three = (
    abstract_variables(UNet(out_channels=out, width=WIDTH), 1, 32, 32, 3)['params']
    for out in (1, 3)
  )
  shapes = [
    jax.tree.map(jnp.shape, {name: tree[name] for name in tree if name != 'head'})
    for tree in (one, three)
  ]
  assert shapes[0] == shapes[1]
  assert jnp.shape(one['head']['kernel']) == (1, 1, WIDTH, 1)
  assert set(one) == {
    *(f'encoder{level}' for level in range(1, 6)),
    *(f'{name}{level}' for name in ('up', 'decoder') for level in range(1, 5)),
    'head',
  }


def plain_unet(variables, x):
  """The U-Net written down again with lax, its batch statistics frozen."""
  params, statistics = variables['params'], variables['batch_stats']

  def convolve(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  def block(x, name):
    for part in ('first', 'second'):
      weights, running = params[name][part], statistics[name][part]['norm']
      x = convolve(x, weights['convolution']['kernel'])
      x = (x - running['mean']) / jnp.sqrt(running['var'] + 1e-5) * weights['norm'][
        'scale'
      ] + weights['norm']['bias']
      x = jnp.maximum(x, 0)
    return x

  def up(x, name):
    kernel = params[name]['blocks']['kernel'].transpose(1, 2, 0, 3)[::-1, ::-1]
    return lax.conv_transpose(x, kernel, (2, 2), 'VALID') + params[name]['bias']

  e1 = block(x, 'encoder1')
  e2 = block(nn.max_pool(e1, (2, 2), (2, 2)), 'encoder2')
  e3 = block(nn.max_pool(e2, (2, 2), (2, 2)), 'encoder3')
  e4 = block(nn.max_pool(e3, (2, 2), (2, 2)), 'encoder4')
  e5 = block(nn.max_pool(e4, (2, 2), (2, 2)), 'encoder5')
  d4 = block(jnp.concatenate([e4, up(e5, 'up4')], -1), 'decoder4')
  d3 = block(jnp.concatenate([e3, up(d4, 'up3')], -1), 'decoder3')
  d2 = block(jnp.concatenate([e2, up(d3, 'up2')], -1), 'decoder2')
  d1 = block(jnp.concatenate([e1, up(d2, 'up1')], -1), 'decoder1')
  return convolve(d1, params['head']['kernel']) + params['head']['bias']


def test_equals_a_plain_computation(draw_variables):
  model = UNet(out_channels=2, width=WIDTH)
  x = normal(0, 2, 32, 48, 3)
  variables = draw_variables(model, x)
  np.testing.assert_allclose(
    jax.jit(functools.partial(model.apply, train=False))(variables, x),
    jax.jit(plain_unet)(variables, x),
    rtol=1e-3,
    atol=1e-4,
  )


def test_bfloat16_computes_what_float32_does(draw_variables):
  x = normal(0, 2, 32, 32, 3)
  model = UNet(width=WIDTH, dtype=jnp.bfloat16)
  variables = draw_variables(model, x)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  result, updates = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))(
    variables, x
  )
  expected, _ = jax.jit(
    functools.partial(UNet(width=WIDTH).apply, train=True, mutable=['batch_stats'])
  )(variables, x)
  assert result.dtype == jnp.float32
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
  assert not np.array_equal(result, expected)
  assert np.abs(result - expected).mean() < 0.05 * expected.std()


def test_every_parameter_gets_a_gradient(draw_variables):
  model, x = UNet(width=WIDTH), normal(0, 2, 32, 32, 3)
  variables = draw_variables(model, x)

  def loss(params):
    result, _ = model.apply({**variables, 'params': params}, x, train=True, mutable=['batch_stats'])
    return (result**2).sum()

  gradients = jax.jit(jax.grad(loss))(variables['params'])
  without = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    if not leaf.any()
  ]
  assert not without


@pytest.mark.usefixtures('shallow')
def test_statistics_over_an_axis_are_those_of_one_big_batch(draw_variables):
  x, target = normal(0, 4, 32, 32, 3), normal(1, 4, 32, 32, 1)
  variables = draw_variables(UNet(width=WIDTH), x)

  def run(model, params, x, target):
    result, updates = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    return ((result - target) ** 2).mean(), updates['batch_stats']

  def whole(params):
    return run(UNet(width=WIDTH), params, x, target)

  def divided(params):
    each = functools.partial(run, UNet(width=WIDTH, axis_name='workers'), params)
    losses, statistics = jax.vmap(each, axis_name='workers', out_axes=(0, None))(
      x.reshape(2, 2, 32, 32, 3), target.reshape(2, 2, 32, 32, 1)
    )
    return losses.mean(), statistics

  (expected, gradients) = jax.jit(jax.value_and_grad(whole, has_aux=True))(variables['params'])
  (result, divided_gradients) = jax.jit(jax.value_and_grad(divided, has_aux=True))(
    variables['params']
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), result, expected
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-3),
    divided_gradients,
    gradients,
  )


@pytest.mark.usefixtures('shallow')
@pytest.mark.parametrize('recompute', [False, True])
def test_outputs_of_blocks_are_returned_where_they_are_named(draw_variables, recompute):
  x = normal(0, 2, 16, 16, 3)
  model = UNet(width=WIDTH, recompute=recompute)
  variables = draw_variables(model, x)
  apply = jax.jit(functools.partial(model.apply, train=False), static_argnames='blocks')
  result, found = apply(variables, x, blocks=('encoder3', 'decoder2'))
  np.testing.assert_allclose(result, apply(variables, x), atol=1e-5)
  assert {name: y.shape for name, y in found.items()} == {
    'encoder3': (2, 4, 4, 4 * WIDTH),
    'decoder2': (2, 8, 8, 2 * WIDTH),
  }
  _, kept = UNet(width=WIDTH).apply(
    variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
  )
  for name, y in found.items():
    np.testing.assert_allclose(y, kept['intermediates'][name]['__call__'][0], atol=1e-5)


@pytest.mark.usefixtures('shallow')
def test_recomputing_changes_what_is_kept_and_nothing_else(draw_variables):
  x = normal(0, 2, 32, 32, 3)
  plain, recomputing = UNet(width=WIDTH), UNet(width=WIDTH, recompute=True)
  variables = draw_variables(plain, x)
  structure = jax.eval_shape(functools.partial(recomputing.init, train=False), jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, structure) == jax.tree.map(jnp.shape, variables)

  def loss(model, variables, x):
    result, updates = model.apply(variables, x, train=True, mutable=['batch_stats'])
    return jnp.sin(result).sum(), updates

  def kept(model):
    """Bytes that the forward pass hands to the backward pass."""
    residuals = jax.eval_shape(
      lambda *inputs: jax.vjp(functools.partial(loss, model), *inputs, has_aux=True)[1],
      variables,
      x,
    )
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

  with jax.enable_x64(True):
    doubles = jax.tree.map(lambda x: x.astype(jnp.float64), (variables, x))
    expected, result = (
      jax.jit(jax.value_and_grad(functools.partial(loss, model), has_aux=True))(*doubles)
      for model in (plain, recomputing)
    )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), result, expected
  )
  assert kept(recomputing) < 0.5 * kept(plain)


def test_up_convolution_is_the_transposed_convolution():
  model, x = UpConvolution(features=5), normal(0, 2, 3, 4, 6)
  params = {'blocks': {'kernel': normal(1, 6, 2, 2, 5)}, 'bias': normal(2, 5)}
  # A transposed convolution sees the kernel turned by 180 degrees.
  expected = lax.conv_transpose(
    x, params['blocks']['kernel'].transpose(1, 2, 0, 3)[::-1, ::-1], (2, 2), 'VALID'
  )
  result = model.apply({'params': params}, x)
  np.testing.assert_allclose(result, expected + params['bias'], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    result[0, 4, 7], x[0, 2, 3] @ params['blocks']['kernel'][:, 0, 1] + params['bias'], rtol=1e-5
  )


def block_oracle(x, kernel, scale, bias):
  """Convolution by SciPy, and the statistics of its result."""
  convolved = np.stack(
    [
      np.sum(
        [
          scipy.signal.correlate2d(image[..., i], kernel[..., i, o], 'same')
          for i in range(x.shape[-1])
        ],
        0,
      )
      for image in x
      for o in range(kernel.shape[-1])
    ]
  )
  convolved = np.moveaxis(convolved.reshape(len(x), kernel.shape[-1], *x.shape[1:3]), 1, -1)
  mean, variance = convolved.mean((0, 1, 2)), convolved.var((0, 1, 2))
  return (
    np.maximum((convolved - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0),
    convolved,
    mean,
    variance,
  )


def test_block_against_scipy_and_its_running_averages():
  model, x = ConvNorm(features=4), np.asarray(normal(0, 3, 6, 5, 2))
  kernel, scale, bias = (
    np.asarray(normal(1, 3, 3, 2, 4)),
    np.asarray(normal(2, 4)),
    np.asarray(normal(3, 4)),
  )
  params = {'convolution': {'kernel': kernel}, 'norm': {'scale': scale, 'bias': bias}}
  before = {'norm': {'mean': jnp.full(4, 2.0), 'var': jnp.full(4, 3.0)}}
  expected, convolved, mean, variance = block_oracle(x, kernel, scale, bias)

  result, updates = model.apply(
    {'params': params, 'batch_stats': before}, x, train=True, mutable=['batch_stats']
  )
  np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
  after = updates['batch_stats']['norm']
  np.testing.assert_allclose(after['mean'], 0.9 * 2 + 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(after['var'], 0.9 * 3 + 0.1 * variance, rtol=1e-5)

  frozen = model.apply({'params': params, 'batch_stats': before}, x, train=False)
  np.testing.assert_allclose(
    frozen, np.maximum((convolved - 2) / np.sqrt(3 + 1e-5) * scale + bias, 0), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('shape', [(2, 6, 8, 3), (1, 7, 5, 2)])
def test_max_pool_and_its_gradient(shape):
  x = normal(0, *shape)
  result, pullback = jax.vjp(max_pool, x)
  expected, expected_pullback = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
  np.testing.assert_array_equal(result, expected)
  cotangent = normal(1, *result.shape)
  np.testing.assert_array_equal(pullback(cotangent)[0], expected_pullback(cotangent)[0])


@pytest.mark.parametrize(
  ('pixels', 'shares'),
  [
    ([[1, 1], [1, 1]], [[0.25, 0.25], [0.25, 0.25]]),
    ([[1, 0], [0, 1]], [[0.5, 0], [0, 0.5]]),
    ([[1, 1], [0, 1]], [[0.25, 0.25], [0, 0.5]]),
    ([[1, 0], [0, 0]], [[1, 0], [0, 0]]),
  ],
)
def test_pixels_that_share_the_maximum_share_its_gradient(pixels, shares):
  gradient = jax.grad(lambda x: max_pool(x).sum())(
    jnp.array(pixels, jnp.float32).reshape(1, 2, 2, 1)
  )
  np.testing.assert_array_equal(gradient[0, ..., 0], shares)
