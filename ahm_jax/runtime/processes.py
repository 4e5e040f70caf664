"""Several processes that train one model together, each on its own devices: the only
jax.distributed.

What goes wrong in one process must not leave the others waiting. On CPU a collective fails as soon
as another process's connection closes. On GPU it may wait for ever, and JAX's coordinator, which
lives in process 0, notices after HEARTBEAT seconds that a process is silent; when process 0 itself
is lost, the others notice at once. JAX then calls abort() in every process that is left, from a
thread of its own; here that ends with one line and an exit code.
"""

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils

from ahm_jax.errors import UserError
from ahm_jax.runtime import signals
from ahm_jax.runtime.signals import TRY_AGAIN

AUTO = 'auto'  # In place of the coordinator's address: JAX finds it.
JOINING = 300  # Seconds that the processes of a run wait for each other when they start.
HEARTBEAT = 30  # Seconds without a sign of life after which a process counts as lost.
LEAVING = 15  # Seconds that a process that ends waits for the others to end too.

_on_abort: Callable[[], int]  # Says why JAX calls abort(), and returns the exit code.


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(
  _,
):  # As a C handler, since Python's own would run only after abort() has ended the process.
  os._exit(_on_abort())


def join(
  coordinator: str, count: int | None, index: int | None, last_words: Callable[[], str]
) -> None:
  """Makes this process one of those that train together; to be called before JAX computes anything.

  Standard output is that of process 0 from now on, and lines on standard error name the process
  where it is another.

  Args:
    coordinator: 'HOST:PORT', where process 0 is reached by all; or AUTO, by which JAX finds the
      three in a SLURM step, under Open MPI or mpi4py, or in a Kubernetes job.
    count: how many processes there are; None with AUTO.
    index: which of them this is, from 0; None with AUTO.
    last_words: gives the line to print where another process is lost.

  Raises:
    UserError: the three make no sense, or processes have different numbers of devices.

  Where the port is taken, the process ends with a line and exit code 2; where the processes do not
  find each other within JOINING seconds, with TRY_AGAIN, since they may yet. SIGINT and SIGTERM end
  it at once from now on, but for `at_next_step`.
  """
  check(coordinator, count, index)
  nobody = f'error: the processes have not found each other within {JOINING} s; start all of them, each with its own --process'
  _abort_means(lambda: nobody, TRY_AGAIN)
  ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)
  jax.config.update(
    'jax_enable_preemption_service', False
  )  # It would keep SIGTERM from ending the process.
  try:
    _initialize(coordinator, count, index)
  except jax.errors.JaxRuntimeError as error:
    print(
      f'error: --coordinator={coordinator} cannot be used ({error}); choose another port',
      file=sys.stderr,
    )
    _exit(2)  # Python's cleaning up would crash in JAX's half-made service.
  _abort_means(last_words, TRY_AGAIN)
  _speak()
  signals.Watch(
    lambda *_: None, 0, _interrupted
  ).__enter__()  # A process that waits in a collective does not hear it.
  _check_devices()


def check(coordinator: str | None, count: int | None, index: int | None) -> None:
  """Raises a UserError where `join` would be called with what makes no sense."""
  if coordinator is None:
    if count is not None or index is not None:
      raise UserError(
        '--processes and --process need --coordinator=HOST:PORT, where process 0 is reached'
      )
    return
  if coordinator == AUTO:
    if count is not None or index is not None:
      raise UserError(
        '--coordinator=auto finds --processes and --process by itself; leave them out'
      )
    return
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(
      f'--coordinator={coordinator} is no address; give HOST:PORT, such as node1:12345, or auto'
    )
  if count is None or index is None:
    raise UserError('--coordinator=HOST:PORT needs --processes=N and --process=I, of 0 to N - 1')
  if not 0 <= index < count:
    raise UserError(
      f'--process={index} is none of --processes={count}; they are numbered from 0 to N - 1'
    )


