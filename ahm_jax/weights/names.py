"""What the parameters of our networks are called elsewhere.

The U-Net has the names of https://github.com/milesial/Pytorch-UNet (`bilinear=False`), VGG16 those
of torchvision.models.vgg16 and vgg16_bn, or of keras.applications.VGG16. A path of ours is that in
{'params', 'batch_stats'}, joined by '/'.
"""

import re
from typing import NamedTuple

from ahm_jax.models.inputs import CAFFE, OWN
from ahm_jax.models.unet import LEVELS
from ahm_jax.models.vgg16 import STAGES
from ahm_jax.weights import layouts
from ahm_jax.weights.layouts import Layout


class Entry(NamedTuple):
  """A parameter, or a batch statistic.

  Attributes:
    ours: path.
    theirs: name.
    layout: how theirs lies.
    layer: of those that may be left out, in a row, of which the first that does not fit ends it;
      '': may not.
  """

  ours: str
  theirs: str
  layout: Layout = layouts.SAME
  layer: str = ''


FIRST_TORCHVISION = 'features.0.weight'  # Of a VGG16.
FIRST_KERAS = 'block1_conv1/kernel'
# Of each of PyTorch's batch norms: the training steps. We have one for all.
COUNTER = 'num_batches_tracked'


def unet() -> list[Entry]:
  """Of `UNet`."""
  entries = _two_convs('encoder1', 'inc.double_conv')
  for level in range(2, LEVELS + 1):
    entries += _two_convs(f'encoder{level}', f'down{level - 1}.maxpool_conv.1.double_conv')
  for level in range(LEVELS - 1, 0, -1):
    theirs = f'up{LEVELS - level}'
    entries += [
      Entry(f'params/up{level}/blocks/kernel', f'{theirs}.up.weight', layouts.UP_CONVOLUTION),
      Entry(f'params/up{level}/bias', f'{theirs}.up.bias'),
      *_two_convs(f'decoder{level}', f'{theirs}.conv.double_conv'),
    ]
  return [
    *entries,
    Entry('params/head/kernel', 'outc.conv.weight', layouts.CONVOLUTION, 'head'),
    Entry('params/head/bias', 'outc.conv.bias', layer='head'),
  ]


def _two_convs(ours: str, theirs: str) -> list[Entry]:
  entries = []
  for part, convolution in (('first', 0), ('second', 3)):  # In their sequence, ReLUs are 2 and 5.
    entries += _conv_norm(f'{ours}/{part}', theirs, convolution)
  return entries


def _conv_norm(ours: str, sequence: str, place: int) -> list[Entry]:
  """Of `ConvNorm`.

  A convolution, without its bias if it has one, and the norm after it in one of PyTorch's
  sequences.
  """
  norm = f'{sequence}.{place + 1}'
  return [
    Entry(f'params/{ours}/convolution/kernel', f'{sequence}.{place}.weight', layouts.CONVOLUTION),
    Entry(f'params/{ours}/norm/scale', f'{norm}.weight'),
    Entry(f'params/{ours}/norm/bias', f'{norm}.bias'),
    Entry(f'batch_stats/{ours}/norm/mean', f'{norm}.running_mean'),
    Entry(f'batch_stats/{ours}/norm/var', f'{norm}.running_var'),
  ]


def vgg16(width: int, norm: str = '', input: str = OWN) -> list[Entry]:
  """Of `VGG16` with so many channels in its first stage, by torchvision's names."""
  entries, index = [], 0
  for stage, (_, convolutions) in enumerate(STAGES, start=1):
    for number in range(1, convolutions + 1):
      ours, theirs = f'trunk/conv{stage}_{number}', f'features.{index}'
      plain = [
        Entry(f'params/{ours}/kernel', f'{theirs}.weight', layouts.CONVOLUTION),
        Entry(f'params/{ours}/bias', f'{theirs}.bias'),
      ]
      entries += _conv_norm(ours, 'features', index) if norm else plain
      index += 3 if norm else 2  # A norm and a ReLU follow, or a ReLU,
    index += 1  # and after each stage a pool.
  flat = layouts.flattened(STAGES[-1][0] * width)
  for name, place, layout in (
    ('hidden1', 0, flat),
    ('hidden2', 3, layouts.DENSE),
    ('logits', 6, layouts.DENSE),
  ):
    entries += [
      Entry(f'params/{name}/kernel', f'classifier.{place}.weight', layout, name),
      Entry(f'params/{name}/bias', f'classifier.{place}.bias', layer=name),
    ]
  return _seeing(input, entries, layouts.BGR_CONVOLUTION)


def _seeing(input: str, entries: list[Entry], first: Layout) -> list[Entry]:
  """With a layout of its own for the first kernel, where theirs wants blue first."""
  return [entries[0]._replace(layout=first), *entries[1:]] if input == CAFFE else entries


def keras_vgg16(input: str = OWN) -> list[Entry]:
  """As `vgg16`, by the names of Keras, whose layouts are ours."""
  layers = [
    (f'trunk/conv{stage}_{number}', f'block{stage}_conv{number}', '')
    for stage, (_, convolutions) in enumerate(STAGES, start=1)
    for number in range(1, convolutions + 1)
  ]
  layers += [
    ('hidden1', 'fc1', 'hidden1'),
    ('hidden2', 'fc2', 'hidden2'),
    ('logits', 'predictions', 'logits'),
  ]
  entries = [
    Entry(f'params/{ours}/{part}', f'{theirs}/{part}', layer=layer)
    for ours, theirs, layer in layers
    for part in ('kernel', 'bias')
  ]
  return _seeing(input, entries, layouts.BGR)


def tidy(name: str) -> str:
  """A foreign name without what the ways of saving add to it.

  'module.inc...' of PyTorch's DataParallel; 'block1_conv1/block1_conv1/kernel:0' and
  'block1_conv1.kernel' of Keras.
  """
  name = name.removeprefix('module.').removesuffix(':0')
  found = re.fullmatch(r'(?:.*[/.])?(block\d_conv\d|fc\d|predictions)[/.](kernel|bias)', name)
  return f'{found[1]}/{found[2]}' if found else name
