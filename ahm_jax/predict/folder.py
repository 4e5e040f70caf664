"""What may be in the folder that predictions are written into; writes nothing."""

import json
import stat
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.predict import made
from ahm_jax.runs import directory

IDENTITY = 'predict.json'
TABLE = 'predictions.csv'
SCRATCH = '.predicting'  # Folder of files that have not got their names yet.
_FILES = (IDENTITY, TABLE, made.FILE, directory.LOCK)


def check(out: Path, identity: dict[str, Any]) -> None:
  """Makes sure that `out` holds no predictions but these.

  Args:
    identity: what the predictions depend on, by the names of the flags that say it.

  Raises:
    UserError: it is no folder, holds something else, or predictions of another checkpoint, other
      images or other options.
  """
  if out.exists() and not out.is_dir():
    raise UserError(f'--out={out} is not a folder; choose another')
  _check_kinds(out)
  path = out / IDENTITY
  if not path.exists():
    if out.is_dir() and any(item.name not in (directory.LOCK, SCRATCH) for item in out.iterdir()):
      raise UserError(
        f'--out={out} holds other files, and nothing is written over; choose an empty folder, or '
        'one to be made'
      )
    return
  held = _held(path)
  wanted = json.loads(json.dumps(identity))
  for name in dict.fromkeys([*wanted, *held]):
    if held.get(name) != wanted.get(name):
      raise UserError(
        f'--out={out} holds predictions with {name}={_short(held.get(name))}, and this command has '
        f'{_short(wanted.get(name))}; choose another --out, or give the same'
      )


def _held(path: Path) -> dict[str, Any]:
  """What made the predictions that are there."""
  try:
    held = json.loads(path.read_bytes())['made_by']
    held.items()
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(
      f'{path} cannot be read as the description of predictions; choose another --out'
    ) from error
  return held


def _check_kinds(out: Path) -> None:
  """Refuses what would lead elsewhere, or could not be written."""
  for names, kind, is_right in (
    (_FILES, 'file', stat.S_ISREG),
    ((*made.FOLDERS, SCRATCH), 'folder', stat.S_ISDIR),
  ):
    for name in names:
      try:
        mode = (out / name).lstat().st_mode
      except FileNotFoundError:
        continue
      if not is_right(mode):
        what = 'a link' if stat.S_ISLNK(mode) else f'no {kind}'
        raise UserError(
          f'{out / name} is {what}, and a {kind} of --out belongs there; move it away'
        )


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 100 else text[:12] + '...'
