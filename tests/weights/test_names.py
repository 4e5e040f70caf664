import jax
import pytest

from ahm_jax.models.layers import variable_shapes
from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.runtime import trees
from ahm_jax.weights import names


def parameters(network, shape):
  return set(trees.flatten(variable_shapes(network, shape)))


@pytest.mark.parametrize(
  ('network', 'entries'),
  [
    (UNet(width=2), names.unet()),
    (VGG16(3, width=4, hidden=8), names.vgg16(4)),
    (VGG16(3, width=4, hidden=8, norm='batch'), names.vgg16(4, 'batch')),
    (VGG16(3, width=4, hidden=8), names.keras_vgg16()),
    (VGG16(3, width=4, hidden=8, input='caffe'), names.keras_vgg16('caffe')),
  ],
  ids=['unet', 'vgg16', 'vgg16_bn', 'keras', 'caffe'],
)
def test_each_of_ours_has_one_name(network, entries):
  shape = (1, 32, 32, 3)
  assert {entry.ours for entry in entries} == parameters(network, shape)
  assert (
    len({entry.ours for entry in entries})
    == len({entry.theirs for entry in entries})
    == len(entries)
  )


@pytest.mark.compiles  # No, but to import PyTorch takes seconds.
def test_names_of_the_unet_are_those_of_its_state_dict(torch_networks):
  theirs = set(torch_networks.UNet(width=2).state_dict())
  counters = {name for name in theirs if name.endswith(names.COUNTER)}
  assert len(counters) == 18
  assert {entry.theirs for entry in names.unet()} == theirs - counters


def test_names_of_vgg16_are_those_that_torchvision_publishes():
  # Configuration D without batch norm.
  convolutions = (
    0,
    2,
    5,
    7,
    10,
    12,
    14,
    17,
    19,
    21,
    24,
    26,
    28,
  )
  layers = [*(f'features.{i}' for i in convolutions), *(f'classifier.{i}' for i in (0, 3, 6))]
  assert [entry.theirs for entry in names.vgg16(64)] == [
    f'{layer}.{part}' for layer in layers for part in ('weight', 'bias')
  ]


@pytest.mark.compiles  # As above.
def test_names_of_vgg16_with_norms_are_those_that_torchvision_publishes(torch_networks):
  convolutions = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)  # Of vgg16_bn.
  found = [entry.theirs for entry in names.vgg16(64, 'batch')]
  assert [name for name in found if name.endswith('.running_mean')] == [
    f'features.{i + 1}.running_mean' for i in convolutions
  ]
  theirs = set(torch_networks.VGG16(width=1, hidden=1, norm=True).state_dict())
  biases = {f'features.{i}.bias' for i in convolutions}
  assert set(found) == {name for name in theirs if not name.endswith(names.COUNTER)} - biases


def test_names_of_vgg16_are_those_of_keras():
  found = [entry.theirs for entry in names.keras_vgg16()]
  assert len(found) == 32
  assert found[:3] == ['block1_conv1/kernel', 'block1_conv1/bias', 'block1_conv2/kernel']
  layers = ('fc1', 'fc2', 'predictions')
  assert found[-7:] == [
    'block5_conv3/bias',
    *(f'{layer}/{part}' for layer in layers for part in ('kernel', 'bias')),
  ]


@pytest.mark.parametrize(
  ('name', 'tidied'),
  [
    ('inc.double_conv.0.weight', 'inc.double_conv.0.weight'),
    ('module.inc.double_conv.0.weight', 'inc.double_conv.0.weight'),
    ('block1_conv1/kernel', 'block1_conv1/kernel'),
    ('block1_conv1/block1_conv1/kernel:0', 'block1_conv1/kernel'),
    ('block5_conv3.bias', 'block5_conv3/bias'),
    ('vgg16/fc1/kernel', 'fc1/kernel'),
    ('model.predictions.bias', 'predictions/bias'),
    ('xblock1_conv1/kernel', 'xblock1_conv1/kernel'),
    ('fc1/kernel/more', 'fc1/kernel/more'),
  ],
)
def test_what_ways_of_saving_add_is_taken_off(name, tidied):
  assert names.tidy(name) == tidied


def test_parameters_of_the_paper():
  wanted = trees.flatten(variable_shapes(VGG16(1000), (1, 224, 224, 3)))
  shapes = {
    e.theirs: e.layout.outward(jax.numpy.broadcast_to(0.0, wanted[e.ours].shape)).shape
    for e in names.vgg16(64)[:2]
  }
  assert shapes == {'features.0.weight': (64, 3, 3, 3), 'features.0.bias': (64,)}
