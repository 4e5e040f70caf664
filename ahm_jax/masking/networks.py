"""What a pre-training consists of: the U-Net, the agent, and the strategy that uses them."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import lax

from ahm_jax.config import Config, MaskingConfig
from ahm_jax.masking import registry
from ahm_jax.masking.strategy import Context, Strategy
from ahm_jax.models import build
from ahm_jax.models.agent import Agent
from ahm_jax.models.layers import infer
from ahm_jax.models.unet import UNet
from ahm_jax.runtime.parallel import DEVICES
from ahm_jax.task import TrainState


@dataclass(frozen=True)
class Networks:
  """The networks of a pre-training, and how it masks.

  Equal where the configs are: a key of the caches of compiled programs. The strategy, whose
  functions are made anew for every object, is no part of it.
  """

  unet: UNet
  agent: Agent
  masking: MaskingConfig

  @functools.cached_property
  def strategy(self) -> Strategy:
    """The one that `masking` names; raises a UserError where there is none."""
    context = Context(
      masking=self.masking,
      agent=self.agent,
      reconstruct=self.reconstruct,
      mean_over_devices=lambda tree: lax.pmean(tree, DEVICES),
    )
    return registry.build(context)

  def reconstruct(self, variables: Any, masked: jax.Array) -> jax.Array:
    """The U-Net in inference on masked images [b, H, W, C], with 'params' and 'batch_stats'."""
    return infer(self.unet, variables, masked)


class Joined(NamedTuple):
  """The `extra` of a pre-training with other losses beside reconstruction."""

  strategy: Any  # The strategy's state.
  others: Any  # State of `ahm_jax.training.features`.


def strategy_state(state: TrainState) -> Any:
  """The strategy's, of a pre-training's state."""
  return state.extra.strategy if isinstance(state.extra, Joined) else state.extra


def networks(config: Config) -> Networks:
  """Those of a config."""
  return Networks(
    unet=build.reconstruction_unet(config.model, config.data.depth),
    agent=build.agent(config.model, config.masking, config.data.depth, config.model.vgg_input),
    masking=config.masking,
  )
