"""Ctrl-C: when it is heard."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def not_lost() -> Iterator[Callable[[], None]]:
  """Gives a function to be called now and then, which raises KeyboardInterrupt again if that of a Ctrl-C was lost.

  Python drops an exception that falls into one of its callbacks, such as those of its garbage collector.
  """
  heard = threading.Event()

  def hear(*_):
    heard.set()
    raise KeyboardInterrupt

  def check():
    if heard.is_set():
      raise KeyboardInterrupt

  if not _raises_here():
    yield check
    return
  signal.signal(signal.SIGINT, hear)
  try:
    yield check
  finally:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def waits() -> Iterator[None]:
  """Ctrl-C is heard when the block is done."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  heard = []
  handler = signal.signal(signal.SIGINT, lambda *arguments: heard.append(arguments))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, handler)
  if heard:
    signal.raise_signal(signal.SIGINT)


def _raises_here() -> bool:
  """Whether Ctrl-C raises KeyboardInterrupt in this thread."""
  main = threading.current_thread() is threading.main_thread()
  return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
