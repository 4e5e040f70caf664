"""What a path that a user gives may not be."""

import re
from collections.abc import Sequence
from pathlib import Path

from ahm_jax.errors import UserError

_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:/')
# In which libraries take what stands in a path for a pattern, and do not find what they wrote.
SAVING = ('*', '?', '[', ']', '\\')  # Orbax,
LOADING = ('\\',)  # TensorStore,
PREPARING = ('**',)  # and TFDS.


def local(path: str) -> str:
  """A range, see `ranges`: a path on this machine's file systems, or ''."""
  if _SCHEME.match(path):
    return (
      f'is {path!r}, a URL; give a path of this machine: mount the store, or copy what it holds'
    )
  return 'holds a NUL character; leave it out' if '\0' in path else ''


def check_named(path: Path, option: str, patterns: Sequence[str]) -> None:
  """Raises a UserError where a path is no local one, or it, or a folder above it, has a name that a
  library cannot have: one with a pattern, or that is no UTF-8.

  Args:
    option: that gives the path, as '--workdir'.
    patterns: that the library knows; SAVING, LOADING or PREPARING.
  """
  if fault := local(str(path)):
    raise UserError(f'{option} {fault}')
  whole = str(Path(path).expanduser().absolute())
  text = whole.encode(errors='backslashreplace').decode()
  found = [pattern for pattern in patterns if pattern in whole]
  if not found and text != whole:
    found = ['bytes that are no UTF-8']
  if found:
    raise UserError(
      f'{option} leads to {text}, whose path holds {" ".join(found)}, with which nothing that is '
      'written there can be found again; choose a folder without'
    )
