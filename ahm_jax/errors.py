"""Errors that a user can fix: wrong input, and a full disk."""

import errno
import os

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
  while error is not None:
    for number in _FULL:
      said = os.strerror(number)
      if (isinstance(error, OSError) and error.errno == number) or said in str(error):
        return said
    error = error.__cause__ or error.__context__
  return None
