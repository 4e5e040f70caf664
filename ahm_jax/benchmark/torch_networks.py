"""The same networks in PyTorch, layer for layer, to compare with; needs the `bench` extra."""

import torch
from torch import nn


def _convolve_twice(inputs: int, outputs: int) -> nn.Sequential:
  layers: list[nn.Module] = []
  for channels in (inputs, outputs):
    layers += [
      nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
      nn.BatchNorm2d(outputs),
      nn.ReLU(inplace=True),
    ]
  return nn.Sequential(*layers)


class UNet(nn.Module):
  """As `ahm_jax.models.unet.UNet`: [B, C, H, W] -> [B, out_channels, H, W]."""

  def __init__(self, in_channels: int = 3, out_channels: int = 1, width: int = 64):
    super().__init__()
    widths = [width * 2**level for level in range(5)]
    self.encoders = nn.ModuleList(map(_convolve_twice, [in_channels, *widths], widths))
    self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[3::-1])
    self.decoders = nn.ModuleList(_convolve_twice(2 * width, width) for width in widths[3::-1])
    self.head = nn.Conv2d(width, out_channels, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    skips = []
    for encoder in self.encoders[:-1]:
      x = encoder(x)
      skips.append(x)
      x = nn.functional.max_pool2d(x, 2)
    x = self.encoders[-1](x)
    for up, decoder in zip(self.ups, self.decoders, strict=True):
      x = decoder(torch.cat([skips.pop(), up(x)], 1))
    return self.head(x)


def vgg16_trunk(stages: int, width: int = 64, in_channels: int = 3) -> nn.Sequential:
  """As `ahm_jax.models.vgg16.VGG16Trunk`."""
  layers: list[nn.Module] = []
  channels = in_channels
  for stage, (widths, convolutions) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))[:stages]):
    if stage:
      layers.append(nn.MaxPool2d(2))
    for _ in range(convolutions):
      layers += [nn.Conv2d(channels, widths * width, 3, padding=1), nn.ReLU(inplace=True)]
      channels = widths * width
  return nn.Sequential(*layers)


class VGG16(nn.Module):
  """As `ahm_jax.models.vgg16.VGG16` with the pooled head: [B, C, H, W] -> [B, num_classes]."""

  def __init__(self, num_classes: int, width: int = 64, hidden: int = 4096):
    super().__init__()
    self.trunk = vgg16_trunk(5, width)
    self.classifier = nn.Sequential(
      nn.Linear(8 * width, hidden),
      nn.ReLU(inplace=True),
      nn.Dropout(0.5),
      nn.Linear(hidden, hidden),
      nn.ReLU(inplace=True),
      nn.Dropout(0.5),
      nn.Linear(hidden, num_classes),
    )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.classifier(nn.functional.max_pool2d(self.trunk(x), 2).mean((2, 3)))
