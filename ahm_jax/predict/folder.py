"""What may be in the folder that predictions are written into; writes nothing."""

import json
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.predict import made
from ahm_jax.runs import directory, ownership
from ahm_jax.runtime import json_files, schema

IDENTITY = 'predict.json'
TABLE = 'predictions.csv'
SCRATCH = '.predicting'  # Folder of files that have not got their names yet.
_DESCRIPTION = schema.record({'made_by': schema.mapping()})
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
  ownership.check_kinds(out, (*made.FOLDERS, SCRATCH), _FILES)
  told = json_files.read_json(out / IDENTITY, _DESCRIPTION, 'choose another --out')
  if told is None:
    if out.is_dir() and not all(map(ownership.is_clutter, out.iterdir())):
      raise UserError(
        f'--out={out} holds other files, and nothing is written over; choose an empty folder, or '
        'one to be made'
      )
    return
  held = told['made_by']
  wanted = json.loads(json.dumps(identity))
  for name in dict.fromkeys([*wanted, *held]):
    if held.get(name) != wanted.get(name):
      raise UserError(
        f'--out={out} holds predictions with {name}={_short(held.get(name))}, and this command has '
        f'{_short(wanted.get(name))}; choose another --out, or give the same'
      )


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 100 else text[:12] + '...'
