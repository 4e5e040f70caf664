"""Weights to and from the networks they are named after, which are computed by PyTorch.

With -s, the largest differences.
"""

import numpy as np
import pytest

from ahm_jax.errors import UserError
from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16, VGG16Trunk
from ahm_jax.runtime import trees
from ahm_jax.weights import files, loading, names, norms, saving

SHAPE = (1, 32, 32, 3)


def near(what, ours, theirs):
  """Asserts what the tables of BUILD_NOTES.md say: 1e-4 at most, of outputs that are about 1."""
  difference = float(np.abs(ours - theirs).max())
  print(f'{what}: {difference:.1e} of outputs up to {np.abs(theirs).max():.2f}')
  assert ours.shape == theirs.shape and theirs.std() > 0.05
  assert difference <= 1e-4


def save(path, weights):
  files.write(path, weights, {})
  return path


@pytest.mark.parametrize('bias', [False, True], ids=['new', 'old, with biases before norms'])
def test_a_unet_from_pytorch_computes_the_same(torch_networks, outputs, images, tmp_path, bias):
  theirs = torch_networks.randomise(torch_networks.UNet(outputs=2, width=4, bias=bias))
  path = save(tmp_path / 'unet.npz', torch_networks.arrays(theirs))
  network = UNet(out_channels=2, width=4)
  taken = loading.unet(path, network, SHAPE)
  assert taken.report['at_random'] == {} and taken.report['unused'] == []
  assert (
    taken.report['parameters']
    == sum(x.numel() for x in theirs.parameters()) - bias * 2 * (31 + 15) * 4
  )
  near(
    f'U-Net in, bias={bias}',
    outputs(network, taken.variables, images),
    torch_networks.apply(theirs, images),
  )


def test_a_unet_to_pytorch_computes_the_same(torch_networks, draw, outputs, images):
  network = UNet(out_channels=1, width=4)
  variables = draw(network, SHAPE)
  weights = saving.with_counters(saving.outward(variables, names.unet()), 40)
  theirs = torch_networks.put(torch_networks.UNet(outputs=1, width=4), weights)
  assert theirs.inc.double_conv[1].num_batches_tracked == 40
  near('U-Net out', outputs(network, variables, images), torch_networks.apply(theirs, images))


def shown(images):
  """What our trainings show a network of images in [0, 1]."""
  return (images - np.float32(0.5)) / np.float32(0.25)


