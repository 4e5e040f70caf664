"""JSON files: strict, and whole after a power cut."""

import json
import math
from pathlib import Path
from typing import Any

from ahm_jax.errors import UserError
from ahm_jax.runtime import durable


def read_json(path: Path) -> Any:
  """What a JSON file holds; None where there is no such file.

  Raises:
    UserError: it is no JSON.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise UserError(f'{path} cannot be read as JSON ({error}); restore it, or remove it') from error


def write_json(path: Path, tree: Any) -> None:
  """Writes strict JSON in one move; numbers that are not finite become null."""
  durable.write(path, (json.dumps(_finite(tree), indent=2, allow_nan=False) + '\n').encode())


def _finite(tree: Any) -> Any:
  if isinstance(tree, dict):
    return {key: _finite(value) for key, value in tree.items()}
  if isinstance(tree, list | tuple):
    return [_finite(value) for value in tree]
  return None if isinstance(tree, float) and not math.isfinite(tree) else tree
