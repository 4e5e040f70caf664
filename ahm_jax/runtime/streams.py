"""Standard output and error that never stop a run: closed ones, pipes that nobody reads, full
disks, terminals that are gone, and characters that the terminal's encoding lacks.
"""

import contextlib
import io
import logging
import os
import select
import sys
from typing import Any, TextIO


def make_steady() -> None:
  """Makes sys.stdout and sys.stderr such streams.

  To be called before a file is opened: one would take the number of a closed stream, and whatever
  C++ prints would be written into it.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # Takes the lowest number that is free.
  before = sys.stderr
  sys.stderr = steady(2, before)
  for handler in logging.root.handlers:
    # absl takes out those of standard error, and knows them by their stream.
    if isinstance(handler, logging.StreamHandler) and handler.stream is before:
      handler.setStream(sys.stderr)
  sys.stdout = steady(1, sys.stdout, 'standard output')


def steady(number: int, like: TextIO | None, name: str = '') -> TextIO:
  """Such a stream that writes to a file descriptor, as `like` encodes and buffers.

  Args:
    name: what to call it on standard error where it cannot be written; '': nothing is said.
  """
  with contextlib.suppress(OSError, AttributeError):  # There is none where it was closed.
    like.flush()  # type: ignore[union-attr]
  return io.TextIOWrapper(
    io.BufferedWriter(_Steady(number, name)),
    encoding=getattr(like, 'encoding', None) or 'utf-8',
    errors='backslashreplace',
    line_buffering=number != 1 or getattr(like, 'line_buffering', False),
    write_through=getattr(like, 'write_through', False),
  )


class _Steady(io.FileIO):
  """A file descriptor that takes whatever it is given, and drops what cannot be written."""

  def __init__(self, number: int, name: str):
    super().__init__(number, 'wb', closefd=False)
    self._called = name

  def write(self, data: Any) -> int:
    try:
      while (written := super().write(data)) is None:  # It is not blocking, and full.
        select.select([], [self], [])
      return written
    except OSError as error:
      if self._called:
        print(
          f'{self._called} cannot be written ({error.strerror}); it is dropped', file=sys.stderr
        )
        self._called = ''
      return len(data)
