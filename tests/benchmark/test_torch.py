"""The PyTorch side: the same networks, and steps that train. Skipped without the `bench` extra."""

import jax
import numpy as np
import pytest

from ahm_jax.models.unet import UNet
from ahm_jax.models.vgg16 import VGG16

torch = pytest.importorskip('torch')

from ahm_jax.benchmark import public_loop, torch_networks, torch_steps  # noqa: E402

pytestmark = pytest.mark.usefixtures('one_torch_thread')


def our_parameters(module, side):
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), np.zeros((1, side, side, 3), np.float32), train=False)
  )
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


def test_networks_have_as_many_parameters_as_ours():
  def theirs(network):
    return sum(parameter.numel() for parameter in network.parameters())

  assert theirs(torch_networks.UNet(width=64)) == our_parameters(UNet(), 16) == 31_037_633
  assert theirs(torch_networks.VGG16(3, width=8, hidden=32)) == our_parameters(
    VGG16(num_classes=3, width=8, hidden=32, head='pooled'), 32
  )


@pytest.mark.parametrize('form', torch_steps.FORMS['cpu'], ids=lambda form: form.name)
def test_steps_run_in_every_form(form):
  for build, side in (('unet_training', 16), ('vgg16_training', 32), ('unet_inference', 16)):
    getattr(torch_steps, build)(2, side, 2, form, 'cpu')()


def test_the_public_loop_reconstructs_better_with_time_and_never_trains_its_agent():
  torch.manual_seed(0)
  loop = public_loop.PublicLoop(4, 'cpu')
  before = [parameter.detach().clone() for parameter in loop._policy.parameters()]
  image = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
  errors = [loop(image) for _ in range(30)]
  assert np.mean(errors[-5:]) < np.mean(errors[:5])
  assert all(torch.equal(a, b) for a, b in zip(before, loop._policy.parameters(), strict=True))


def test_channels_become_the_pixels_of_a_tile():
  policy = np.arange(256)[:, None, None] + 1000.0 * np.arange(4).reshape(2, 2)
  tiles = public_loop._tiles(policy, (32, 32))
  assert tiles[0, 1] == 1 and tiles[1, 0] == 16 and tiles[15, 15] == 255
  assert tiles[0, 16] == 1000 and tiles[16, 0] == 2000 and tiles[31, 31] == 3255
