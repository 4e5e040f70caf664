"""The smallest data, configs and driver that the three tasks can be tested with."""

import contextlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ahm_jax.config import (
  AugmentConfig,
  Config,
  DataConfig,
  EvaluateConfig,
  MaskingConfig,
  ModelConfig,
  PretrainConfig,
  RecipeConfig,
  SegmentConfig,
)
from ahm_jax.data.dataset import Split
from ahm_jax.models import unet
from ahm_jax.runs.metrics_log import SKIPPED
from ahm_jax.runtime import parallel
from ahm_jax.task import Batch
from ahm_jax.training import pretrain
from ahm_jax.training.parallel_step import REQUEST, Request, parallel_step, requests

SIZE, PATCH, IMAGES, STEPS = 16, 4, 8, 40
LEVELS = 2  # Of the U-Net.
STILL = AugmentConfig(flip=False, scale=0, brightness=0, contrast=0, hue=0)


@contextlib.contextmanager
def shallow():
  """U-Nets of two resolutions: the programs of five compile for several times as long."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(unet, 'LEVELS', LEVELS)
    yield


@pytest.fixture(scope='module', autouse=True)
def shallow_unets():
  with shallow():
    yield


@pytest.fixture(scope='session')
def make_config():
  """make_config(augment=False, learning_rate=3e-3, **masking fields): a config of all three
  tasks.
  """

  def make(augment=False, learning_rate=3e-3, **masking):
    augmentation = AugmentConfig() if augment else STILL
    recipe = RecipeConfig(
      batch_size=IMAGES, learning_rate=learning_rate, steps=STEPS, augment=augmentation
    )
    return Config(
      data=DataConfig(image_size=SIZE),
      model=ModelConfig(
        unet_width=4, agent_width=4, agent_trunk='light', vgg_width=4, vgg_hidden=32
      ),
      masking=MaskingConfig(
        **{'patch_size': PATCH, 'warmup': 0.0, 'learning_rate': 1e-3, 'strategy': 'uniform'}
        | masking
      ),
      pretrain=PretrainConfig(**vars(recipe)),
      segment=SegmentConfig(**vars(recipe)),
      classifier=recipe,
      evaluate=EvaluateConfig(batch_size=IMAGES),
    )

  return make


@pytest.fixture(scope='session')
def split():
  """8 dark, noisy images; each has a bright square lesion, larger from image to image, and none in
  the first two.

  The label is 1 where the red channel is raised.
  """
  generator = np.random.default_rng(0)
  images = generator.integers(0, 80, (IMAGES, SIZE, SIZE, 3), np.uint8)
  masks = np.zeros((IMAGES, SIZE, SIZE), np.uint8)
  for i in range(2, IMAGES):
    masks[i, 2 : 2 + 2 * i - 1, 1 : 1 + 2 * i - 1] = 1
  images[masks > 0] += 120
  labels = np.arange(IMAGES, dtype=np.int32) % 2
  images[labels == 1, :, :, 0] += 50
  names = tuple(f'image{i}' for i in range(IMAGES))
  return Split(names, images, masks, labels, np.ones(IMAGES, bool), names, (b'',) * IMAGES)


@pytest.fixture(scope='session')
def start():
  """start(task) -> its state at the beginning, as NumPy arrays."""

  def begin(task):
    return jax.tree.map(np.asarray, task.init(jax.random.key(0)))

  return begin


@pytest.fixture(scope='session')
def drive():
  """drive(task, state, split, *beside, devices=1, steps=1, seed=0) -> the state after so many
  steps of all images, a list of metrics.

  Every device has its share of the images of `split`, and of each split beside behind them.
  """

  def run(task, state, *splits, devices=1, steps=1, seed=0):
    over = tuple(jax.local_devices()[:devices])
    advance = parallel_step(task.step, over)
    ends = np.cumsum([0, *map(len, splits)], dtype=np.int32)
    rows = [
      [
        parallel.own_rows(array, over)
        for array in (part.images, part.masks, part.labels, np.arange(first, last, dtype=np.int32))
      ]
      for part, first, last in zip(splits, ends, ends[1:], strict=False)
    ]
    batch = Batch(*(np.concatenate(columns, 1) for columns in zip(*rows, strict=True)))
    key = parallel.replicate(jax.random.key(seed), over)
    state, history = parallel.replicate(state, over), []
    for _ in range(steps):
      state, metrics = advance(state, None, batch, key, requests(Request.NONE, over))
      assert not metrics.pop(REQUEST).any() and not metrics.pop(SKIPPED).any()
      history.append(jax.tree.map(lambda x: np.asarray(x[0])[()], jax.device_get(metrics)))
    return jax.tree.map(np.array, parallel.one_copy(state)), history

  return run


@pytest.fixture(scope='session')
def pretrained(make_config, split, start, drive):
  """A U-Net after 40 steps under uniform masks: its start, its end, and the metrics between."""
  config = make_config(augment=True, workers=4)
  with shallow():  # This fixture comes before those of a module.
    task = pretrain.build(config, split, STEPS, 1)
    first = start(task)
    last, history = drive(task, first, split, steps=STEPS)
  return SimpleNamespace(config=config, task=task, first=first, last=last, history=history)


@pytest.fixture(scope='session')
def assert_close():
  """assert_close(one, other): pytrees that are equal to a share of 1e-4, or to 1e-5 of their
  largest element.
  """

  def compare(one, other):
    one, other = np.asarray(one), np.asarray(other)
    np.testing.assert_allclose(
      one, other, rtol=1e-4, atol=1e-5 * max(np.abs(other).max(initial=0), 1e-3)
    )

  return lambda one, other: jax.tree.map(compare, one, other)
