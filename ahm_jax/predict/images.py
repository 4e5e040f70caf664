"""The images that are predicted, by their cells in the table: whether one has changed since."""

from collections.abc import Mapping
from pathlib import Path

from ahm_jax.data.readers.base import Case
from ahm_jax.predict import made


class Images:
  """The images.

  Args:
    paths: of them.

  Attributes:
    stamps: of them now.
  """

  def __init__(self, paths: Mapping[str, Path | Case]):
    self._paths = paths
    self.stamps = {name: made.stamp(path) for name, path in paths.items()}

  def with_digest(self, entry: made.Entry) -> made.Entry:
    """An entry just made, with the digest of its image, if that has not changed meanwhile."""
    return entry._replace(digest=self._digest(entry.image)) if entry.files else entry

  def restamped(self, entry: made.Entry) -> made.Entry:
    """An entry with the stamp that its image has now, if only permissions, owner or links of the
    image may have changed, and its content has not.
    """
    now = self.stamps.get(entry.image, ())
    if (
      entry.stamp != now
      and made.is_same_but_for_status(entry.stamp, now)
      and entry.digest
      and entry.digest == self._digest(entry.image)
    ):
      return entry._replace(stamp=now)
    return entry

  def _digest(self, name: str) -> str:
    return made.digest(self._paths[name], self.stamps[name])
