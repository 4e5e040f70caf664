"""Files that are whole after a power cut: what was written is on disk before it gets its name."""

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from ahm_jax.runtime import places

_SCRATCH = re.compile(r'.+\.[0-9a-f]{32}\.tmp')
# How a file system says that it syncs no folders.
_NO_FOLDERS = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EACCES, errno.EISDIR)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A new name beside `path`, for what is to take its place: a file that is written under it is on
  disk, and then renamed, when the context is left. Where that fails, `path` stays as it was.

  A link at `path` is replaced, and not followed.

  Raises:
    UserError: a folder that is kept (`places`) was moved.
  """
  # Others may be writing the same file.
  scratch = path.with_name(f'{path.name}.{uuid.uuid4().hex}.tmp')
  places.check(path)
  try:
    yield scratch
    places.check(path)
    sync(scratch)
    scratch.replace(path)
  finally:
    scratch.unlink(missing_ok=True)
  sync_folder(path.parent)


def is_scratch(path: Path) -> bool:
  """Whether a name is one that `replacing` gives, as a process that was killed leaves it."""
  return _SCRATCH.fullmatch(path.name) is not None


def write(path: Path, data: bytes) -> None:
  """Writes a file, in place of an earlier one, in one move."""
  with replacing(path) as scratch:
    scratch.write_bytes(data)


def sync(path: Path) -> None:
  """Returns when what the file holds is on disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def sync_tree(folder: Path) -> None:
  """Returns when all that a folder holds, and its names, are on disk."""

  def fail(error: OSError) -> None:
    raise error

  for home, _, names in os.walk(folder, onerror=fail):
    for name in names:
      sync(Path(home) / name)
    sync_folder(Path(home))


def sync_folder(path: Path) -> None:
  """Returns when the names in a folder are on disk, where the file system can do that."""
  try:
    sync(path)
  except OSError as error:
    if error.errno not in _NO_FOLDERS:
      raise
