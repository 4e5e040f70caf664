"""The loop of the public PyTorch reproduction, as its report describes it, to compare with; needs
the `bench` extra.

One image a step. The agent's maps leave the device as NumPy arrays: the mask is a threshold of
them, laid out as tiles of single pixels, the image is masked on the host, and the losses of policy
and value are formed on the host too, so that the agent is never trained.
"""

import numpy as np
import torch
from torch import nn

from ahm_jax.benchmark.torch_networks import UNet, vgg16_trunk

CHANNELS = 256  # Of the policy map: a tile of 16 x 16 pixels for each place.
GAMMA, ENTROPY_WEIGHT = 0.99, 0.01


def _head(channels: int, outputs: int) -> nn.Sequential:
  layers: list[nn.Module] = []
  for _ in range(3):
    layers += [
      nn.Conv2d(channels, channels, 3, padding=1),
      nn.BatchNorm2d(channels),
      nn.ReLU(inplace=True),
    ]
  return nn.Sequential(*layers, nn.Conv2d(channels, outputs, 1))


class PublicLoop:
  """Call it with an image, float32 [C, H, W] on the host, for one training step; returns the
  reconstruction loss.

  Args:
    width: of the U-Net and of the trunk.
    device: where the networks live.
  """

  def __init__(self, width: int, device: str):
    self._device = device
    self._trunk = nn.Sequential(vgg16_trunk(3, width), nn.MaxPool2d(2), nn.MaxPool2d(2)).to(device)
    self._policy = _head(4 * width, CHANNELS).to(device)
    self._value = _head(4 * width, 1).to(device)
    self._unet = UNet(out_channels=3, width=width).to(device)
    agent = [*self._trunk.parameters(), *self._policy.parameters(), *self._value.parameters()]
    self._optimizer = torch.optim.Adam([*self._unet.parameters(), *agent], lr=2e-4)

  def __call__(self, image: np.ndarray) -> float:
    device_image = torch.from_numpy(image[None]).to(self._device)
    features = self._trunk(device_image)
    policy = torch.sigmoid(self._policy(features)).detach().cpu().numpy()[0]
    value = self._value(features).detach().cpu().numpy()[0, 0]
    keep = _tiles(policy, image.shape[1:]) > 0.5
    masked = torch.from_numpy(image * keep)[None].to(self._device)
    reconstruction = ((self._unet(masked) - device_image) ** 2).mean()
    reward = float(reconstruction.item())
    advantage = reward + GAMMA * value.mean() - value
    policy_loss = -np.log(np.maximum(policy.mean(0), 1e-6)) * advantage
    entropy = -(policy * np.log(np.maximum(policy, 1e-6))).sum(0)
    constant = float((policy_loss + advantage**2 - ENTROPY_WEIGHT * entropy).mean())
    self._optimizer.zero_grad()
    (reconstruction + constant).backward()
    self._optimizer.step()
    return reward


def _tiles(policy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """[256, g, g] -> [16 g, 16 g]: the channels of each place are the pixels of its tile."""
  grid = policy.shape[-1]
  tiles = policy.reshape(16, 16, grid, grid).transpose(2, 0, 3, 1).reshape(16 * grid, 16 * grid)
  return tiles[: size[0], : size[1]]
