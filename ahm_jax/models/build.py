"""The networks of a config.

Flax modules are frozen and compare by their fields: equal configs give equal networks, which are
one key of the caches of compiled programs.
"""

import jax.numpy as jnp

from ahm_jax.config import MaskingConfig, ModelConfig
from ahm_jax.models.agent import Agent
from ahm_jax.models.inputs import OWN
from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16
from ahm_jax.runtime.parallel import DEVICES


def reconstruction_unet(model: ModelConfig, channels: int) -> UNet:
  """The U-Net of pre-training: images [B, H, W, channels] -> images."""
  return UNet(
    out_channels=channels,
    width=model.unet_width,
    dtype=jnp.dtype(model.dtype),
    axis_name=_axis_name(model),
    recompute=model.recompute,
  )


def segmentation_unet(
  model: ModelConfig, classes: int = 0, diagnoses: int = 0, reconstructs: int = 0
) -> UNet:
  """The U-Net for so many classes of mask: images -> logits, [B, H, W, classes + 1].

  0 classes: lesion and background, told apart by one logit. It may tell diagnoses of images
  too, and reconstruct so many channels.
  """
  unet = reconstruction_unet(model, classes + 1)
  return unet.clone(diagnoses=diagnoses, reconstructs=reconstructs)


def classifier(model: ModelConfig, classes: int) -> VGG16:
  """The VGG16 that tells so many diagnoses apart: images -> logits, [B, classes]."""
  return VGG16(
    num_classes=classes,
    width=model.vgg_width,
    hidden=model.vgg_hidden,
    head='pooled',
    norm=model.vgg_norm,
    input=model.vgg_input,
    dtype=jnp.dtype(model.dtype),
    axis_name=_axis_name(model),
  )


def agent(model: ModelConfig, masking: MaskingConfig, channels: int = 1, input: str = OWN) -> Agent:
  """The agent that masks patches: images -> logits and values, each [B, g, g]; where every channel
  has patches of its own, [B, g, channels g].

  Args:
    input: as `Agent` has it.
  """
  return Agent(
    trunk=model.agent_trunk,
    width=model.agent_width,
    patch_size=masking.patch_size,
    modalities=channels if masking.per_modality else 1,
    input=input,
    dtype=jnp.dtype(model.dtype),
    axis_name=_axis_name(model),
  )


def _axis_name(model: ModelConfig) -> str | None:
  """Over which batch statistics are taken together.

  Workers have no axis here: all their images are one batch, see `as_one_batch`.
  """
  return DEVICES if model.sync_batch_norm else None
