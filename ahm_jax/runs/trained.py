"""What was trained, with all that using it needs.

And how it is read from an export in Orbax's format.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ahm_jax.config import Config, from_config_dict, to_dict
from ahm_jax.data.augment import normalise
from ahm_jax.errors import UserError
from ahm_jax.models.convolution import as_lax
from ahm_jax.models.unet import UNet
from ahm_jax.runs import checkpoint_files, checkpoints
from ahm_jax.runtime import trees
from ahm_jax.training import classify, segment
from ahm_jax.weights import loading

FILE = 'export.json'  # What an export is.
VARIABLES = 'variables'  # Beside it, with Orbax's format: the arrays.


@dataclass(frozen=True, eq=False)
class Trained:
  """A network with its weights.

  Attributes:
    path: the folder that it came from.
    stage: 'pretrain' (the U-Net), 'segment' or 'classify'.
    step: of its training.
    variables: {'params'} and, of a network with norms, 'batch_stats', float32 arrays in nested
      dicts.
    class_names: that a classifier tells apart.
  """

  path: Path
  stage: str
  config: Config
  step: int
  variables: Any
  class_names: tuple[str, ...] = ()

  @functools.cached_property
  def network(self) -> Any:
    """Its Flax module, which computes in float32 whatever the training did."""
    model = dataclasses.replace(self.config.model, dtype='float32', recompute=False)
    if self.stage == 'classify':
      return classify.network(model, len(self.class_names))
    if self.stage == 'segment':
      return segment.network(model, len(self.config.data.mask_classes))
    return UNet(out_channels=self.config.data.channels, width=model.unet_width)

  @property
  def shape(self) -> tuple[int, int, int]:
    """Of an image that it sees."""
    data = self.config.data
    return data.image_size, data.image_size, data.channels

  @functools.cached_property
  def digest(self) -> str:
    """A SHA-256 over all its weights."""
    return checkpoint_files.digest(self.variables)

  @property
  def probabilities(self) -> Callable[[Any, jax.Array], jax.Array]:
    """A pure function (variables, images [B, S, S, C] with values 0 to 255), of plain operations
    alone.

    It gives probabilities as `segment.probabilities` does, and of a classify run those of the
    classes, [B, classes].
    """
    network, stage = self.network, self.stage

    def function(variables, images):
      with as_lax():
        logits = network.apply(variables, normalise(images.astype(jnp.float32) / 255), train=False)
      if stage == 'segment' and logits.shape[-1] == 1:
        return jax.nn.sigmoid(logits[..., 0])
      return jax.nn.softmax(logits)

    return function


def config_digest(config: Config) -> str:
  """A SHA-256 over a config, the order of its fields aside."""
  return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def checked(trained: Trained) -> Trained:
  """The argument itself.

  Raises a UserError where its weights have other shapes than its config asks for.
  """
  if problem := trees.shape_mismatch(
    trained.variables, loading.expected(trained.network, (1, *trained.shape))
  ):
    raise UserError(
      f'{trained.path}: {problem}; give a folder whose weights and config belong together'
    )
  return trained


def load_run(path: Path, stage: str, config: Config, class_names: tuple[str, ...] = ()) -> Trained:
  """What the run in a folder, of this stage and config, has learnt: its best checkpoint, of a
  pre-training the last.

  Raises:
    UserError: there is none, it is damaged, or its weights do not fit the config.
  """
  learnt = checkpoints.load_variables(path, best=stage != 'pretrain')
  variables = {part: learnt[part] for part in ('params', 'batch_stats') if learnt[part]}
  return checked(Trained(path, stage, config, int(learnt['step']), variables, class_names))


def load_export(path: Path, wanted: Sequence[str], flag: str) -> Trained:
  """Loads an export in Orbax's format.

  Args:
    wanted: the stages that it may be of.
    flag: that named it, for messages.

  Raises:
    UserError: it is in another format, of another stage, damaged, or has weights that do not fit
      its config.
  """
  try:
    told = json.loads((path / FILE).read_text())
    config, stage, kind = from_config_dict(told['config']), told['stage'], told['format']
    step, names, digest = int(told['step']), tuple(told['class_names']), told['digest']
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path / FILE} cannot be read as the description of an export; export it again'
    ) from error
  if kind != 'orbax':
    raise UserError(
      f'{flag}={path} is an export in the format {kind}; give one of --format=orbax, or the workdir of a run'
    )
  if stage not in wanted:
    raise UserError(
      f'{flag}={path} is an export of a {stage} run; give one of a {" or ".join(wanted)} run'
    )
  found = Trained(path, stage, config, step, checkpoints.read_variables(path / VARIABLES), names)
  if found.digest != digest:
    raise UserError(
      f'{path / VARIABLES} is damaged: its numbers are not those that were exported; export it again'
    )
  return checked(found)
