"""SIGINT, which is Ctrl-C, and SIGTERM, which a cluster sends before it takes a machine away: when
they are heard.

A thread hears them as well as the main thread, which does not while it compiles or waits for
another process.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

TRY_AGAIN = 75  # Exit code of what was interrupted: that of sysexits.h for a failure that may pass.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 20.0  # Seconds after which a process that was interrupted ends, whatever it is at.
LINE = 'interrupted; the same command goes on where it was'


class Stopped(KeyboardInterrupt):
  """A training was interrupted and has saved where it was."""


class Watch:
  """Hears signals while its context is open, and calls `hear` in the main thread.

  A second signal, or `grace` seconds without the context being left, ends the process. A signal
  that the process was started to ignore stays ignored. Does nothing in a thread other than the main
  one.

  Args:
    hear: as a handler of `signal.signal`.
    grace: in seconds; 0: the thread ends the process at once.
    end: how; does not return.
  """

  def __init__(self, hear: Callable, grace: float, end: Callable[[], None]):
    self._hear, self._grace, self._end = hear, grace, end
    self._closing: list[Callable] = []

  def __enter__(self):
    if threading.current_thread() is not threading.main_thread():
      return self
    heard, signalled = os.pipe()
    os.set_blocking(signalled, False)
    before = signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    handlers = {
      number: signal.signal(number, self._hear)
      for number in SIGNALS
      if signal.getsignal(number) != signal.SIG_IGN
    }
    timer = threading.Timer(self._grace, self._end)
    timer.daemon = True
    threading.Thread(target=self._wait, args=(heard, handlers, timer), daemon=True).start()
    self._closing = [
      *(
        lambda number=number, handler=handler: signal.signal(number, handler)
        for number, handler in handlers.items()
      ),
      lambda: signal.set_wakeup_fd(before),
      lambda: os.close(signalled),
      timer.cancel,
    ]
    return self

  def __exit__(self, *_):
    while self._closing:
      self._closing.pop(0)()

  def _wait(self, heard: int, handlers: dict, timer: threading.Timer) -> None:
    with os.fdopen(heard, 'rb', buffering=0) as numbers:
      while number := numbers.read(1):
        if number[0] not in handlers:
          continue
        if timer.is_alive() or not self._grace:
          self._end()
        timer.start()


def end_at_once() -> None:
  """Ends the process with a line, without Python's cleaning up, for which the main thread may
  not be free.
  """
  print(f'\n{LINE}', file=sys.stderr, flush=True)
  os._exit(TRY_AGAIN)


def raising() -> Watch:
  """A context in which both signals raise KeyboardInterrupt."""
  return Watch(signal.default_int_handler, GRACE, end_at_once)


@contextlib.contextmanager
def at_next_step() -> Iterator['StopRequest']:
  """A context in which a signal interrupts nothing but is remembered.

  Where nothing else was raised, Stopped is, at its end.
  """
  request = StopRequest()
  with Watch(request.hear, GRACE, end_at_once):
    yield request
  if request.stop:
    raise Stopped


class StopRequest:
  """Whether the user, or the cluster, requests the training to stop."""

  def __init__(self):
    self.stop = False
    self._raises = False

  def hear(self, *_) -> None:
    self.stop = True
    if self._raises:
      raise Stopped

  @contextlib.contextmanager
  def interrupts(self, whether: bool = True) -> Iterator[None]:
    """A signal raises Stopped within the block, at its beginning if it came before.

    Or not, as `whether` says.
    """
    self._raises = whether
    try:
      if self.stop and whether:
        raise Stopped
      yield
    finally:
      self._raises = False
