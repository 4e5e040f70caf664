"""Features of a picture by weights of others, against the pipeline that they were trained in, which
PyTorch and NumPy compute; and what a file says of its pipeline.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ahm_jax.data.augment import normalise
from ahm_jax.errors import UserError
from ahm_jax.models.inputs import CAFFE, OWN, SCALINGS, TORCHVISION
from ahm_jax.models.vgg16 import VGG16, VGG16Trunk
from ahm_jax.runtime.npz import Stored
from ahm_jax.weights import files, inputs, loading, names, norms, saving

SIDE = 48  # conv4_3's map has 6 x 6 pixels, of which some see no border.


def picture(channels):
  return np.random.default_rng(5).integers(0, 256, (1, SIDE, SIDE, channels), np.uint8)


def original(name, pixels):
  """What the project shows its network, [B, H, W, 3], as its documentation has it; in OWN what an
  export of ours asks for.
  """
  if pixels.shape[-1] == 1:
    pixels = np.concatenate([pixels] * 3, -1)
  if name == TORCHVISION:  # ToTensor, Normalize.
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return ((pixels / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
  if name == CAFFE:  # keras.applications.vgg16.preprocess_input.
    return pixels[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
  return ((pixels / 255 - 0.5) / 0.25).astype(np.float32)


def theirs_of(torch_networks, name, norm):
  """A VGG16 of random weights, of which those for Caffe's images keep activations near 1."""
  network = torch_networks.randomise(
    torch_networks.VGG16(3, width=4, hidden=8, pooled=1, norm=bool(norm))
  )
  if name == CAFFE:
    network.features[0].weight.data /= 70
  return network


def layers_of(torch_networks, theirs, images):
  """What comes out of conv1_1, conv3_3 and conv4_3, ReLUs included, by name."""
  step = 3 if len(theirs.features) > 31 else 2  # A norm after each convolution.
  ends = {'conv1_1': step, 'conv3_3': 7 * step + 2, 'conv4_3': 10 * step + 3}
  return {name: torch_networks.apply(theirs.features[:end], images) for name, end in ends.items()}


def features(network, variables, pixels):
  """The same of ours, by the images that our trainings show it."""

  def run(variables, pixels):
    shown = normalise(pixels / jnp.float32(255))
    return network.apply(
      variables, shown, train=False, capture_intermediates=True, mutable=['intermediates']
    )[1]['intermediates']

  found = jax.jit(run)(variables, pixels)
  found = found.get('trunk', found)
  layers = {name: layer['__call__'][0] for name, layer in found.items() if name != '__call__'}
  return {name: np.asarray(jax.nn.relu(layer)) for name, layer in layers.items()}


def near(ours, theirs):
  assert ours.shape == theirs.shape and theirs.std() > 0.1
  # To the last pixel of the border.
  np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize('channels', [3, 1])
@pytest.mark.parametrize(
  ('form', 'name', 'norm'),
  [
    ('torch', TORCHVISION, ''),
    ('torch', TORCHVISION, 'batch'),
    ('keras', CAFFE, ''),
    ('torch', CAFFE, ''),
    ('torch', CAFFE, 'batch'),
    ('keras', TORCHVISION, ''),
  ],
)
def test_features_are_those_of_the_original_pipeline(
  torch_networks, tmp_path, form, name, norm, channels
):
  theirs, pixels = theirs_of(torch_networks, name, norm), picture(channels)
  arrays = torch_networks.keras_arrays if form == 'keras' else torch_networks.arrays
  files.write(tmp_path / 'w.npz', arrays(theirs), {})
  network = VGG16(3, width=4, hidden=8, head='pooled', norm=norm, input=name)
  taken = loading.vgg16(tmp_path / 'w.npz', network, (1, SIDE, SIDE, channels))
  assert taken.report['at_random'] == {} and taken.report['unused'] == []
  assert taken.report['input'] == SCALINGS[name].said
  expected = layers_of(torch_networks, theirs, original(name, pixels))
  found = features(network, taken.variables, pixels)
  for layer, array in expected.items():
    near(found[layer], array)


@pytest.mark.parametrize('norm', ['', 'batch'])
@pytest.mark.parametrize('name', [TORCHVISION, CAFFE])
def test_the_agents_trunk_sees_the_original_pipeline_too(torch_networks, tmp_path, name, norm):
  theirs, pixels = theirs_of(torch_networks, name, norm), picture(1)
  files.write(tmp_path / 'w.npz', torch_networks.arrays(theirs), {})
  trunk = VGG16Trunk(stages=3, width=4, input=name)
  taken = loading.vgg16_trunk(tmp_path / 'w.npz', trunk, (1, SIDE, SIDE, 1))
  found = features(trunk, {'params': taken.variables['params']['trunk']}, pixels)
  expected = layers_of(torch_networks, theirs, original(name, pixels))
  for layer in ('conv1_1', 'conv3_3'):
    near(found[layer], expected[layer])


