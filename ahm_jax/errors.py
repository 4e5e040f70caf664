"""Errors that a user can fix, and how messages tell of them."""

import errno
import os
import re
from collections.abc import Iterator, Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What the system refuses; other numbers, such as that of a file that is not there, may as well come
# of a fault of the program.
REFUSALS = (
  *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
  *(errno.ENOMEM, errno.EAGAIN, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENXIO),
  *(errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.ELOOP, errno.ENAMETOOLONG, errno.EBUSY),
  *(errno.EPIPE, errno.ECONNRESET),
)
_CODE = re.compile(r"\[os_error_code='(\d+)'\]")  # In what TensorStore says.


class UserError(Exception):
  """Wrong input.

  The message says what is wrong, where, and what to do; launch scripts print it and exit with code
  2. It is one line, whatever texts from elsewhere are in it: what is not printable is escaped.
  """

  def __init__(self, message: object):
    super().__init__(printable(str(message)))


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


def is_of_system(error: OSError) -> bool:
  """Whether the system raised it. Decoders raise OSErrors of their own, without a number, and seek
  to where no file can be.
  """
  return error.errno not in (None, errno.EINVAL)


def refusal(error: BaseException) -> str | None:
  """What the system said where it refused to do something, if that is what an error tells.

  TensorStore tells it in a text, which may speak of damage too.
  """
  if isinstance(error, OSError):
    return error.strerror if error.errno in REFUSALS else None
  if code := _CODE.search(str(error)):
    number = int(code[1])
    return os.strerror(number) if number in REFUSALS else None
  return next((said for said in map(os.strerror, REFUSALS) if said in str(error)), None)


def cannot_read(
  what: object,
  error: OSError | MemoryError,
  cure: str = 'make it readable and run the same command again',
) -> str:
  """That the system refuses to read something, which says nothing of what it holds."""
  why = (error.strerror if isinstance(error, OSError) else 'out of memory') or type(error).__name__
  return f'{what} cannot be read ({why}); {cure}'


def printable(text: str) -> str:
  """Text from elsewhere in one line, with what is not printable escaped."""
  return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def first(names: Sequence[str], most: int) -> str:
  """The first few names, in a line."""
  return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
