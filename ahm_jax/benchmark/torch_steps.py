"""Steps of the PyTorch networks on random images, in the forms that people run them.

Needs the `bench` extra.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ahm_jax.benchmark import torch_networks
from ahm_jax.benchmark.trainings import CLASSES


class Form(NamedTuple):
  """How a PyTorch network is run."""

  name: str
  channels_last: bool
  autocast: bool  # bfloat16.
  compiled: bool


FORMS = {
  'cpu': (Form('eager', False, False, False), Form('channels_last', True, False, False)),
  'gpu': (
    Form('eager', False, False, False),
    Form('amp channels_last', True, True, False),
    Form('compiled amp channels_last', True, True, True),
  ),
}


def device(platform: str) -> str:
  return 'cuda' if platform == 'gpu' else 'cpu'


def unet_training(
  width: int, side: int, batch: int, form: Form, platform: str
) -> Callable[[], None]:
  """Cross-entropy and soft Dice, clipping and Adam: the step of `ahm_jax.training.segment`."""
  masks = torch.randint(0, 2, (batch, side, side), device=device(platform)).float()

  def loss(logits):
    logits = logits.float()[:, 0]
    probabilities = logits.sigmoid()
    dice = 1 - (2 * (probabilities * masks).sum() + 1) / (probabilities.sum() + masks.sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, masks) + dice

  return _training(torch_networks.UNet(width=width), loss, side, batch, form, platform, clip=1.0)


def vgg16_training(
  width: int, side: int, batch: int, form: Form, platform: str
) -> Callable[[], None]:
  labels = torch.randint(0, CLASSES, (batch,), device=device(platform))

  def loss(logits):
    return functional.cross_entropy(logits.float(), labels)

  return _training(torch_networks.VGG16(CLASSES, width), loss, side, batch, form, platform)


def unet_inference(
  width: int, side: int, batch: int, form: Form, platform: str
) -> Callable[[], None]:
  """Probabilities of uint8 images."""
  network, images = _place(torch_networks.UNet(width=width).eval(), side, batch, form, platform)

  def run():
    with torch.inference_mode(), _autocast(form, platform):
      network((images / 255.0 - 0.5) / 0.25).sigmoid()
    _wait(platform)

  return run


def _training(
  network: nn.Module,
  loss: Callable[[torch.Tensor], torch.Tensor],
  side: int,
  batch: int,
  form: Form,
  platform: str,
  clip: float | None = None,
) -> Callable[[], None]:
  run, images = _place(network.train(), side, batch, form, platform)
  optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=platform == 'gpu')

  def step():
    with _autocast(form, platform):
      outputs = run((images / 255.0 - 0.5) / 0.25)
    loss(outputs).backward()
    if clip is not None:
      nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    _wait(platform)

  return step


def _place(
  network: nn.Module, side: int, batch: int, form: Form, platform: str
) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
  """The network, ready to be called, and random images."""
  layout = torch.channels_last if form.channels_last else torch.contiguous_format
  network.to(device(platform))
  nn.utils.convert_conv2d_weight_memory_format(network, layout)
  images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
  images = images.to(device(platform), memory_format=layout)
  return torch.compile(network) if form.compiled else network, images


def _autocast(form: Form, platform: str) -> torch.autocast:
  return torch.autocast(device(platform), torch.bfloat16, enabled=form.autocast)


def _wait(platform: str) -> None:
  if platform == 'gpu':
    torch.cuda.synchronize()