@pytest.mark.parametrize('norm', ['', 'batch'])
@pytest.mark.parametrize(('name', 'channels'), [(OWN, 3), (TORCHVISION, 1), (CAFFE, 3)])
def test_what_leaves_works_in_the_original_pipeline_and_comes_back_to_the_bit(
  torch_networks, draw, tmp_path, name, channels, norm
):
  network = VGG16(3, width=4, hidden=8, head='pooled', norm=norm, input=name)
  shape, pixels = (1, SIDE, SIDE, channels), picture(channels)
  variables = draw(network, shape)
  if name == CAFFE:
    first = variables['params']['trunk']['conv1_1']
    (first['convolution'] if norm else first)['kernel'] /= 70
  arrays = saving.outward(variables, names.vgg16(4, norm, name))
  arrays = saving.with_counters(norms.with_zero_biases(arrays) if norm else arrays, 3)
  files.write(tmp_path / 'w.npz', arrays, {inputs.MARK: name})
  theirs = theirs_of(torch_networks, OWN, norm)
  torch_networks.put(theirs, files.read(tmp_path / 'w.npz'))
  found = features(network, variables, pixels)
  for layer, array in layers_of(torch_networks, theirs, original(name, pixels)).items():
    near(found[layer], array)
  back = loading.vgg16(tmp_path / 'w.npz', network, shape)
  assert back.report['input_known_by'] == 'the file'
  assert jax.tree.all(jax.tree.map(np.array_equal, back.variables, variables))


def stored(*shape):
  return Stored(shape, 'float32', lambda: np.zeros(shape, np.float32))


FEATURES = {names.FIRST_TORCHVISION: stored(4, 3, 3, 3)}
KERAS = {names.FIRST_KERAS: stored(3, 3, 3, 4)}
WHOLE = {**FEATURES, 'classifier.0.weight': stored(8, 32 * 49)}  # As torchvision's.
POOLED = {**FEATURES, 'classifier.0.weight': stored(8, 32)}  # As ours.
OLD = {'format': 'pt', 'stage': 'classify', 'digest': 'a'}


def marked(name):
  return {**OLD, inputs.MARK: name}


@pytest.mark.parametrize(
  ('weights', 'texts', 'own', 'known_by'),
  [
    (POOLED, {}, OWN, 'its shape'),
    (POOLED, OLD, OWN, 'the file'),
    (FEATURES, OLD, OWN, 'the file'),
    (POOLED, {}, TORCHVISION, 'config.model.vgg_input'),
    (WHOLE, {'format': 'pt'}, TORCHVISION, 'config.model.vgg_input'),
    (FEATURES, {}, CAFFE, 'config.model.vgg_input'),
    (KERAS, {}, CAFFE, 'config.model.vgg_input'),
    (KERAS, {}, TORCHVISION, 'config.model.vgg_input'),
    *((POOLED, marked(name), name, 'the file') for name in SCALINGS),
  ],
)
def test_what_a_file_was_trained_on_is_known_by(tmp_path, weights, texts, own, known_by):
  found = inputs.check(tmp_path, weights, texts, own)
  assert found == {'input': SCALINGS[own].said, 'input_known_by': known_by}


RGB = re.escape(SCALINGS[TORCHVISION].said)
BGR = re.escape(SCALINGS[CAFFE].said)
GREY = re.escape(SCALINGS[OWN].said)


@pytest.mark.parametrize(
  ('weights', 'texts', 'own', 'says'),
  [
    (WHOLE, {}, OWN, f"by torchvision's names, .* {RGB}, .*vgg_input=torchvision, or caffe wh"),
    (FEATURES, {'format': 'pt'}, OWN, 'vgg_input=torchvision, or caffe where it comes from Caffe$'),
    ({names.FIRST_TORCHVISION: stored()}, {}, OWN, "by torchvision's names"),
    ({**FEATURES, 'classifier.0.weight': stored()}, {}, OWN, "by torchvision's names"),
    (KERAS, {}, OWN, f"by Keras's names, .* {BGR}, and nothing is loaded; .*vgg_input=caffe$"),
    (POOLED, OLD, TORCHVISION, f"that we exported, .* {GREY}, and nothing .*vgg_input=''$"),
    (POOLED, marked(TORCHVISION), OWN, f'that we exported, .* {RGB}, .*vgg_input=torchvision$'),
    (POOLED, marked(CAFFE), TORCHVISION, f'that we exported, .* {BGR}, .*vgg_input=caffe$'),
    (POOLED, marked('tf\n\x1b[31m'), OWN, 'which is none of torchvision, caffe; export it again$'),
  ],
)
def test_another_scaling_is_refused_in_a_line(tmp_path, weights, texts, own, says):
  with pytest.raises(UserError, match=says) as caught:
    inputs.check(tmp_path / 'vgg16.npz', weights, texts, own)
  line = str(caught.value)
  assert line.startswith(f'{tmp_path}/vgg16.npz ') and line.isprintable()
