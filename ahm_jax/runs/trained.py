"""A trained network: the one form in which whatever uses one gets it, from a run or an export."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ahm_jax.config import Config, from_config_dict, paths, to_dict
from ahm_jax.errors import UserError
from ahm_jax.models.layers import variable_shapes
from ahm_jax.runs import checkpoint_files, checkpoint_reading, checkpoints, directory
from ahm_jax.runs.stage import Stage, names
from ahm_jax.runtime import json_files, schema, trees

EXPORT = 'export.json'  # What an export is.
VARIABLES = 'variables'  # Beside it, in Orbax's format: the arrays.
LESION = 'lesion'  # The one class of binary masks.


def _interval(value: Any) -> None:
  schema.list_of(schema.number())(value)
  if len(value) != 2:
    raise ValueError(' is not a pair of numbers')


_DESCRIPTION = schema.record(
  {
    **dict.fromkeys(('format', 'stage', 'digest'), schema.text),
    'step': schema.count(),
    'class_names': schema.list_of(schema.text, unique=True),
    'config': schema.mapping(),
  },
  {
    'data': schema.optional(directory.SUMMARY),
    'scores': schema.optional(
      schema.record(
        {
          'split': schema.text,
          'values': schema.mapping(schema.optional(schema.number())),
          'intervals': schema.mapping(_interval),
        }
      )
    ),
  },
)


@dataclass(frozen=True, eq=False)
class Trained:
  """A network with its weights, and all that using it needs.

  Attributes:
    path: the folder that it came from.
    stage: what it was trained for.
    config: that it was trained with.
    step: of its training.
    variables: {'params'} and, of a network with norms, 'batch_stats', float32 arrays in nested
      dicts.
    class_names: the diagnoses that it distinguishes, in the order of its outputs; of a
      segmentation, those it tells beside the masks.
  """

  path: Path
  stage: Stage
  config: Config
  step: int
  variables: Any
  class_names: tuple[str, ...] = ()

  @functools.cached_property
  def network(self) -> Any:
    """Its Flax module."""
    return self.stage.network(self.config, self.class_names)

  @property
  def image_size(self) -> int:
    """Side S in pixels of the square images that it sees."""
    return self.config.data.image_size

  @property
  def channels(self) -> int:
    """Numbers at each pixel of an image that it sees; see `DataConfig`."""
    return self.config.data.depth

  @property
  def shape(self) -> tuple[int, int, int]:
    """Of an image that it sees, (S, S, C)."""
    return self.image_size, self.image_size, self.channels

  @property
  def mask_classes(self) -> tuple[str, ...]:
    """Names of the K classes of its masks, whose values are 1, 2, ...; empty: binary masks."""
    return self.config.data.mask_classes

  @property
  def lesion_names(self) -> tuple[str, ...]:
    """As `mask_classes`, with LESION for the one class of binary masks."""
    return self.mask_classes or (LESION,)

  @functools.cached_property
  def digest(self) -> str:
    """A SHA-256 over all its weights."""
    return checkpoint_files.digest(self.variables)

  def probabilities(self, variables: Any, images: jax.Array | np.ndarray) -> jax.Array:
    """Pure, of one batch of uint8 images [B, S, S, C], float32: of lesion, [B, S, S]; of background
    and K classes, [B, S, S, K + 1]; of diagnoses, [B, classes].
    """
    if self.stage.probabilities is None:
      raise TypeError(f'a {self.stage} run has no probabilities')
    return self.stage.probabilities(self.network, variables, images)

  @property
  def diagnoses(self) -> bool:
    """Whether it tells diagnoses beside the masks."""
    return bool(self.class_names and self.stage.with_diagnoses)

  def outputs(self, variables: Any, images: jax.Array | np.ndarray) -> tuple[jax.Array, ...]:
    """All that it says of one batch: `probabilities`, and where it tells diagnoses beside the
    masks theirs, float32 [B, classes]. Pure.
    """
    if self.diagnoses and self.stage.with_diagnoses:
      return self.stage.with_diagnoses(self.network, variables, images)
    return (self.probabilities(variables, images),)


def config_digest(config: Config) -> str:
  """A SHA-256 over a config, the order of its fields aside."""
  return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def load(path: Path, stages: Sequence[Stage], flag: str = '--checkpoint') -> Trained:
  """Loads what was trained.

  Args:
    path: the workdir of a run, of which the checkpoint that its stage keeps is taken, or an export
      in Orbax's format.
    stages: those that it may be of.
    flag: that named it, for messages.

  Raises:
    UserError: it holds nothing, something of another stage, or weights that do not fit its config.
  """
  path = Path(path).expanduser()
  if not path.is_dir():
    raise UserError(
      f'{flag}={path}: there is no such folder; give the workdir of a {names(stages)} run'
    )
  paths.check_named(path, flag, paths.LOADING)
  if (told := description(path)) is not None:
    return _load_export(path, told, stages, flag)
  stage, config = directory.read(path, stages)
  return load_run(path, stage, config)


def load_run(path: Path, stage: Stage, config: Config) -> Trained:
  """What the run in a folder, of this stage and config, has learnt: its best checkpoint, or its
  last where the stage keeps that.

  Raises:
    UserError: there is none, it is damaged, or its weights do not fit the config.
  """
  learnt = checkpoint_reading.load_variables(path, best=stage.keeps_best)
  variables = {part: learnt[part] for part in ('params', 'batch_stats') if learnt[part]}
  names = directory.class_names(path)
  if stage.scored_by == 'label' and not names:
    raise UserError(f'{path / directory.CLASSES} is missing; restore it, or train again')
  return checked(Trained(path, stage, config, int(learnt['step']), variables, names))


def description(path: Path) -> dict[str, Any] | None:
  """What export.json in a folder holds; None where there is none.

  Raises:
    UserError: it cannot be read, or does not hold what was written.
  """
  return json_files.read_json(path / EXPORT, _DESCRIPTION, 'export it again')


def _load_export(path: Path, told: dict[str, Any], stages: Sequence[Stage], flag: str) -> Trained:
  kind, name, classes = told['format'], told['stage'], tuple(told['class_names'])
  if kind != 'orbax':
    raise UserError(
      f'{flag}={path} is an export in the format {kind}; give one of --format=orbax, or the '
      'workdir of a run'
    )
  stage = next((stage for stage in stages if stage.name == name), None)
  if stage is None:
    raise UserError(
      f'{flag}={path} is an export of a {name} run; give one of a {names(stages)} run'
    )
  try:
    config = from_config_dict(told['config'])
  except UserError as error:
    raise UserError(
      f'{path / EXPORT} is damaged, or of another version: {error}; export it again'
    ) from error
  variables = checkpoints.read_variables(path / VARIABLES)
  found = Trained(path, stage, config, told['step'], variables, classes)
  if found.digest != told['digest']:
    raise UserError(
      f'{path / VARIABLES} is damaged: its numbers are not those that were exported; export it '
      'again'
    )
  for array_name, array in trees.flatten(variables).items():
    if array.dtype != np.float32 or not np.isfinite(array).all():
      raise UserError(
        f'{path / VARIABLES}: {array_name} is not of finite float32 numbers; give another export'
      )
  return checked(found)


def checked(trained: Trained) -> Trained:
  """The argument itself.

  Raises:
    UserError: its weights have other shapes than its config asks for.
  """
  expected = variable_shapes(trained.network, (1, *trained.shape))
  if problem := trees.shape_mismatch(trained.variables, expected):
    raise UserError(
      f'{trained.path}: {problem}; give a folder whose weights and config belong together'
    )
  return trained


def in_float32(trained: Trained) -> Trained:
  """The same network, which computes in float32 whatever the training did: for export."""
  model = dataclasses.replace(trained.config.model, dtype='float32', recompute=False)
  return dataclasses.replace(trained, config=dataclasses.replace(trained.config, model=model))
