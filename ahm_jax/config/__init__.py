"""What a run is: frozen dataclasses, built once from a ConfigDict and checked once.

`fields` and `recipes` declare every field with its range, from `ranges`; `build` makes a `Config`
from a file in `configs/` and its flags; `checks` holds what must fit together; `differences` says
where two runs differ; `methods` is what a grid compares.
"""

from ahm_jax.config.build import check_variant, default, from_config_dict, to_dict
from ahm_jax.config.differences import Difference, check_same, differences
from ahm_jax.config.fields import (
  BASELINES,
  CLASSIFY,
  PRETRAIN,
  REPRODUCE,
  SEGMENT,
  TILE,
  Config,
  DataConfig,
  EvaluateConfig,
  FrozenDict,
  GridConfig,
  ModelConfig,
  PhantomConfig,
  ProfileConfig,
  SafetyConfig,
)
from ahm_jax.config.methods import (
  folder_name,
  is_tuned,
  parse,
  pretraining_name,
  pretraining_of,
  segmentation_of,
  with_method,
)
from ahm_jax.config.ranges import MASK_CLASSES, SCRATCH
from ahm_jax.config.recipes import (
  AugmentConfig,
  ClassifyConfig,
  DiagnosisConfig,
  MaskingConfig,
  PretrainConfig,
  RecipeConfig,
  ReconstructionConfig,
  SegmentConfig,
  TransferConfig,
  UnlabelledConfig,
)

__all__ = [
  'BASELINES',
  'CLASSIFY',
  'MASK_CLASSES',
  'PRETRAIN',
  'REPRODUCE',
  'SCRATCH',
  'SEGMENT',
  'TILE',
  'AugmentConfig',
  'ClassifyConfig',
  'Config',
  'DataConfig',
  'DiagnosisConfig',
  'Difference',
  'EvaluateConfig',
  'FrozenDict',
  'GridConfig',
  'MaskingConfig',
  'ModelConfig',
  'PhantomConfig',
  'PretrainConfig',
  'ProfileConfig',
  'RecipeConfig',
  'ReconstructionConfig',
  'SafetyConfig',
  'SegmentConfig',
  'TransferConfig',
  'UnlabelledConfig',
  'check_same',
  'check_variant',
  'default',
  'differences',
  'folder_name',
  'from_config_dict',
  'is_tuned',
  'parse',
  'pretraining_name',
  'pretraining_of',
  'segmentation_of',
  'to_dict',
  'with_method',
]
