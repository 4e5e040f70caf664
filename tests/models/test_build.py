import dataclasses

import jax.numpy as jnp
import pytest

from ahm_jax.config import MaskingConfig, ModelConfig
from ahm_jax.models import build
from ahm_jax.runtime.parallel import DEVICES

NETWORKS = {
  'reconstruction_unet': lambda model: build.reconstruction_unet(model, 3),
  'segmentation_unet': build.segmentation_unet,
  'classifier': lambda model: build.classifier(model, 2),
  'agent': lambda model: build.agent(model, MaskingConfig()),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_compute_as_the_config_says_and_are_equal_where_it_is(name):
  make, model = NETWORKS[name], ModelConfig()
  assert make(model).dtype == jnp.float32
  assert make(model).axis_name == DEVICES
  other = dataclasses.replace(model, dtype='bfloat16', sync_batch_norm=False)
  assert make(other).dtype == jnp.bfloat16
  assert make(other).axis_name is None
  assert make(model) == make(ModelConfig())
  assert hash(make(model)) == hash(make(ModelConfig()))
  assert make(model) != make(other)


def test_outputs_and_sizes():
  model = ModelConfig(unet_width=8, agent_width=4, agent_trunk='light', vgg_width=2, vgg_hidden=16)
  assert build.reconstruction_unet(model, 1).out_channels == 1
  assert build.segmentation_unet(model).out_channels == 1  # The logit of lesion.
  assert build.segmentation_unet(model, 3).out_channels == 4  # Background too.
  assert build.segmentation_unet(dataclasses.replace(model, recompute=True)).recompute
  assert build.segmentation_unet(model).width == 8
  vgg = build.classifier(dataclasses.replace(model, vgg_norm='batch', vgg_input='torchvision'), 5)
  assert (vgg.num_classes, vgg.width, vgg.hidden, vgg.norm) == (5, 2, 16, 'batch')
  assert vgg.input == 'torchvision'
  seeing = dataclasses.replace(model, vgg_input='torchvision')
  assert build.agent(seeing, MaskingConfig()).input == ''  # It takes no weights of others.
  assert build.agent(seeing, MaskingConfig(), input='torchvision').input == 'torchvision'
  agent = build.agent(model, MaskingConfig(patch_size=8))
  assert (agent.trunk, agent.width, agent.patch_size) == ('light', 4, 8)
