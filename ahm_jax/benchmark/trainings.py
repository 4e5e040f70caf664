"""Our tasks on random images, a step at a time."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ahm_jax import config as config_module
from ahm_jax.config import Config
from ahm_jax.data.batches import Beside, Source, source
from ahm_jax.data.dataset import Split
from ahm_jax.training import classify, pretrain, segment
from ahm_jax.training.stepper import FAR, Stepper

CLASSES = 3


class Sizes(NamedTuple):
  """What is measured on one kind of device."""

  unet_width: int
  unet_side: int
  unet_batches: tuple[int, ...]
  dtypes: tuple[str, ...]
  pretrain_width: int
  pretrain_side: int
  pretrain_patch: int
  pretrain_batch: int
  vgg_width: int
  vgg_side: int
  vgg_batch: int
  growth_batches: tuple[int, ...]
  growth_sides: tuple[int, ...]
  scaling_batch: int  # Images a device.
  predict_width: int = 32
  predict_side: int = 224
  predict_images: int = 32


SIZES = {
  'cpu': Sizes(
    unet_width=64,
    unet_side=128,
    unet_batches=(4,),
    dtypes=('float32',),
    pretrain_width=16,
    pretrain_side=64,
    pretrain_patch=8,
    pretrain_batch=16,
    vgg_width=64,
    vgg_side=128,
    vgg_batch=4,
    growth_batches=(1, 4, 16, 64),
    growth_sides=(64, 128, 256, 512),
    scaling_batch=8,
  ),
  'gpu': Sizes(
    unet_width=64,
    unet_side=224,
    unet_batches=(4, 12, 64),
    dtypes=('float32', 'bfloat16'),
    pretrain_width=64,
    pretrain_side=224,
    pretrain_patch=16,
    pretrain_batch=48,
    vgg_width=64,
    vgg_side=224,
    vgg_batch=64,
    growth_batches=(1, 4, 16, 64),
    growth_sides=(64, 128, 256, 512),
    scaling_batch=16,
    predict_width=64,
    predict_images=512,
  ),
}


def random_split(count: int, side: int, seed: int = 0) -> Split:
  """`count` images of noise with masks and labels of noise."""
  rng = np.random.default_rng(seed)
  return Split(
    ids=tuple(map(str, range(count))),
    images=rng.integers(0, 256, (count, side, side, 3), np.uint8),
    masks=rng.integers(0, 2, (count, side, side), np.uint8),
    labels=rng.integers(0, CLASSES, count).astype(np.int32),
    has_mask=np.ones(count, bool),
    groups=tuple(map(str, range(count))),
    full_masks=(b'',) * count,
  )


def configured(width: int, side: int, batch: int, augmented: bool, **fields: Any) -> Config:
  """The defaults at a size; `fields` are dotted names with __ for the dot, such as
  masking__workers=4.

  Without augmentation a step is the network's alone.
  """
  tree = config_module.default()
  tree.model.unet_width = tree.model.agent_width = tree.model.vgg_width = width
  tree.data.image_size = side
  for recipe in (tree.pretrain, tree.segment, tree.classifier):
    recipe.batch_size = batch
  if not augmented:
    for stage in ('pretrain', 'segment', 'classifier'):
      tree[stage].augment.update(flip=False, scale=0.0, brightness=0.0, contrast=0.0, hue=0.0)
  tree.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )
  return config_module.from_config_dict(tree)


def pretraining(
  config: Config, split: Split, resident: bool = True, devices: Sequence[jax.Device] | None = None
) -> Stepper:
  """On `devices`; on all where None."""
  return Stepper(
    pretrain.build(config, split, FAR, steps_per_epoch=1), _source(config, split, resident, devices)
  )


def segmentation(config: Config, split: Split) -> Stepper:
  return Stepper(
    segment.build(config, split, FAR, steps_per_epoch=1), _source(config, split, resident=True)
  )


def classification(config: Config, split: Split) -> Stepper:
  return Stepper(
    classify.build(config, split, CLASSES, FAR, steps_per_epoch=1),
    _source(config, split, resident=True),
  )


def _source(
  config: Config, split: Split, resident: bool, devices: Sequence[jax.Device] | None = None
) -> Source:
  share = config.data.resident_share if resident else 0.0
  unlabelled = config.segment.unlabelled.batch_size
  data = dataclasses.replace(config.data, resident_share=share)
  return source(
    split,
    data,
    np.arange(len(split)),
    config.pretrain.batch_size,
    seed=0,
    devices=devices,
    beside=(Beside.unlabelled(split, unlabelled),) if unlabelled else (),
  )