@pytest.fixture(scope='module')
def pictures():
  """float32 [2, 64, 64, 3] in [0, 1]."""
  return np.random.default_rng(1).uniform(0, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize('norm', ['', 'batch'], ids=['plain', 'batch norm'])
@pytest.mark.parametrize(('head', 'pooled'), [('classic', 2), ('pooled', 1)])
def test_vgg16_from_and_to_torchvision_computes_the_same(
  torch_networks, draw, outputs, pictures, tmp_path, head, pooled, norm
):
  network = VGG16(5, width=4, hidden=16, head=head, norm=norm, input='torchvision')
  shape = (1, 64, 64, 3)
  mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
  images = ((pictures - mean) / std).astype(np.float32)
  theirs = torch_networks.randomise(
    torch_networks.VGG16(5, width=4, hidden=16, pooled=pooled, norm=bool(norm))
  )
  taken = loading.vgg16(save(tmp_path / 'vgg.npz', torch_networks.arrays(theirs)), network, shape)
  assert taken.report['at_random'] == {} and taken.report['unused'] == []
  assert (
    taken.report['parameters'] == sum(x.numel() for x in theirs.parameters()) - bool(norm) * 4 * 66
  )
  near(
    f'VGG16 in, {head} {norm}',
    outputs(network, taken.variables, shown(pictures)),
    torch_networks.apply(theirs, images),
  )

  variables = draw(network, shape)
  weights = saving.outward(variables, names.vgg16(4, norm))
  theirs = torch_networks.put(
    theirs, saving.with_counters(norms.with_zero_biases(weights) if norm else weights, 40)
  )
  near(
    f'VGG16 out, {head} {norm}',
    outputs(network, variables, shown(pictures)),
    torch_networks.apply(theirs, images),
  )


@pytest.mark.parametrize('form', ['{}/{}', '{0}/{0}/{1}:0', 'vgg16.{}.{}'])
def test_vgg16_from_keras_computes_the_same(torch_networks, outputs, pictures, tmp_path, form):
  theirs = torch_networks.randomise(
    torch_networks.VGG16(5, width=4, hidden=16, pooled=2, channels_last=True)
  )
  theirs.features[0].weight.data /= 70  # For images of 0 to 255.
  weights = {
    form.format(*name.split('/')): array
    for name, array in torch_networks.keras_arrays(theirs).items()
  }
  network = VGG16(5, width=4, hidden=16, input='caffe')
  taken = loading.vgg16(save(tmp_path / 'vgg.npz', weights), network, (1, 64, 64, 3))
  assert (
    taken.report['at_random'] == {}
    and taken.report['unused'] == []
    and len(taken.report['taken']) == 32
  )
  near(
    'VGG16 in, Keras',
    outputs(network, taken.variables, shown(pictures)),
    torch_networks.apply(
      theirs, pictures[..., ::-1] * np.float32(255) - np.float32([103.939, 116.779, 123.68])
    ),
  )


def test_the_agents_trunk_takes_the_first_three_stages(torch_networks, tmp_path):
  theirs = torch_networks.randomise(torch_networks.VGG16(5, width=4, hidden=16, pooled=1))
  path = save(tmp_path / 'vgg.npz', torch_networks.arrays(theirs))
  taken = loading.vgg16_trunk(path, VGG16Trunk(stages=3, width=4), SHAPE)
  trunk = taken.variables['params']['trunk']
  assert list(trunk) == [
    'conv1_1',
    'conv1_2',
    'conv2_1',
    'conv2_2',
    'conv3_1',
    'conv3_2',
    'conv3_3',
  ]
  np.testing.assert_array_equal(trunk['conv3_3']['bias'], theirs.features[14].bias.detach().numpy())
  assert (
    taken.report['unused'][:2] == ['classifier.0.bias', 'classifier.0.weight']
    and len(taken.report['taken']) == 14
  )


def test_the_agents_trunk_takes_batch_norms_folded_into_its_convolutions(
  torch_networks, outputs, images, tmp_path
):
  theirs = torch_networks.randomise(
    torch_networks.VGG16(5, width=4, hidden=16, pooled=1, norm=True)
  )
  trunk = VGG16Trunk(stages=3, width=4)
  path = save(tmp_path / 'vgg.npz', torch_networks.arrays(theirs))
  taken = loading.vgg16_trunk(path, trunk, SHAPE)
  assert list(taken.variables) == ['params'] and len(taken.report['taken']) == 5 * 7
  theirs.features = theirs.features[:23]  # To the ReLU after conv3_3.
  ours = outputs(trunk, {'params': taken.variables['params']['trunk']}, images)
  near(
    'the trunk of a VGG16 with batch norm in', ours, torch_networks.apply(theirs.features, images)
  )


@pytest.fixture(scope='module')
def network():
  return UNet(out_channels=1, width=2)


@pytest.fixture
def unet_weights(draw, network):
  """Those of a U-Net by foreign names, as PyTorch would save them."""
  return saving.with_counters(saving.outward(draw(network, SHAPE), names.unet()), 3)


def refusal(weights, network, path, load=loading.unet, shape=SHAPE):
  with pytest.raises(UserError) as caught:
    load(save(path / 'w.npz', weights), network, shape)
  assert '\n' not in str(caught.value) and str(path / 'w.npz') in str(caught.value)
  return str(caught.value)


def test_weights_come_back_as_they_were(draw, network, unet_weights, tmp_path):
  variables = trees.flatten(draw(network, SHAPE))
  for weights in (unet_weights, {f'module.{name}': array for name, array in unet_weights.items()}):
    found = trees.flatten(loading.unet(save(tmp_path / 'w.npz', weights), network, SHAPE).variables)
    assert found.keys() == variables.keys()
    assert all(np.array_equal(found[name], variables[name]) for name in variables)


def test_numbers_of_half_precision_are_taken(draw, network, unet_weights, tmp_path):
  halves = {
    name: array.astype(np.float16) if array.ndim else array for name, array in unet_weights.items()
  }
  found = trees.flatten(loading.unet(save(tmp_path / 'w.npz', halves), network, SHAPE).variables)
  for name, array in trees.flatten(draw(network, SHAPE)).items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], array.astype(np.float16))


