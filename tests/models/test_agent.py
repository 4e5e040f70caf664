import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.models import inputs
from ahm_jax.models.agent import PYTORCH_VARIANCE, Agent
from ahm_jax.models.unet import UNet
from ahm_jax.runtime import flops

TRUNKS = ['vgg16', 'light']


def abstract_variables(model, *shape):
  return jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros(shape)
  )


def images(*shape):
  return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize('trunk', TRUNKS)
@pytest.mark.parametrize('patch_size', [4, 8, 16, 32])
@pytest.mark.parametrize(('height', 'width', 'channels'), [(64, 64, 3), (32, 96, 1)])
def test_one_logit_and_one_value_a_patch(trunk, patch_size, height, width, channels):
  model = Agent(trunk=trunk, width=4, patch_size=patch_size)
  x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
  variables = abstract_variables(model, *x.shape)
  for result in jax.eval_shape(functools.partial(model.apply, train=False), variables, x):
    assert result.shape == (2, height // patch_size, width // patch_size)
    assert result.dtype == jnp.float32


def test_the_papers_agent():
  params = abstract_variables(Agent(), 1, 224, 224, 3)['params']
  assert set(params) == {'trunk', 'policy', 'value'}
  assert list(params['trunk'])[-1] == 'conv3_3'
  for head in (params['policy'], params['value']):
    assert [
      head[name]['convolution']['kernel'].shape for name in ('first', 'second', 'third')
    ] == 3 * [(3, 3, 256, 256)]
    assert head['output']['kernel'].shape == (1, 1, 256, 1)


@pytest.mark.parametrize(
  ('width', 'side', 'patch_size'), [(16, 64, 4), (16, 64, 8), (16, 64, 32), (64, 224, 16)]
)
def test_light_agent_takes_under_5_percent_of_the_unets_operations(width, side, patch_size):
  x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

  def count(model):
    return flops.count(
      functools.partial(model.apply, train=False), abstract_variables(model, *x.shape), x
    )

  unet = count(UNet(width=width))
  # The count is a sane one: by hand, 179 width^2 products a pixel, less at borders.
  assert unet > 2 * 160 * width**2 * side**2
  assert count(Agent(trunk='light', width=width, patch_size=patch_size)) < 0.05 * unet


@pytest.mark.parametrize('trunk', TRUNKS)
def test_first_logits_are_near_zero_but_depend_on_the_image(trunk):
  model, x = Agent(trunk=trunk, width=8, patch_size=8), images(4, 32, 32, 3)

  @jax.jit
  def first_maps(key):
    return model.apply(model.init(key, x, train=False), x, train=True, mutable=['batch_stats'])[0]

  logits, values = first_maps(jax.random.key(1))
  for result in (logits, values):
    assert np.abs(result).max() < 0.1
    assert result.std() > 1e-4


def test_the_last_layers_can_start_as_pytorch_s_do():
  """torch.nn.Conv2d draws from -1 / sqrt(n) to 1 / sqrt(n), a variance of 1 / (3 n)."""
  model = Agent(trunk='light', width=64, patch_size=16, output_variance=PYTORCH_VARIANCE)
  params = jax.jit(functools.partial(model.init, train=False))(
    jax.random.key(0), images(1, 16, 16, 3)
  )['params']
  for head in ('policy', 'value'):
    kernel = params[head]['output']['kernel']
    assert kernel.size == 256
    assert kernel.var() * kernel.size == pytest.approx(1 / 3, rel=0.25)


@pytest.mark.parametrize('trunk', TRUNKS)
@pytest.mark.parametrize('patch_size', [4, 16])
def test_every_parameter_gets_a_gradient(trunk, patch_size, draw_variables):
  model, x = Agent(trunk=trunk, width=4, patch_size=patch_size), images(4, 32, 32, 3)
  variables = draw_variables(model, x)

  def loss(params):
    (logits, values), _ = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    weights = jax.random.normal(jax.random.key(2), (2, *logits.shape))
    return (weights[0] * logits).sum() + (weights[1] * values).sum()

  gradients = jax.jit(jax.grad(loss))(variables['params'])
  without = [
    jax.tree_util.keystr(path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    if not leaf.any()
  ]
  assert not without


@pytest.mark.parametrize('trunk', TRUNKS)
def test_a_patch_of_the_map_lies_where_it_does_in_the_image(trunk, draw_variables):
  model, x = Agent(trunk=trunk, width=4, patch_size=8), images(1, 64, 128, 3)
  variables = draw_variables(model, x)
  changed = x.at[0, 40:48, 96:104].add(3.0)  # Patch (5, 12).
  run = jax.jit(functools.partial(model.apply, train=False))
  for before, after in zip(run(variables, x), run(variables, changed), strict=True):
    difference = np.abs(after - before)[0]
    assert difference[5, 12] > 0
    assert not difference[
      :, :6
    ].any()  # Further away than the trunk and the three 3x3 convolutions reach.


@pytest.mark.parametrize('trunk', TRUNKS)
def test_bfloat16_gives_float32(trunk, draw_variables):
  model, x = Agent(trunk=trunk, width=4, patch_size=8, dtype=jnp.bfloat16), images(2, 32, 32, 3)
  variables = draw_variables(model, x)
  results, updates = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))(
    variables, x
  )
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, results, updates)))
  model = Agent(trunk=trunk, width=4, patch_size=8)
  expected = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))(
    variables, x
  )[0]
  for result, exact in zip(results, expected, strict=True):
    assert not np.array_equal(result, exact)
    assert np.abs(result - exact).mean() < 0.2 * exact.std()


def test_its_vgg16_sees_what_its_weights_were_trained_on(draw_variables):
  model, x = Agent(width=2, patch_size=4), images(1, 16, 16, 3)
  variables, name = draw_variables(model, x), inputs.TORCHVISION
  expected = model.apply(variables, inputs.rescaled(x, name), train=False)
  found = model.clone(input=name).apply(variables, x, train=False)
  for ours, theirs, plain in zip(
    found, expected, model.apply(variables, x, train=False), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(ours - plain).max() > 1e-3


def test_statistics_over_an_axis_are_those_of_one_big_batch(draw_variables):
  x = images(4, 32, 32, 3)
  variables = draw_variables(Agent('light', width=4, patch_size=4), x)

  def run(axis_name, x):
    model = Agent('light', width=4, patch_size=4, axis_name=axis_name)
    return model.apply(variables, x, train=True, mutable=['batch_stats'])

  expected = jax.jit(functools.partial(run, None))(x)
  maps, updates = jax.jit(
    jax.vmap(functools.partial(run, 'workers'), axis_name='workers', out_axes=(0, None))
  )(x.reshape(2, 2, 32, 32, 3))
  maps = jax.tree.map(lambda leaf: leaf.reshape(4, 8, 8), maps)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), (maps, updates), expected
  )


def test_image_that_patches_do_not_tile_is_refused():
  with pytest.raises(UserError, match='patches of 32 pixels do not tile images of 48x64'):
    abstract_variables(Agent(width=4, patch_size=32), 1, 48, 64, 3)
