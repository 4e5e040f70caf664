"""What the launch scripts share: their flags, how they begin, and how they end."""

import contextlib
import faulthandler
import functools
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from ahm_jax import config as config_module
from ahm_jax.config import Config
from ahm_jax.errors import UserError, full_disk, printable
from ahm_jax.runs import checkpoint_reading, directory
from ahm_jax.runtime import (
  compilation,
  exits,
  joining,
  limits,
  processes,
  refusals,
  signals,
  streams,
)
from ahm_jax.runtime.signals import TRY_AGAIN
from launch import command_line
from launch.command_line import USER_ERROR, define_path

FAILED = 1  # Exit code for a fault of the program.

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config, with its variant where it has one: NAME[:variant] or FILE[:variant].'
)
flags.FLAGS['config'].parser = command_line.ConfigParser('config')


_WORKDIR = define_path(
  'workdir', None, 'Folder that this run writes into; made if it is not there.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, or auto, where several processes train.'
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes train together.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which of them this is, from 0.')

_ALONE = (
  'only launch.pretrain, launch.segment and launch.classify run in several processes; leave out '
  '--coordinator. To share a grid among machines, start launch.reproduce on each with the same '
  '--workdir; each trains cells of the grid that no other is training'
)

_NO_CHECKPOINT = 'there was no checkpoint yet'


def run(
  stage: Callable[[Config, Path], object], several: bool = False, following: str = ''
) -> None:
  """Reads the flags, builds and checks the config, calls `stage(config, workdir)`, and ends the
  process.

  Wrong input ends it with one line on standard error and exit code 2; Ctrl-C, SIGTERM and the loss
  of another process with one line and TRY_AGAIN.

  Args:
    several: whether several processes may run the stage together.
    following: as a `Stage` has it, to be said in the end.
  """
  streams.make_steady()
  command_line.parse(('config', 'workdir'), command_line.help_of_a_run(several))
  with _process(_saved if several else str):
    config = config_module.from_config_dict(_CONFIG.value)
    directory.check_writable(_workdir(), 'workdir')
    _join_others(several)
    stage(config, _workdir())
    if following and processes.is_first():
      print(printable(command_line.as_called(f'next: {following}').format(workdir=_workdir())))


def run_tool(main: Callable[[], None], required: Sequence[str], help_text: str = '') -> None:
  """As `run`, for a script with flags of its own, of which it names those that must be given."""
  streams.make_steady()
  command_line.parse(required, help_text)
  with _process(str):
    main()


def _workdir() -> Path:
  return Path(_WORKDIR.value or '').expanduser()


def _join_others(several: bool) -> None:
  coordinator, count, index = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  joining.check(coordinator, count, index)
  if coordinator is not None:
    if not several:
      raise UserError(_ALONE)
    interrupted = functools.partial(_interrupted, _saved)
    joining.join(coordinator, count, index, _last_words, interrupted)


# How a script ends.


@contextlib.contextmanager
def _process(saved: Callable[[], str]) -> Iterator[None]:
  """The block is all that the process does: it ends afterwards, with the exit code that is due.

  `saved` tells what an interrupted process has saved, where the training does not.
  """
  faulthandler.enable(sys.stderr)
  _set_up_logging()
  code, lost = 0, False
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(signals.raising())
      limits.check()
      compilation.set_gpu_flags()
      compilation.keep_programs()
      yield
    except (Exception, KeyboardInterrupt) as error:
      lost = exits.is_loss(error)
      code = _report(error, lost, saved)
  exits.leave(code, lost)


def _report(error: BaseException, lost: bool, saved: Callable[[], str]) -> int:
  """Prints what stopped a script, in one line where that was foreseen.

  Returns:
    The exit code.

  Raises:
    error: it was not foreseen, and no other process waits for this one to end.
  """
  if isinstance(error, UserError):
    return _end(USER_ERROR, f'error: {error}')
  if isinstance(error, KeyboardInterrupt):
    return _end(TRY_AGAIN, '\n' + (signals.line(str(error)) if str(error) else _interrupted(saved)))
  if said := full_disk(error):
    where = f'{said.lower()} in {_WORKDIR.value} (or in the temporary folder)'
    advice = 'make room and run the same command again; it resumes'
    return _end(USER_ERROR, f'error: {where}; {_last_checkpoint()}; {advice}')
  if lost:
    return _end(TRY_AGAIN, f'{_last_words()} ({exits.said_of_loss(error)})')
  if said := refusals.explain(error):
    return _end(USER_ERROR, f'error: {said}')
  if not processes.has_others():
    raise error
  traceback.print_exc()
  return FAILED


def _saved() -> str:
  """What an interrupted training has saved; '' where that is nothing."""
  said = _last_checkpoint()
  return '' if said == _NO_CHECKPOINT else said


def _interrupted(saved: Callable[[], str]) -> str:
  """What to say of a script that a signal ended."""
  return signals.line(saved())


def _end(code: int, line: str) -> int:
  print(line, file=sys.stderr)
  return code


def _last_words() -> str:
  return (
    f'another process was lost, so this one ends; {_last_checkpoint()}; '
    'run the same command again to resume, with other --processes too'
  )


def _last_checkpoint() -> str:
  try:
    step = checkpoint_reading.latest_step(_workdir())
  except UserError as error:
    return str(error)
  return f'the last checkpoint is that of step {step}' if step else _NO_CHECKPOINT


def _set_up_logging() -> None:
  """Silences Orbax: where it fails, it raises. What it logs besides, and its threads complain of
  later, is of no use to the user.
  """
  noisy = ('orbax', 'asyncio', 'concurrent')
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().addFilter(
    lambda record: not any(name in record.pathname for name in noisy)
  )
  warnings.filterwarnings('ignore', "coroutine '.*' was never awaited", RuntimeWarning)
  complain = sys.unraisablehook

  def unless_closed(report):
    if str(report.exc_value) != 'Event loop is closed':
      complain(report)

  sys.unraisablehook = unless_closed
