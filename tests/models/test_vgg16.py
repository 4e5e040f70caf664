import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.models.vgg16 import VGG16, VGG16Trunk

# Table 1 of the paper, column D, with 4 channels in place of 64.
CONFIGURATION_D = [4, 4, 'M', 8, 8, 'M', 16, 16, 16, 'M', 32, 32, 32, 'M', 32, 32, 32]


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def abstract_params(model, *shape):
  return jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros(shape)
  )['params']


def images(*shape):
  return jax.random.normal(jax.random.key(0), shape)


def test_parameter_count_is_that_of_the_paper():
  assert count(abstract_params(VGG16(1000), 1, 224, 224, 3)) == 138_357_544


def test_parameter_count_with_norms_is_that_of_torchvision_less_the_biases_of_convolutions():
  convolutions = 64 * (2 * 1 + 2 * 2 + 3 * 4 + 6 * 8)
  assert (
    count(abstract_params(VGG16(1000, norm='batch'), 1, 224, 224, 3)) == 138_365_992 - convolutions
  )


def test_a_small_hidden_width_makes_a_small_head():
  params = abstract_params(VGG16(3, width=16, hidden=32, head='pooled'), 1, 64, 64, 3)
  head = {name: params[name] for name in params if name != 'trunk'}
  assert count(head) == (128 * 32 + 32) + (32 * 32 + 32) + (32 * 3 + 3)


@pytest.mark.parametrize(
  ('head', 'side', 'channels', 'inputs'),
  [
    ('classic', 64, 3, 2 * 2 * 32),
    ('pooled', 64, 1, 32),
    ('pooled', 80, 3, 32),
    ('pooled', 16, 3, 32),
  ],
)
def test_shapes(head, side, channels, inputs):
  model = VGG16(5, width=4, hidden=8, head=head)
  x = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
  params = abstract_params(model, *x.shape)
  assert params['hidden1']['kernel'].shape == (inputs, 8)
  result = jax.eval_shape(functools.partial(model.apply, train=False), {'params': params}, x)
  assert result.shape == (2, 5)
  assert result.dtype == jnp.float32


@pytest.mark.parametrize('head', ['classic', 'pooled'])
def test_equals_a_plain_computation(head, draw_variables):
  model, x = VGG16(5, width=4, hidden=8, head=head), images(2, 64, 32, 3)
  params = draw_variables(model, x)['params']

  def plain(x):
    stage, index = 1, 1
    for layer in CONFIGURATION_D:
      if layer == 'M':
        x, stage, index = nn.max_pool(x, (2, 2), (2, 2)), stage + 1, 1
        continue
      weights, index = params['trunk'][f'conv{stage}_{index}'], index + 1
      assert weights['kernel'].shape == (3, 3, x.shape[-1], layer)
      x = lax.conv_general_dilated(
        x, weights['kernel'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
      )
      x = jnp.maximum(x + weights['bias'], 0)
    x = nn.max_pool(x, (2, 2), (2, 2))
    x = x.reshape(2, -1) if head == 'classic' else x.mean((1, 2))
    for name in ('hidden1', 'hidden2'):
      x = jnp.maximum(x @ params[name]['kernel'] + params[name]['bias'], 0)
    return x @ params['logits']['kernel'] + params['logits']['bias']

  result = jax.jit(functools.partial(model.apply, train=False))({'params': params}, x)
  np.testing.assert_allclose(result, jax.jit(plain)(x), rtol=1e-3)


def test_trunk_stops_before_the_pool_of_its_last_stage():
  trunk, x = VGG16Trunk(stages=3), jnp.zeros((1, 32, 32, 3))
  variables = jax.eval_shape(trunk.init, jax.random.key(0), x)
  assert list(variables['params']) == [
    'conv1_1',
    'conv1_2',
    'conv2_1',
    'conv2_2',
    'conv3_1',
    'conv3_2',
    'conv3_3',
  ]
  assert jax.eval_shape(trunk.apply, variables, x).shape == (1, 8, 8, 256)


def test_initial_weights_keep_the_scale_of_activations():
  trunk, x = VGG16Trunk(stages=5, width=16), images(2, 64, 64, 3)
  result = jax.jit(lambda key: trunk.apply(trunk.init(key, x), x))(jax.random.key(1))
  # Thirteen layers of LeCun's scale would make it 0.01.
  assert 0.2 < jnp.sqrt((result**2).mean()) < 5


def test_dropout_in_training_only_and_by_each_images_key(draw_variables):
  """The second hidden layer gives ones, and the scores are its units: dropped, or doubled."""
  model, x = VGG16(64, width=4, hidden=64, head='pooled'), images(1, 16, 16, 3).repeat(256, 0)
  params = draw_variables(model, x)['params']
  ones = {'kernel': jnp.zeros((64, 64)), 'bias': jnp.ones(64)}
  variables = {
    'params': {**params, 'hidden2': ones, 'logits': {'kernel': jnp.eye(64), 'bias': jnp.zeros(64)}}
  }

  @functools.partial(jax.jit, static_argnums=1)
  def run(keys, train):
    return model.apply(variables, x, train=train, keys=keys)

  keys = jax.random.split(jax.random.key(0), len(x))
  first, turned, still = run(keys, True), run(keys[::-1], True), run(keys, False)
  assert set(np.unique(first)) == {0, 2} and first.mean() == pytest.approx(1, abs=0.03)
  assert len(np.unique(first, axis=0)) == len(x)
  np.testing.assert_array_equal(turned[::-1], first)
  assert (still == 1).all()


def test_bfloat16_computes_what_float32_does(draw_variables):
  x = images(4, 32, 32, 3)
  model = VGG16(5, width=4, hidden=8, head='pooled', dtype=jnp.bfloat16)
  variables = draw_variables(model, x)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  result = jax.jit(functools.partial(model.apply, train=False))(variables, x)
  expected = jax.jit(
    functools.partial(VGG16(5, width=4, hidden=8, head='pooled').apply, train=False)
  )(variables, x)
  assert result.dtype == jnp.float32
  assert not np.array_equal(result, expected)
  np.testing.assert_allclose(result, expected, atol=0.05 * float(jnp.abs(expected).max()))