@pytest.mark.parametrize(
  ('width', 'channels', 'wrong', 'first'),
  [
    (
      3,
      3,
      98,
      'inc.double_conv.0.weight is 2x3x3x3, not 3x3x3x3; inc.double_conv.1.weight is 2, not 3; ',
    ),
    (2, 1, 1, 'inc.double_conv.0.weight is 2x3x3x3, not 2x1x3x3; '),
  ],
)
def test_another_width_or_other_channels_are_refused_with_the_first_shapes(
  unet_weights, tmp_path, width, channels, wrong, first
):
  line = refusal(
    unet_weights, UNet(out_channels=1, width=width), tmp_path, shape=(1, 32, 32, channels)
  )
  assert f' does not fit, and nothing is loaded; of 100 arrays {wrong} are wrong: {first}' in line
  assert line.count(', not ') == min(wrong, loading.SHOWN) and ('; ...' in line) == (
    wrong > loading.SHOWN
  )
  assert line.endswith('give weights of the same architecture, widths and channels as the config')


def test_missing_and_wrong_arrays_are_named(network, unet_weights, tmp_path):
  del unet_weights['down2.maxpool_conv.1.double_conv.4.running_var']
  unet_weights['up1.up.bias'] = unet_weights['up1.up.bias'].astype(np.int32)
  line = refusal(unet_weights, network, tmp_path)
  assert (
    'down2.maxpool_conv.1.double_conv.4.running_var is missing; up1.up.bias is of type int32; give'
    in line
  )


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(network, unet_weights, tmp_path, value):
  unet_weights['up3.conv.double_conv.1.running_mean'][1] = value
  line = refusal(unet_weights, network, tmp_path)
  assert (
    'up3.conv.double_conv.1.running_mean holds numbers that are not finite; nothing is loaded'
    in line
  )


def test_a_bilinear_unet_and_another_network_are_refused(network, unet_weights, tmp_path):
  bilinear = {name: array for name, array in unet_weights.items() if '.up.' not in name}
  assert 'give weights of UNet(..., bilinear=False)' in refusal(bilinear, network, tmp_path)
  line = refusal({'features.0.weight': np.zeros((2, 3, 3, 3), np.float32)}, network, tmp_path)
  assert 'inc.double_conv.0.weight is missing; ' in line


def test_a_head_of_other_outputs_stays_as_it_is_and_that_is_said(unet_weights, tmp_path):
  unet_weights['more'] = np.zeros(3, np.float32)
  path = save(tmp_path / 'w.npz', unet_weights)
  taken = loading.unet(path, UNet(out_channels=4, width=2), SHAPE)
  assert 'head' not in taken.variables['params'] and 'up1' in taken.variables['params']
  assert taken.report['at_random'] == {
    'outc.conv.weight': 'is 1x2x1x1, not 4x2x1x1',
    'outc.conv.bias': 'is 1, not 4',
  }
  count = sum(
    array.size
    for name, array in unet_weights.items()
    if not name.endswith(('_mean', '_var', 'tracked'))
  )
  count -= 3 + 2 + 1  # What is unused, and the head.
  assert loading.lines(taken.report) == [
    f'{path}: 98 arrays loaded, {count:,} parameters',
    '  2 arrays stay at their random start (outc.conv.weight is 1x2x1x1, not 4x2x1x1)',
    '  3 arrays of the file are not used (more, outc.conv.bias, outc.conv.weight)',
  ]


@pytest.mark.parametrize(
  ('norm', 'keras', 'says'),
  [
    (
      '',
      False,
      'with batch normalisation, and nothing is loaded; give --config.model.vgg_norm=batch, or '
      'weights of a VGG16 w',
    ),
    (
      'batch',
      False,
      "without batch normalisation, and nothing is loaded; give --config.model.vgg_norm='', or "
      'weights of a ',
    ),
    ('batch', True, 'without batch normalisation, and nothing is loaded; give'),
  ],
)
def test_a_vgg16_with_norms_into_one_without_or_the_reverse_is_refused(
  draw, tmp_path, norm, keras, says
):
  networks = {norm: VGG16(2, width=2, hidden=8, head='pooled', norm=norm) for norm in ('', 'batch')}
  held = '' if norm else 'batch'
  entries = names.keras_vgg16() if keras else names.vgg16(2, held)
  weights = saving.outward(draw(networks[held], SHAPE), entries)
  assert f' is a VGG16 {says}' in refusal(weights, networks[norm], tmp_path, loading.vgg16)
  other = {'inc.double_conv.0.weight': np.zeros((2, 3, 3, 3), np.float32)}
  assert 'features.0.weight is missing; ' in refusal(other, networks[norm], tmp_path, loading.vgg16)


