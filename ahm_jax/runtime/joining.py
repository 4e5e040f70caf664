"""How several processes join to train one model, each on its own devices: the only
jax.distributed.initialize.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import jax
import numpy as np

from ahm_jax.errors import UserError
from ahm_jax.runtime import exits, processes, signals, streams
from ahm_jax.runtime.signals import TRY_AGAIN

AUTO = 'auto'  # In place of the coordinator's address: JAX finds it.
JOINING = 300  # Seconds that the processes of a run wait for each other when they start.
HEARTBEAT = 30  # Seconds without a sign of life after which a process counts as lost.
LEAVING = 15  # Seconds that a process that ends waits for the others to end too.

_NOBODY = (
  f'error: the processes have not found each other within {JOINING} s; '
  'start all of them, each with its own --process'
)


def join(
  coordinator: str,
  count: int | None,
  index: int | None,
  last_words: Callable[[], str],
  interrupted: Callable[[], str],
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
    interrupted: gives the line to print where a signal ends this one.

  Raises:
    UserError: the three make no sense, or processes have different numbers of devices.

  Where the port is taken, process 0 ends with a line and exit code 2; where the processes do not
  find each other within JOINING seconds, or one is lost meanwhile, with TRY_AGAIN, since they may
  yet. A signal ends it at once from now on, but for `signals.at_next_step`.
  """
  check(coordinator, count, index)
  exits.abort_means(lambda: _NOBODY, TRY_AGAIN)
  exits.catch_abort()
  # The service would keep SIGTERM from ending the process.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    _initialize(coordinator, count, index)
  except UserError:
    raise
  except Exception as error:  # JAX and gRPC raise what they like.
    if index or exits.said_of_loss(error):
      print(f'{last_words()} ({" ".join(str(error).split())})', file=sys.stderr)
      exits.end(TRY_AGAIN)
    print(
      f'error: --coordinator={coordinator} cannot be used ({error}); choose another port',
      file=sys.stderr,
    )
    exits.end(2)  # Python's clean-up would crash in JAX's half-made service.
  exits.abort_means(last_words, TRY_AGAIN)
  _redirect_output()
  # A process that waits in a collective does not hear a signal: here the listening thread ends it.
  signals.watch(lambda *_: None, 0, lambda: _end(interrupted()))
  _check_devices()


def check(coordinator: str | None, count: int | None, index: int | None) -> None:
  """Raises a UserError where `join` would be called with what makes no sense."""
  if coordinator is None:
    if count is not None or index is not None:
      raise UserError(
        '--processes and --process need --coordinator=HOST:PORT, where process 0 is reached'
      )
  elif coordinator == AUTO:
    if count is not None or index is not None:
      raise UserError(
        '--coordinator=auto finds --processes and --process by itself; leave them out'
      )
  else:
    _check_address(coordinator)
    if count is None or index is None:
      raise UserError('--coordinator=HOST:PORT needs --processes=N and --process=I, of 0 to N - 1')
    if not 0 <= index < count:
      raise UserError(
        f'--process={index} is none of --processes={count}; they are numbered from 0 to N - 1'
      )


def _check_address(coordinator: str) -> None:
  host, _, port = coordinator.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(
      f'--coordinator={coordinator} is no address; give HOST:PORT, such as node1:12345, or auto'
    )


def _initialize(coordinator: str, count: int | None, index: int | None) -> None:
  options: dict[str, Any] = {
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
  except ValueError as error:  # JAX found nothing. For mpi4py it looks only where asked to.
    if not importlib.util.find_spec('mpi4py'):
      raise UserError(
        '--coordinator=auto finds no SLURM step, Open MPI or Kubernetes job here; '
        'give --coordinator=HOST:PORT --processes=N --process=I'
      ) from error
    jax.distributed.initialize(cluster_detection_method='mpi4py', **options)


def _redirect_output() -> None:
  """Process 0 alone prints, and the others' lines on standard error begin with their name."""
  if processes.is_first():
    sys.stdout = streams.steady(os.dup(1), sys.stdout, 'standard output')
  else:
    sys.stderr = _Named(sys.stderr, f'process {jax.process_index()}: ')
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Gloo, which is C++, prints every connection there.


def _end(line: str) -> None:
  print(f'\n{line}', file=sys.stderr)
  exits.end(TRY_AGAIN)


def _check_devices() -> None:
  counts = np.bincount([device.process_index for device in jax.devices()])
  if counts.min() != counts.max():
    raise UserError(
      f'the processes have {", ".join(map(str, counts))} devices; '
      'give each the same number (CUDA_VISIBLE_DEVICES chooses)'
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

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
