"""What SIGINT (Ctrl-C), SIGTERM (sent by a cluster before it takes a machine away) and SIGHUP (sent
when a terminal is closed) do.

The main thread runs Python's signal handlers, but not while it compiles or waits for another
process. So a second thread listens too, and ends the process where the main thread does not.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

TRY_AGAIN = 75  # Exit code of an interrupted process: EX_TEMPFAIL of sysexits.h.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 20.0  # Seconds from a signal until the process is ended, whatever it is doing.
# Seconds from a signal in which others count as the same one: `timeout` and shells send SIGTERM to
# a process and again to its group, a closed terminal SIGHUP and SIGTERM.
ECHO = 2.0
LINE = 'interrupted; run the same command again'


class Stopped(KeyboardInterrupt):
  """A training was interrupted; its text says what is saved, as `line` takes it."""


def line(saved: str) -> str:
  """What to say of an interrupted process; of `saved`, if anything was."""
  return f'interrupted; {saved}; run the same command again to resume' if saved else LINE


def end_at_once(saved: Callable[[], str] = str) -> None:
  """Ends the process with a line, without Python's clean-up, which needs the main thread."""
  try:
    said = line(saved())
  except Exception:  # Whatever it is, the process is to end.
    said = LINE
  with contextlib.suppress(Exception):
    print(f'\n{said}', file=sys.stderr, flush=True)
  os._exit(TRY_AGAIN)


@dataclass
class _Came:
  """What has come since the outermost `watch`, whichever of them heard it."""

  depth: int = 0
  first: float | None = None  # When the first signal was heard, in seconds.
  handled: bool = False
  timer: threading.Timer | None = None

  def leave(self) -> None:
    self.depth -= 1
    if not self.depth:
      if self.timer:
        self.timer.cancel()
      self.first, self.handled, self.timer = None, False, None

  def once(self, handler: Callable) -> Callable:
    """`handler`, for the first signal only."""

    def handle(*arguments) -> None:
      if not self.handled:
        self.handled = True
        handler(*arguments)

    return handle

  def hear(self, grace: float, end: Callable[[], None]) -> None:
    """Calls `end` where a signal asks for it now, and later if it is the first."""
    now = time.monotonic()
    if self.first is not None:
      if now - self.first > ECHO:
        end()
    elif not grace:
      end()
    else:
      self.first = now
      self.timer = threading.Timer(grace, end)
      self.timer.daemon = True
      with contextlib.suppress(RuntimeError):  # The system allows no more threads.
        self.timer.start()


_came = _Came()


def watch(handler: Callable, grace: float, end: Callable[[], None]) -> contextlib.ExitStack:
  """Listens for SIGNALS until the stack that it returns is closed, which restores what was before.

  The first signal calls `handler` in the main thread. `end` is called, in another thread, by a
  signal more than ECHO seconds later, or `grace` seconds after the first. Of stacks within stacks
  only the innermost hears a signal, and only the first signal of all is the first. A signal that
  the process was started to ignore (by nohup, say) stays ignored. Called in a thread other than the
  main one, this does nothing.

  Args:
    handler: as for `signal.signal`.
    grace: in seconds; 0: the first signal calls `end`.
    end: ends the process; does not return.
  """
  stack = contextlib.ExitStack()
  if threading.current_thread() is not threading.main_thread():
    return stack
  numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
  read_end, write_end = os.pipe()  # Python writes the number of each signal into it.
  os.set_blocking(write_end, False)
  listen = threading.Thread(target=_listen, args=(read_end, numbers, grace, end), daemon=True)
  listen.start()
  _came.depth += 1
  stack.callback(_came.leave)
  # What it hears later would start a timer that nobody stops.
  stack.callback(listen.join, GRACE)
  stack.callback(os.close, write_end)  # Ends the thread.
  stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write_end, warn_on_full_buffer=False))
  for number in numbers:
    stack.callback(signal.signal, number, signal.signal(number, _came.once(handler)))
  return stack


def _listen(read_end: int, numbers: Collection[int], grace: float, end: Callable[[], None]) -> None:
  """Hears these signals, until the pipe closes."""
  with os.fdopen(read_end, 'rb', buffering=0) as pipe:
    while number := pipe.read(1):
      if number[0] in numbers:
        _came.hear(grace, end)


def raising() -> contextlib.ExitStack:
  """A context in which the first signal raises KeyboardInterrupt."""
  return watch(_interrupt, GRACE, end_at_once)


def _interrupt(*_) -> None:
  raise KeyboardInterrupt


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
def at_next_step(saved: Callable[[], str] = str) -> Iterator[StopRequest]:
  """A context in which a signal interrupts nothing, but makes the stop request that is yielded.

  Args:
    saved: tells what is saved, if anything, when the process or the context is about to end.

  Raises:
    Stopped: at the end, where a stop request was made or the block raised Stopped, and nothing else
      was raised.
  """
  request = StopRequest()
  with watch(request.make, GRACE, lambda: end_at_once(saved)):
    stopped = False
    try:
      yield request
    except Stopped:  # Another process of this run may have been asked, and not this one.
      stopped = True
    if stopped or request.made:
      raise Stopped(saved())
  if request.made:  # Since then.
    raise Stopped(saved())
