import dataclasses
import io
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import MaskingConfig
from ahm_jax.data.dataset import Split
from ahm_jax.masking import registry
from ahm_jax.masking.strategy import Context
from ahm_jax.report.examples import make_examples, mask_and_reconstruct

MASKING = MaskingConfig(strategy='uniform', patch_size=4, mask_ratio=0.5)


class Unet(NamedTuple):
  """Answers with the masked image, 1 brighter: a quarter of the range.

  Masked pixels become 0.75.
  """

  def apply(self, variables, masked, train):
    assert not train
    return masked + variables['params']


class Nets(NamedTuple):
  strategy: Any
  masking: MaskingConfig
  unet: Unet = Unet()


def png(mask):
  file = io.BytesIO()
  Image.fromarray(mask).save(file, 'png')
  return file.getvalue()


@pytest.mark.parametrize('channels', [1, 3])
def test_examples(channels):
  generator = np.random.default_rng(0)
  images = generator.integers(0, 256, (2, 16, 16, channels), np.uint8)
  truths = np.zeros((24, 32), bool), np.zeros((16, 16), bool)
  truths[0][:, :16] = True
  names = ('wide', 'healthy')
  split = Split(
    names,
    images,
    np.zeros((2, 16, 16), np.uint8),
    np.zeros(2),
    np.ones(2, bool),
    names,
    tuple(map(png, truths)),
  )
  probabilities = np.zeros((2, 16, 16), np.float32)
  probabilities[0, :8, :8] = 1
  nets = Nets(registry.build(Context(MASKING, None, None, None)), MASKING)
  state = SimpleNamespace(params=jnp.float32(1), batch_stats={}, extra=())

  wide, healthy = make_examples(nets, state, probabilities, split, 0.5)

  assert (wide.id, healthy.id) == names
  assert wide.prediction.shape == wide.truth.shape == (24, 32)
  np.testing.assert_array_equal(wide.truth, truths[0])
  assert wide.prediction[:12, :16].all()
  assert wide.prediction.sum() == 12 * 16
  assert wide.dice == pytest.approx(2 * 192 / (192 + 384))
  assert np.isnan(healthy.dice)
  for example, image in zip((wide, healthy), images, strict=True):
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_allclose(example.policy, np.full((4, 4), 0.5), atol=1e-5)
    assert example.hidden.shape == (4, 4)
    assert example.hidden.dtype == bool
    assert example.hidden.any()
    assert not example.hidden.all()
    assert example.reconstruction.shape == image.shape
    assert example.reconstruction.dtype == np.uint8
    pixels = example.hidden.repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(example.reconstruction[~pixels], image[~pixels])
    assert set(example.reconstruction[pixels].ravel().tolist()) == {191}  # 0.75 * 255, rounded.


def test_of_patches_of_each_modality_the_first_is_shown_and_all_are_reconstructed():
  images = np.random.default_rng(0).integers(1, 120, (3, 16, 16, 4), np.uint8)
  masking = dataclasses.replace(MASKING, per_modality=True)
  nets = Nets(registry.build(Context(masking, None, None, None)), masking)
  state = SimpleNamespace(params=jnp.float32(1), batch_stats={}, extra=())
  policy, hidden, reconstruction = mask_and_reconstruct(nets, state, images)
  assert policy.shape == hidden.shape == (3, 4, 4) and reconstruction.shape == images.shape
  pixels = np.repeat(np.repeat(hidden > 0, 4, 1), 4, 2)
  np.testing.assert_array_equal(pixels, reconstruction[..., 0] == 191)
  changed = (reconstruction != images).mean((0, 1, 2))
  assert ((changed > 0.2) & (changed < 0.8)).all()
  assert (reconstruction[..., 1] != images[..., 1])[~pixels].any()  # Its mask is its own.
