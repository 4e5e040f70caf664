"""The networks that weights come from and go to, written for PyTorch with the public state-dict
names; see `torch_networks`.
"""

import torch
from torch import nn


def double_conv(inputs, outputs, bias):
  layers = []
  for channels in (inputs, outputs):
    layers += [
      nn.Conv2d(channels, outputs, 3, padding=1, bias=bias),
      nn.BatchNorm2d(outputs),
      nn.ReLU(inplace=True),
    ]
  return nn.Sequential(*layers)


class Named(nn.Module):
  """A module that holds others by name; what they compute is written where they are used."""

  def __init__(self, **modules):
    super().__init__()
    for name, module in modules.items():
      self.add_module(name, module)


class UNet(nn.Module):
  """That of milesial/Pytorch-UNet with bilinear=False, of any width.

  Biases before norms as in older versions.
  """

  def __init__(self, channels=3, outputs=1, width=64, bias=False):
    super().__init__()
    self.inc = Named(double_conv=double_conv(channels, width, bias))
    for i in range(1, 5):
      wide = width * 2**i
      block = Named(double_conv=double_conv(wide // 2, wide, bias))
      setattr(self, f'down{i}', Named(maxpool_conv=nn.Sequential(nn.MaxPool2d(2), block)))
    for i in range(1, 5):
      wide = width * 2 ** (5 - i)
      conv = Named(double_conv=double_conv(wide, wide // 2, bias))
      setattr(self, f'up{i}', Named(up=nn.ConvTranspose2d(wide, wide // 2, 2, stride=2), conv=conv))
    self.outc = Named(conv=nn.Conv2d(width, outputs, 1))

  def forward(self, x):
    """[B, C, H, W] -> [B, outputs, H, W]."""
    skips = [self.inc.double_conv(x)]
    for i in range(1, 5):
      pool, block = getattr(self, f'down{i}').maxpool_conv
      skips.append(block.double_conv(pool(skips[-1])))
    x = skips.pop()
    for i in range(1, 5):
      up = getattr(self, f'up{i}')
      x = up.conv.double_conv(torch.cat([skips.pop(), up.up(x)], 1))
    return self.outc.conv(x)


class VGG16(nn.Module):
  """torchvision.models.vgg16 of any width.

  Args:
    pooled: side of the map that the dense layers see; 7 there.
    channels_last: flatten that map as Keras does, by [H, W, C].
    norm: batch normalisation, as vgg16_bn has it.
  """

  def __init__(
    self, classes=1000, width=64, hidden=4096, pooled=7, channels_last=False, norm=False
  ):
    super().__init__()
    layers, channels = [], 3
    for stage in ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)):
      for widths in stage:
        norms = [nn.BatchNorm2d(widths * width)] if norm else []
        layers += [nn.Conv2d(channels, widths * width, 3, padding=1), *norms, nn.ReLU(inplace=True)]
        channels = widths * width
      layers.append(nn.MaxPool2d(2, 2))
    self.features = nn.Sequential(*layers)
    self.avgpool = nn.AdaptiveAvgPool2d(pooled)
    first, second = nn.Linear(channels * pooled**2, hidden), nn.Linear(hidden, hidden)
    head = nn.Linear(hidden, classes)
    self.classifier = nn.Sequential(
      first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), head
    )
    self.channels_last = channels_last

  def forward(self, x):
    """[B, 3, H, W] -> [B, classes]."""
    x = self.avgpool(self.features(x))
    return self.classifier((x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1))


def randomise(module, seed=0):
  """Draws all its numbers, running statistics too, at scales that keep activations near 1.

  Puts it into evaluation mode.
  """
  torch.manual_seed(seed)
  for name, array in module.state_dict().items():
    if name.endswith('num_batches_tracked'):
      array.fill_(17)
    elif name.endswith('running_var') or (array.ndim == 1 and name.endswith('weight')):
      array.uniform_(0.5, 1.5)
    elif array.ndim == 1:
      array.normal_(0, 0.3)
    else:
      nn.init.kaiming_normal_(array)
  return module.eval()


def arrays(module):
  """Its state dict as NumPy arrays."""
  return {name: array.numpy().copy() for name, array in module.state_dict().items()}


def put(module, weights):
  """Loads NumPy arrays as a state dict, all of it; puts the module into evaluation mode."""
  module.load_state_dict(
    {name: torch.as_tensor(array) for name, array in weights.items()}, strict=True
  )
  return module.eval()


def apply(module, images):
  """What it makes of NumPy images [B, H, W, C]; maps come back as [B, H, W, outputs]."""
  with torch.no_grad():
    found = module(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
  return (found.permute(0, 2, 3, 1) if found.ndim == 4 else found).numpy()


def keras_arrays(vgg):
  """A VGG16's weights as `keras.applications.VGG16` names and lays them out, by 'LAYER/kernel'
  and 'LAYER/bias'.
  """
  convolutions = [layer for layer in vgg.features if isinstance(layer, nn.Conv2d)]
  counts = (2, 2, 3, 3, 3)
  names = [
    f'block{block}_conv{i}' for block, count in enumerate(counts, 1) for i in range(1, count + 1)
  ]
  found = {}
  for name, layer in zip(names, convolutions, strict=True):
    found[f'{name}/kernel'], found[f'{name}/bias'] = layer.weight.permute(2, 3, 1, 0), layer.bias
  for name, place in (('fc1', 0), ('fc2', 3), ('predictions', 6)):
    found[f'{name}/kernel'], found[f'{name}/bias'] = (
      vgg.classifier[place].weight.T,
      vgg.classifier[place].bias,
    )
  return {name: array.detach().numpy().copy() for name, array in found.items()}
