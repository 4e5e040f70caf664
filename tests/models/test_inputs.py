"""What a VGG16 sees, against the scalings as their projects write them."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.config import ModelConfig
from ahm_jax.config.tree import types
from ahm_jax.data.augment import normalise
from ahm_jax.models import inputs
from ahm_jax.models.vgg16 import VGG16Trunk

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def seen(pixels, name):
  return np.asarray(inputs.rescaled(normalise(jnp.asarray(pixels) / 255.0), name))


def test_the_config_may_ask_for_each():
  assert typing.get_args(types(ModelConfig())['vgg_input']) == tuple(inputs.SCALINGS)


def test_numbers_by_hand():
  """Of one pixel, (255, 0, 51)."""
  pixel = np.array([255, 0, 51], np.uint8).reshape(1, 1, 1, 3)
  torchvision = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
  np.testing.assert_allclose(seen(pixel, inputs.TORCHVISION)[0, 0, 0], torchvision, rtol=1e-6)
  red_first = [255 - 123.68, -116.779, 51 - 103.939]
  np.testing.assert_allclose(seen(pixel, inputs.CAFFE)[0, 0, 0], red_first, rtol=1e-6)
  np.testing.assert_allclose(seen(pixel, inputs.OWN)[0, 0, 0], [2, -2, -1.2], rtol=1e-6)


@pytest.mark.parametrize('name', inputs.SCALINGS)
def test_what_is_said_is_what_is_seen(name):
  formula, _, order = inputs.SCALINGS[name].said.partition('), ')
  value = PIXELS[..., ::-1] if order == 'BGR' else PIXELS
  said = eval(formula + ')' * bool(order), {'value': value.astype(float)})
  found = seen(PIXELS, name)
  np.testing.assert_allclose(found[..., ::-1] if order == 'BGR' else found, said, atol=1e-4)


@pytest.mark.parametrize('name', [inputs.TORCHVISION, inputs.CAFFE])
def test_a_grey_image_is_seen_as_one_of_three_equal_channels(name):
  grey = PIXELS[..., :1]
  np.testing.assert_array_equal(seen(grey, name), seen(grey.repeat(3, -1), name))
  shapes = jax.eval_shape(
    VGG16Trunk(stages=1, width=2, input=name).init, jax.random.key(0), jnp.zeros((1, 16, 16, 1))
  )
  assert shapes['params']['conv1_1']['kernel'].shape == (3, 3, 3, 2)


def test_it_is_computed_in_float32():
  x = jnp.zeros((1, 16, 16, 3))
  assert inputs.rescaled(x, inputs.CAFFE).dtype == jnp.float32
  assert inputs.rescaled(x, inputs.OWN) is x
