"""The networks of a config."""

import jax.numpy as jnp

from ahm_jax.config import ModelConfig
from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16

DEVICES = 'devices'


def reconstruction_unet(model: ModelConfig, channels: int) -> UNet:
  return UNet(
    out_channels=channels,
    width=model.unet_width,
    dtype=jnp.dtype(model.dtype),
    axis_name=DEVICES if model.sync_batch_norm else None,
    recompute=model.recompute,
  )


def segmentation_unet(model: ModelConfig, classes: int = 0) -> UNet:
  return reconstruction_unet(model, classes + 1)


def classifier(model: ModelConfig, classes: int) -> VGG16:
  return VGG16(
    num_classes=classes,
    width=model.vgg_width,
    hidden=model.vgg_hidden,
    head='pooled',
    norm=model.vgg_norm,
    dtype=jnp.dtype(model.dtype),
    axis_name=DEVICES if model.sync_batch_norm else None,
  )
