"""What SIGINT (Ctrl-C) and SIGTERM (sent by a cluster before it takes a machine away) do.

The main thread runs Python's signal handlers, but not while it compiles or waits for another
process. So a second thread listens too, and ends the process where the main thread does not.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator

TRY_AGAIN = 75  # Exit code of an interrupted process: EX_TEMPFAIL of sysexits.h.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 20.0  # Seconds from a signal until the process is ended, whatever it is doing.
LINE = 'interrupted; run the same command again to resume'


class Stopped(KeyboardInterrupt):
  """A training was interrupted and has saved its state."""


def end_at_once() -> None:
  """Ends the process with a line, without Python's clean-up, which needs the main thread."""
  print(f'\n{LINE}', file=sys.stderr, flush=True)
  os._exit(TRY_AGAIN)


def watch(handler: Callable, grace: float, end: Callable[[], None]) -> contextlib.ExitStack:
  """Listens for SIGNALS until the stack that it returns is closed, which restores what was before.

  A signal calls `handler` in the main thread. A second signal, or `grace` seconds after the first,
  call `end` in a thread of their own. A signal that the process was started to ignore stays
  ignored. Called in a thread other than the main one, this does nothing.

  Args:
    handler: as for `signal.signal`.
    grace: in seconds; 0: the first signal calls `end`.
    end: ends the process; does not return.
  """
  stack = contextlib.ExitStack()
  if threading.current_thread() is not threading.main_thread():
    return stack
  numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
  timer = threading.Timer(grace, end)
  timer.daemon = True
  stack.callback(timer.cancel)
  read_end, write_end = os.pipe()  # Python writes the number of each signal into it.
  os.set_blocking(write_end, False)
  stack.callback(os.close, write_end)  # Ends the thread.
  stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write_end, warn_on_full_buffer=False))
  for number in numbers:
    stack.callback(signal.signal, number, signal.signal(number, handler))
  start_timer = timer.start if grace else end
  listen = threading.Thread(target=_listen, args=(read_end, numbers, start_timer, end), daemon=True)
  listen.start()
  return stack


def _listen(
  read_end: int, numbers: Collection[int], first: Callable[[], None], later: Callable[[], None]
) -> None:
  """Calls `first` at the first of these signals, `later` at every other, until the pipe closes."""
  act = first
  with os.fdopen(read_end, 'rb', buffering=0) as pipe:
    while number := pipe.read(1):
      if number[0] in numbers:
        act()
        act = later


def raising() -> contextlib.ExitStack:
  """A context in which both signals raise KeyboardInterrupt."""
  return watch(signal.default_int_handler, GRACE, end_at_once)


class StopRequest:
  """Whether a signal has requested the training to stop.

  Attributes:
    made: it has.
  """

  def __init__(self) -> None:
    self.made = False
    self._raises = False

  def make(self, *_) -> None:
    """The signal handler."""
    self.made = True
    if self._raises:
      raise Stopped

  @contextlib.contextmanager
  def interrupts(self, whether: bool = True) -> Iterator[None]:
    """A context that a stop request ends with Stopped, at once if it was made before.

    With `whether` false, it does not.
    """
    self._raises = whether
    try:
      if self.made and whether:
        raise Stopped
      yield
    finally:
      self._raises = False


@contextlib.contextmanager
def at_next_step() -> Iterator[StopRequest]:
  """A context in which a signal interrupts nothing, but makes the stop request that is yielded.

  Raises:
    Stopped: at the end, where a stop request was made and nothing else was raised.
  """
  request = StopRequest()
  with watch(request.make, GRACE, end_at_once):
    yield request
  if request.made:
    raise Stopped
