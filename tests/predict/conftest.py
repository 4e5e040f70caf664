"""Networks that were not trained: what they find is nothing to look at, but it is as exact."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import Config, DataConfig, MaskingConfig, ModelConfig
from ahm_jax.models.layers import init_variables
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs.trained import Trained

SIZE = 16


@pytest.fixture(scope='session')
def make_segmenter():
  """make_segmenter(classes=(), channels=3, diagnoses=(), modalities=()): a U-Net whose weights are
  random, and differ from call to call by `seed`.
  """

  def make(classes=(), channels=3, seed=0, diagnoses=(), **data):
    name = 'folder' if classes or data else 'phantom'
    config = Config(
      data=DataConfig(
        name=name, root='.', image_size=SIZE, channels=channels, mask_classes=classes, **data
      ),
      model=ModelConfig(unet_width=2, sync_batch_norm=False),
      masking=MaskingConfig(patch_size=8),
    )
    unet = SEGMENT.network(config, diagnoses)
    variables = init_variables(unet, jax.random.key(seed), (1, SIZE, SIZE, config.data.depth))
    kept = {part: jax.tree.map(np.asarray, variables[part]) for part in ('params', 'batch_stats')}
    return Trained(Path('run'), SEGMENT, config, 7, kept, diagnoses)

  return make


@pytest.fixture(scope='session')
def segmenter(make_segmenter):
  return make_segmenter()


@pytest.fixture
def images(tmp_path):
  """Images of several sizes and kinds, some in a folder of the folder."""
  root = tmp_path / 'images'
  (root / 'sub').mkdir(parents=True)
  rng = np.random.default_rng(0)
  for number, name in enumerate(
    ('a.png', 'b.png', 'c.bmp', 'd.webp', 'e.tif', 'sub/a.png', 'sub/f.jpg')
  ):
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(coarse).resize(
      (30 + 9 * number, 41 - 3 * number), Image.Resampling.BICUBIC
    ).save(root / name)
  return root
