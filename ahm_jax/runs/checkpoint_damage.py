"""Which checkpoints a run that resumes cannot use."""

from collections.abc import Sequence
from pathlib import Path

from ahm_jax.errors import UserError
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_folders as folders
from ahm_jax.runs.checkpoint_files import DamagedCheckpoint
from ahm_jax.runs.progress import Progress


def unusable(workdir: Path, best_too: bool) -> dict[int, str]:
  """The checkpoints to be set aside, the latest first, each with the reason why.

  Raises:
    UserError: none would be left.
  """
  found: dict[int, str] = {}
  left = folders.steps(workdir)
  while left and (damage := _damage(workdir, left, best_too)):
    step, problem = damage
    later = [other for other in left if other > step] if best_too else []
    found |= dict.fromkeys(later, f'followed on that of step {step}') | {step: problem}
    left = [other for other in left if other not in found]
  if found and not left:
    said = '; '.join(f'that of step {step} {problem}' for step, problem in sorted(found.items()))
    folder = folders.directory(workdir)
    raise UserError(
      f'no checkpoint in {folder} can be used: {said}; nothing was moved; '
      f'put sound ones in their place, or remove {folder} to start anew'
    )
  return dict(sorted(found.items(), reverse=True))


def _damage(workdir: Path, steps: Sequence[int], best_too: bool) -> tuple[int, str] | None:
  """The first step of which what a run needs is damaged, and how."""
  found: dict[int, Progress] = {}
  for step in steps:
    try:
      found[step] = files.saved(folders.home(workdir, step)).progress
    except DamagedCheckpoint as problem:
      return step, str(problem)
  scores = {step: progress.score for step, progress in found.items()}
  for step in sorted({steps[-1], folders.best(scores)} if best_too else {steps[-1]}):
    try:
      files.arrays(folders.home(workdir, step))
    except DamagedCheckpoint as problem:
      return step, str(problem)
  return None
