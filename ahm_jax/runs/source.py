"""Where an export comes from: a run's directory, or an export in Orbax's format."""

from collections.abc import Sequence
from pathlib import Path

from ahm_jax.errors import UserError
from ahm_jax.pipeline import stages
from ahm_jax.runs import directory
from ahm_jax.runs.trained import FILE, Trained, load_export, load_run

STAGES = ('pretrain', 'segment', 'classify')


def load(path: Path, wanted: Sequence[str] = STAGES, flag: str = '--checkpoint') -> Trained:
  """Loads what was trained.

  Args:
    path: the workdir of a run, of which the best checkpoint is taken, of a pre-training the last;
      or an Orbax export.
    wanted: the stages that it may be of.
    flag: that named it, for messages.

  Raises:
    UserError: it holds nothing, something of another stage, or weights that do not fit its config.
  """
  path = Path(path).expanduser()
  if not path.is_dir():
    raise UserError(
      f'{flag}={path}: there is no such folder; give the workdir of a {" or ".join(wanted)} run'
    )
  if (path / FILE).exists():
    return load_export(path, wanted, flag)
  stage, config = directory.read(path, tuple(wanted))
  return load_run(
    path, stage, config, stages.diagnoses(config, path) if stage == 'classify' else ()
  )