def _initialize(coordinator: str, count: int | None, index: int | None) -> None:
  options = {
    'initialization_timeout': JOINING,
    'heartbeat_timeout_seconds': HEARTBEAT,
    'shutdown_timeout_seconds': LEAVING,
  }
  if coordinator != AUTO:
    jax.distributed.initialize(
      coordinator, count, index, cluster_detection_method='deactivate', **options
    )
    return
  try:
    jax.distributed.initialize(**options)
  except (
    ValueError
  ) as error:  # JAX has found nothing; mpi4py it looks for only where that is named.
    if not importlib.util.find_spec('mpi4py'):
      raise UserError(
        '--coordinator=auto finds no SLURM step, Open MPI or Kubernetes job here; '
        'give --coordinator=HOST:PORT --processes=N --process=I'
      ) from error
    jax.distributed.initialize(cluster_detection_method='mpi4py', **options)


def _speak() -> None:
  if is_first():
    sys.stdout = os.fdopen(os.dup(1), 'w', buffering=1)
  else:
    sys.stderr = _Named(sys.stderr, f'process {jax.process_index()}: ')
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Gloo, which is C++, tells every connection there.


def _interrupted() -> None:
  print(f'\n{signals.LINE}', file=sys.stderr)
  _exit(TRY_AGAIN)


def _check_devices() -> None:
  counts = np.bincount([device.process_index for device in jax.devices()])
  if counts.min() != counts.max():
    raise UserError(
      f'the processes have {", ".join(map(str, counts))} devices; give each the same number (CUDA_VISIBLE_DEVICES chooses)'
    )


class _Named:
  """A text stream whose lines begin with a name."""

  def __init__(self, stream: TextIO, name: str):
    self._stream, self._name, self._at_start = stream, name, True

  def write(self, text: str) -> int:
    for line in text.splitlines(keepends=True):
      self._stream.write((self._name if self._at_start and line.strip() else '') + line)
      self._at_start = line.endswith('\n')
    return len(text)

  def __getattr__(self, name):
    return getattr(self._stream, name)


# Among the processes of a run; in a process that has joined no others, these do nothing and wait
# for nobody.


def has_others() -> bool:
  """Whether this process has joined others."""
  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Whether this is process 0, which writes what the run tells; also where there is no other."""
  return not has_others() or jax.process_index() == 0


def from_first(numbers: Any) -> Any:
  """A pytree of Python numbers as process 0 has it, whatever the others have.

  Of the same structure in all.
  """
  if not has_others():
    return numbers
  leaves, structure = jax.tree.flatten(numbers)
  bits = np.array(leaves, np.float64).view(np.uint32)  # JAX would round to float32.
  sent = np.asarray(multihost_utils.broadcast_one_to_all(bits)).view(np.float64)
  return structure.unflatten(
    [type(leaf)(value) for leaf, value in zip(leaves, sent.tolist(), strict=True)]
  )


def all_of(flag: bool) -> bool:
  """Whether `flag` is true in every process."""
  return bool(np.all(multihost_utils.process_allgather(np.array(flag)))) if has_others() else flag


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
  """The block runs in process 0, and then, if it succeeded there, in the others.

  Raises:
    UserError: in the others, where it failed in process 0.
  """
  if not is_first() and not from_first(True):
    raise UserError('process 0 has stopped; its own line says why')
  done = False
  try:
    yield
    done = True
  finally:
    if is_first():
      from_first(done)


# How a process ends.


def is_loss(error: Exception) -> bool:
  """Whether JAX raised `error` because another process was lost."""
  if not isinstance(error, jax.errors.JaxRuntimeError) or not has_others():
    return False
  return any(
    sign in str(error) for sign in ('Gloo', 'remote process', 'UNAVAILABLE', 'CoordinationService')
  )


def leave(code: int, lost: bool = False) -> None:
  """Ends the process, when the others end too, or at once if one of them was lost."""
  if not has_others():
    sys.exit(code)
  if not lost:
    _abort_means(None, code)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      jax.distributed.shutdown()
  _exit(code)


def _exit(code: int) -> None:
  """Ends the process without Python's cleaning up, which would wait for what a lost process
  should have done.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  if code == TRY_AGAIN and is_first():
    time.sleep(1)  # The others are to notice what happened before they lose process 0 too.
  os._exit(code)


def _abort_means(line: Callable[[], str] | None, code: int) -> None:
  def say() -> int:
    if line is not None:
      print(line(), file=sys.stderr, flush=True)
    return code

  global _on_abort
  _on_abort = say