def test_a_vgg16_with_norms_and_without_a_statistic_is_refused(draw, tmp_path):
  network = VGG16(2, width=2, hidden=8, head='pooled', norm='batch')
  weights = norms.with_zero_biases(saving.outward(draw(network, SHAPE), names.vgg16(2, 'batch')))
  del weights['features.21.running_var']
  assert 'of 71 arrays 1 are wrong: features.21.running_var is missing; ' in refusal(
    weights, network, tmp_path, loading.vgg16
  )
  trunk = VGG16Trunk(stages=3, width=2)
  assert 'of 35 arrays 1 are wrong: features.21.running_var is' in refusal(
    weights, trunk, tmp_path, loading.vgg16_trunk
  )


def test_of_vgg16_layers_are_taken_up_to_the_first_that_does_not_fit(draw, tmp_path):
  classic = VGG16(5, width=2, hidden=8, input='torchvision')
  weights = saving.outward(draw(classic, (1, 64, 64, 3)), names.vgg16(2))
  path = save(tmp_path / 'w.npz', weights)
  for network, shape, left in (
    (classic.clone(num_classes=2), (1, 64, 64, 3), {'classifier.6'}),  # Other classes.
    (
      classic,
      (1, 32, 32, 3),
      {'classifier.0', 'classifier.3', 'classifier.6'},
    ),  # Another size.
    (classic.clone(hidden=9), (1, 64, 64, 3), {'classifier.0', 'classifier.3', 'classifier.6'}),
  ):
    taken = loading.vgg16(path, network, shape)
    assert {name.rpartition('.')[0] for name in taken.report['at_random']} == left
    assert {name.rpartition('.')[0] for name in taken.report['unused']} == left
    assert len(taken.report['taken']) == 32 - 2 * len(left) and 'trunk' in taken.variables['params']
  assert 'belongs to a layer that does not fit' in taken.report['at_random'].values()
  del weights['features.28.bias']
  assert 'features.28.bias is missing' in refusal(
    weights, classic, tmp_path, loading.vgg16, (1, 64, 64, 3)
  )


@pytest.mark.parametrize('channels', [1, 4])
def test_a_first_layer_of_other_depth_gives_for_equal_channels_what_it_gave(
  torch_networks, outputs, images, tmp_path, channels
):
  theirs = torch_networks.randomise(torch_networks.UNet(outputs=2, width=4))
  path = save(tmp_path / 'unet.npz', torch_networks.arrays(theirs))
  network, grey = UNet(out_channels=2, width=4), images[..., :1]
  taken = loading.unet(path, network, (*SHAPE[:3], channels), adapt=True)
  near(
    f'U-Net in, {channels} channels',
    outputs(network, taken.variables, np.repeat(grey, channels, -1)),
    torch_networks.apply(theirs, np.repeat(grey, 3, -1)),
  )
  assert taken.report['adapted'] == loading.lines(taken.report)[1].strip()
  assert f'inc.double_conv.0.weight sees 3 channels and ours {channels}' in taken.report['adapted']
  assert loading.unet(path, network, SHAPE, adapt=True).report['adapted'] == ''


def test_vgg16s_of_other_depth(torch_networks, tmp_path):
  theirs = torch_networks.randomise(torch_networks.VGG16(5, width=4, hidden=16, pooled=1))
  path = save(tmp_path / 'vgg.npz', torch_networks.arrays(theirs))
  shape = (1, 32, 32, 4)
  trunk = loading.vgg16_trunk(path, VGG16Trunk(stages=3, width=4), shape, adapt=True)
  whole = loading.vgg16(path, VGG16(5, width=4, hidden=16, head='pooled'), shape, adapt=True)
  expected = theirs.features[0].weight.detach().numpy().transpose(2, 3, 1, 0).mean(2) * 3 / 4
  for variables in (trunk.variables, whole.variables):
    kernel = variables['params']['trunk']['conv1_1']['kernel']
    np.testing.assert_allclose(kernel, np.stack([expected] * 4, 2), rtol=1e-6)
  with pytest.raises(UserError, match='is 4x3x3x3, not 5x4x3x3'):
    loading.vgg16_trunk(path, VGG16Trunk(stages=3, width=5), shape, adapt=True)


def test_the_lines_say_what_a_vgg16_sees(draw, tmp_path):
  network = VGG16(2, width=2, hidden=8, head='pooled')
  weights = saving.outward(draw(network, SHAPE), names.vgg16(2))
  path = save(tmp_path / 'w.npz', weights)
  _, line = loading.lines(loading.vgg16(path, network, SHAPE).report)
  assert line == '  they see images scaled as (value / 255 - 0.5) / 0.25, by its shape'
