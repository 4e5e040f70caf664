"""Weights of a VGG16 that sees images as others do; `launch.export` as a whole is tested there."""

import dataclasses

import jax
import numpy as np
import pytest

from ahm_jax.config import Config
from ahm_jax.export.export import FORMATS
from ahm_jax.models.inputs import SCALINGS
from ahm_jax.models.layers import variable_shapes
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.runs.trained import Trained
from ahm_jax.weights import files, inputs, loading


@pytest.mark.parametrize('kind', ['npz', 'safetensors'])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', SCALINGS)
def test_weights_say_what_they_take_and_come_back(tmp_path, name, channels, kind):
  if kind == 'safetensors':
    pytest.importorskip('safetensors')
  model = dataclasses.replace(Config().model, vgg_input=name, vgg_width=2, vgg_hidden=8)
  data = dataclasses.replace(Config().data, image_size=32, channels=channels)
  config = dataclasses.replace(Config(), model=model, data=data)
  trained = Trained(tmp_path, CLASSIFY, config, 3, {}, ('a', 'b'))
  generator = np.random.default_rng(0)
  shapes = variable_shapes(trained.network, (1, *trained.shape))
  draw = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
  trained = dataclasses.replace(trained, variables=draw)
  notes = FORMATS[kind].write(trained, tmp_path, ())
  grey = ', a grey one in each channel' if name and channels == 1 else ''
  assert notes['takes'] == f'images scaled as {SCALINGS[name].said}{grey}'
  path = tmp_path / f'weights.{kind}'
  assert files.metadata(path)[inputs.MARK] == name
  back = loading.vgg16(path, trained.network, (1, *trained.shape))
  assert back.report['input_known_by'] == 'the file'
  assert jax.tree.all(jax.tree.map(np.array_equal, back.variables, trained.variables))
  # As they lie in the file: blue first in Caffe's.
  kernel = draw['params']['trunk']['conv1_1']['kernel'].transpose(3, 2, 0, 1)
  first = files.read(path)['features.0.weight']
  np.testing.assert_array_equal(first, kernel[:, ::-1] if name == 'caffe' else kernel)
