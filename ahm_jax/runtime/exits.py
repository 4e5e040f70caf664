"""How a process of several ends: when the others end too, or because one of them was lost.

What goes wrong in one process must not leave the others waiting. On CPU a collective fails as soon
as another process's connection closes. On GPU it may wait for ever, and JAX's coordinator, which
lives in process 0, notices after `joining.HEARTBEAT` seconds that a process is silent; when process
0 itself is lost, the others notice at once. JAX then calls abort() in every process that is left,
from a thread of its own. Here that ends with one line and an exit code.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import jax

from ahm_jax.errors import UserError, chain
from ahm_jax.runtime import processes, refusals
from ahm_jax.runtime.native_errors import NativeErrors
from ahm_jax.runtime.signals import TRY_AGAIN

# In any letters. Gloo and JAX raise errors of many kinds, from many places; these words are theirs,
_SIGNS_OF_LOSS = (
  *('gloo', 'connectfullmesh', 'getkeyvalue', 'deadline_exceeded', 'closed by peer'),
  *('reset by peer', 'socket closed'),
)
# and these only in an error that they raised.
_WORDS_OF_LOSS = (
  *('remote process', 'coordination', 'heartbeat', 'barrier', 'unavailable', 'preempted'),
  *('deadline exceeded', 'broken pipe', 'connection reset', 'connection closed'),
  *('connection refused', 'connection aborted'),
)
_native: NativeErrors | None = None  # Of a process of several.
_on_abort: Callable[[], int]  # Prints why JAX calls abort(), and returns the exit code.


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_: int) -> None:
  # A C handler, since Python's own would run only after abort() has ended the process.
  os._exit(_on_abort())


def catch_abort() -> None:
  """From now on, abort() ends this process as the last `abort_means` says, and C++ leaves no stack
  trace.
  """
  global _native
  _native = NativeErrors()
  faulthandler.enable(sys.stderr)  # It knows the old one, which is C++'s.
  ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


def abort_means(line: Callable[[], str] | None, code: int) -> None:
  """Sets the line to print, if any, and the exit code, where JAX calls abort()."""

  def on_abort() -> int:
    if _native:
      _native.pass_on()
    if line is not None:
      why = f' ({_native.reason})' if _native and _native.reason else ''
      print(line() + why, file=sys.stderr, flush=True)
    return code

  global _on_abort
  _on_abort = on_abort


def is_loss(error: BaseException) -> bool:
  """Whether `error` was raised because another process was lost, whatever its type."""
  if not processes.has_others() or isinstance(error, UserError | KeyboardInterrupt):
    return False
  return said_of_loss(error) is not None


def said_of_loss(error: BaseException | None) -> str | None:
  """What says in `error`, or in what it comes from, that another process was lost; else None."""
  for found in chain(error):
    text = ' '.join(str(found).split())
    if any(sign in text.lower() for sign in _signs(found)):
      return text
  return None


def _signs(error: BaseException) -> tuple[str, ...]:
  own = isinstance(error, jax.errors.JaxRuntimeError | ConnectionError)
  if own or refusals.raised_in(error).partition('.')[0] in ('jax', 'jaxlib'):
    return _SIGNS_OF_LOSS + _WORDS_OF_LOSS
  return _SIGNS_OF_LOSS


def leave(code: int, lost: bool = False) -> NoReturn:
  """Ends the process: when the others end too, or at once if one of them was lost."""
  if not processes.has_others():
    sys.exit(code)
  if not lost:
    abort_means(None, code)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      jax.distributed.shutdown()
  end(code)


def end(code: int) -> NoReturn:
  """Ends the process without Python's clean-up, which would wait for a lost process."""
  if _native:
    _native.pass_on()
  sys.stdout.flush()
  sys.stderr.flush()
  if code == TRY_AGAIN and processes.is_first():
    time.sleep(1)  # The others are to notice what happened before they lose process 0 too.
  os._exit(code)
