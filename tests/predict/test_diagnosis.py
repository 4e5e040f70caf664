"""A classifier that goes with a segmenter, held against its network."""

import jax
import numpy as np

from ahm_jax.config import ClassifyConfig, Config, DataConfig, MaskingConfig, ModelConfig
from ahm_jax.models.build import classifier
from ahm_jax.predict.diagnosis import Classifier
from ahm_jax.runtime import trees
from ahm_jax.weights import loading

SIZE = 16


def test_a_diagnosis_is_by_running_statistics():
  config = Config(
    data=DataConfig(image_size=SIZE),
    model=ModelConfig(vgg_width=2, vgg_hidden=8, vgg_norm='batch'),
    masking=MaskingConfig(patch_size=8),
    classify=ClassifyConfig(input='image'),
  )
  vgg, generator = classifier(config.model, 2), np.random.default_rng(0)
  shapes = trees.flatten(loading.expected(vgg, (1, SIZE, SIZE, 3)))
  numbers = {
    name: generator.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
    for name, leaf in shapes.items()
  }
  numbers |= {
    name: np.abs(numbers[name]) + 0.5 for name in numbers if name.endswith(('scale', 'var'))
  }
  variables = trees.unflatten({name: array.astype(np.float32) for name, array in numbers.items()})
  images = generator.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
  lesions = np.zeros(images.shape[:3], bool)
  classifier = Classifier(config, ('a', 'b'), variables['params'], variables['batch_stats'])
  others = jax.tree.map(lambda x: x + 1, variables['batch_stats'])
  other = Classifier(config, ('a', 'b'), variables['params'], others)
  found, shifted = (item.probabilities(images, lesions) for item in (classifier, other))
  logits = np.asarray(vgg.apply(variables, (images / np.float32(255) - 0.5) / 0.25, train=False))
  expected = np.exp(logits - logits.max(1, keepdims=True))
  np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-5)
  assert np.abs(found - shifted).max() > 1e-3
  assert classifier.digest != other.digest
