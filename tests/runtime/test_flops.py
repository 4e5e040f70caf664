"""Operations are counted as by hand and as XLA counts them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ahm_jax.benchmark import trainings
from ahm_jax.models.build import segmentation_unet
from ahm_jax.models.convolution import convolve3x3
from ahm_jax.models.layers import init_variables
from ahm_jax.runtime import flops
from ahm_jax.training import segment


def ones(*shape):
  return np.ones(shape, np.float32)


def by_xla(function, *arguments) -> float:
  return jax.jit(function).lower(*arguments).cost_analysis()['flops']


@pytest.mark.parametrize(
  ('strides', 'padding', 'dilation', 'spread', 'groups'),
  [
    ((1, 1), 'SAME', (1, 1), (1, 1), 1),
    ((2, 2), 'SAME', (1, 1), (1, 1), 1),
    ((1, 1), 'VALID', (1, 1), (2, 2), 1),
    ((1, 1), ((2, 1), (0, 3)), (2, 2), (1, 1), 1),
    ((2, 1), ((1, 1), (2, 2)), (1, 3), (2, 1), 2),
  ],
)
def test_a_convolution_counts_as_in_xla(strides, padding, dilation, spread, groups):
  def convolution(x, kernel):
    return lax.conv_general_dilated(
      *(x, kernel, strides, padding),
      lhs_dilation=dilation,
      rhs_dilation=spread,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  arguments = ones(3, 12, 10, 8), ones(3, 5, 8 // groups, 16)
  assert flops.count(convolution, *arguments) == by_xla(convolution, *arguments)


@pytest.mark.parametrize('groups', [1, 4])
def test_its_gradients_take_as_much_each(groups):
  def total(x, kernel):
    return lax.conv_general_dilated(
      *(x, kernel, (1, 1), 'SAME'),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    ).sum()

  arguments = ones(2, 8, 8, 8), ones(3, 3, 8 // groups, 16)
  forward = flops.count(total, *arguments)
  assert (
    flops.count(jax.value_and_grad(total, (0, 1)), *arguments)
    == 3 * forward
    == 6 * 2 * 22**2 * 8 // groups * 16
  )


def test_products_of_matrices_and_what_holds_them():
  def inner(a, b):
    return jnp.einsum('bij,bjk->bik', a, b)

  a, b = ones(2, 3, 4), ones(2, 4, 4)
  once = 2 * 2 * 3 * 4 * 4
  assert flops.count(inner, a, b) == once
  assert flops.count(jax.jit(jax.checkpoint(inner)), a, b) == once
  assert (
    flops.count(lambda a, b: lax.scan(lambda c, _: (inner(c, b), None), a, length=5)[0], a, b)
    == 5 * once
  )
  assert (
    flops.count(
      lambda a, b: lax.cond(a.sum() > 0, lambda: inner(inner(a, b), b), lambda: inner(a, b)), a, b
    )
    == 2 * once
  )
  assert flops.count(jax.pmap(inner, in_axes=(None, 0)), a, b[None]) == once


def test_a_wide_convolution_counts_in_full_on_any_platform():
  """On CPU it takes fewer operations, see `models.convolution`."""
  x, kernel = ones(1, 64, 64, 256), ones(3, 3, 256, 256)
  full = 2 * 190**2 * 256**2
  assert flops.count(convolve3x3, x, kernel) == full
  assert by_xla(convolve3x3, x, kernel) < 0.6 * full


def test_a_training_step_takes_three_times_the_forward_pass():
  """The gradient of the first convolution's input, which XLA drops since nobody asks for it, is
  among them.
  """
  config = trainings.configured(8, 32, 2, augmented=False)
  unet = segmentation_unet(config.model)
  images = np.zeros((2, 32, 32, 3), np.uint8)
  variables = init_variables(unet, jax.random.key(0), (1, 32, 32, 3))
  forward = flops.count(lambda images: segment.probabilities(unet, variables, images), images)
  assert trainings.segmentation(config, trainings.random_split(4, 32)).operations() == 3 * forward
