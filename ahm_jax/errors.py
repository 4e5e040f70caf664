"""Errors that a user can fix: wrong input, and a full disk."""

import errno
import os
from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
  """Wrong input.

  The message says what is wrong, where, and what to do; launch scripts print it and exit with code
  2.
  """


def full_disk(error: BaseException | None) -> str | None:
  """How the system says that there is no room on a disk, if that is what `error` comes from.

  TensorStore says it in a text.
  """
  for found in chain(error):
    for number in _FULL:
      said = os.strerror(number)
      if (isinstance(found, OSError) and found.errno == number) or said in str(found):
        return said
  return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
  """An error and what it comes from, as a traceback shows them."""
  seen: set[int] = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    context = None if error.__suppress_context__ else error.__context__
    error = error.__cause__ or context
