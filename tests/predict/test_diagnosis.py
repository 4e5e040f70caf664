"""A classifier that goes with a segmenter, held against its network."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from ahm_jax.config import ClassifyConfig, Config, DataConfig, MaskingConfig, ModelConfig
from ahm_jax.errors import UserError
from ahm_jax.models.layers import variable_shapes
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.predict.diagnosis import check_together, diagnose, lesions
from ahm_jax.runs.trained import Trained
from ahm_jax.runtime import trees

SIZE = 16
CONFIG = Config(
  data=DataConfig(image_size=SIZE),
  model=ModelConfig(vgg_width=2, vgg_hidden=8, vgg_norm='batch'),
  masking=MaskingConfig(patch_size=8),
  classify=ClassifyConfig(input='image'),
)


def test_a_diagnosis_is_by_running_statistics():
  generator = np.random.default_rng(0)
  bare = Trained(Path('run'), CLASSIFY, CONFIG, 1, {}, ('a', 'b'))
  shapes = trees.flatten(variable_shapes(bare.network, (1, *bare.shape)))
  numbers = {
    name: generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
    for name, leaf in shapes.items()
  }
  numbers |= {
    name: np.abs(numbers[name]) + 0.5 for name in numbers if name.endswith(('scale', 'var'))
  }
  variables = trees.unflatten({name: array.astype(np.float32) for name, array in numbers.items()})
  images = generator.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
  nothing = np.zeros(images.shape[:3], bool)
  others = jax.tree.map(lambda x: x + 1, variables['batch_stats'])
  classifier = dataclasses.replace(bare, variables=variables)
  other = dataclasses.replace(bare, variables={**variables, 'batch_stats': others})
  found, shifted = (diagnose(item, images, nothing) for item in (classifier, other))
  scaled = (images / np.float32(255) - 0.5) / 0.25
  logits = np.asarray(bare.network.apply(variables, scaled, train=False))
  expected = np.exp(logits - logits.max(1, keepdims=True))
  np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-5)
  assert np.abs(found - shifted).max() > 1e-3
  assert classifier.digest != other.digest


@pytest.mark.parametrize(
  ('probabilities', 'expected'),
  [
    ([[[0.5, 0.4]]], [[[True, False]]]),
    ([[[[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]]]], [[[False, True]]]),
  ],
  ids=['binary', 'classes'],
)
def test_lesions_are_where_something_is_found(probabilities, expected):
  np.testing.assert_array_equal(lesions(np.float32(probabilities), 0.5), expected)


@pytest.mark.parametrize(
  ('own', 'other', 'said'),
  [
    ({}, {'modality_dropout': 0.2}, 'trained without config.data.modality_dropout'),
    ({'intensity': ('zscore',)}, {}, r"config.data.intensity=\('zscore',\)"),
    ({'modalities': ('t2', 't1')}, {}, 'config.data.modalities='),
    ({'slice_axis': 0}, {}, 'config.data.slice_axis=0'),
    ({'modalities': ()}, {'modalities': (), 'window': (40.0, 400.0)}, r'config.data.window=\(\)'),
  ],
)
def test_networks_that_see_images_differently_are_refused(own, other, said):
  both = []
  for fields in (own, other):
    data = DataConfig(name='folder', **{'modalities': ('t1', 't2'), **fields})
    both.append(Trained(Path('run'), CLASSIFY, dataclasses.replace(CONFIG, data=data), 1, {}))
  with pytest.raises(UserError, match=said):
    check_together(*both)
  check_together(both[0], both[0])
