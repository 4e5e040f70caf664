"""The recipe that a stage is trained by."""

import dataclasses

from ahm_jax.config.fields import Config, RecipeConfig


def recipe(config: Config, stage: str) -> RecipeConfig:
  """The recipe of 'pretrain', 'segment' or 'classifier', with what is set in `config.train` put
  in its place.
  """
  overrides = {
    name: value for name, value in dataclasses.asdict(config.train).items() if value is not None
  }
  if 'steps' in overrides or 'epochs' in overrides:
    overrides = {'steps': None, 'epochs': None, 'min_epochs': 0.0} | overrides
  return dataclasses.replace(getattr(config, stage), **overrides)
