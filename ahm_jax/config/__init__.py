"""What a run is: frozen dataclasses, built once from a ConfigDict and checked once.

`fields` declares every field, `build` makes a `Config` from a file in `configs/` and its flags,
`checks` holds what must fit together, `methods` what a grid compares.
"""

from ahm_jax.config.build import default, from_config_dict, to_dict
from ahm_jax.config.fields import (
  MASK_CLASSES,
  SCRATCH,
  TILE,
  AugmentConfig,
  ClassifyConfig,
  Config,
  DataConfig,
  EvaluateConfig,
  GridConfig,
  MaskingConfig,
  ModelConfig,
  PhantomConfig,
  ProfileConfig,
  RecipeConfig,
  SafetyConfig,
  TrainConfig,
  TransferConfig,
)
from ahm_jax.config.methods import is_tuned, pretraining_of, with_method
from ahm_jax.config.recipe import recipe

__all__ = [
  'MASK_CLASSES',
  'SCRATCH',
  'TILE',
  'AugmentConfig',
  'ClassifyConfig',
  'Config',
  'DataConfig',
  'EvaluateConfig',
  'GridConfig',
  'MaskingConfig',
  'ModelConfig',
  'PhantomConfig',
  'ProfileConfig',
  'RecipeConfig',
  'SafetyConfig',
  'TrainConfig',
  'TransferConfig',
  'default',
  'from_config_dict',
  'is_tuned',
  'pretraining_of',
  'recipe',
  'to_dict',
  'with_method',
]
