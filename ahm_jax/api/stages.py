"""The stages of the commands, from Python."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ahm_jax.config import Config
from ahm_jax.errors import UserError, full_disk
from ahm_jax.pipeline import evaluate as scoring
from ahm_jax.pipeline import stages
from ahm_jax.runs import directory
from ahm_jax.runtime import limits, refusals

_Place = str | os.PathLike[str]


def pretrain(config: Config, workdir: _Place) -> Path:
  """Pre-trains a U-Net on all training images, and the agent that masks for it.

  Args:
    config: as `ahm_jax.get_config` makes it.
    workdir: the folder that the run writes into; a run that is there is resumed.

  Returns:
    `workdir`, which is `init_from` of a segmentation.

  Raises:
    UserError: something would stop it; nothing is trained then.
    KeyboardInterrupt: Ctrl-C; the step it came at is saved, and the next call resumes. Another
      Ctrl-C ends the process.
  """
  with _run(config, workdir) as home:
    stages.pretrain(config, home)
  return home


def segment(config: Config, workdir: _Place) -> Path:
  """Trains a U-Net on `data.labels` labelled images, from scratch or from what `init_from` names.

  Arguments, returned folder (which `ahm_jax.load` takes) and errors as of `pretrain`.
  """
  with _run(config, workdir) as home:
    stages.segment(config, home)
  return home


def classify(config: Config, workdir: _Place) -> Path:
  """Trains a classifier on what the segmentation that `init_from` names finds.

  Arguments, returned folder (the classifier of `ahm_jax.load`) and errors as of `pretrain`.
  """
  with _run(config, workdir) as home:
    stages.classify(config, home)
  return home


def evaluate(config: Config, workdir: _Place) -> dict[str, Any]:
  """Scores the run in `workdir` on the images of `evaluate.split`, at their own resolution; writes
  evaluation.json and per_image.csv there.

  Args:
    config: of which `evaluate` counts, and data folders where the run's own are gone.

  Returns:
    What evaluation.json holds: 'stage', 'split', 'threshold' and the mean scores, as 'dice'.

  Raises:
    UserError: there is no run, or it was trained on images that are to be scored.
  """
  with _run(config, workdir) as home:
    return scoring.evaluate(config, home)


@contextlib.contextmanager
def _run(config: Config, workdir: _Place) -> Iterator[Path]:
  """The folder of a run; what the user can mend is raised as a UserError, as commands say it."""
  if not isinstance(config, Config):
    raise UserError(
      f'config is of type {type(config).__name__}; make one by ahm_jax.get_config, as '
      "get_config('phantom')"
    )
  home = Path(workdir).expanduser()
  directory.check_writable(home, 'workdir')
  limits.check()
  try:
    yield home
  except UserError:
    raise
  except Exception as error:
    if said := full_disk(error):
      raise UserError(
        f'{said.lower()} in {home} (or in the temporary folder); make room and call it again; it '
        'resumes'
      ) from error
    if said := refusals.explain(error):
      raise UserError(said) from error
    raise
