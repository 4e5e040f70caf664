"""What the launch scripts share: their flags, their help, and how they end."""

import contextlib
import faulthandler
import functools
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import config_flags

from ahm_jax import config as config_module
from ahm_jax.config import Config, paths
from ahm_jax.errors import UserError, full_disk
from ahm_jax.runs import checkpoints, directory
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

USER_ERROR = 2  # Exit code for wrong input.
FAILED = 1  # Exit code for a fault of the program.

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with its variant where it has one: FILE[:variant].'
)


def define_path(name: str, default: str | None, help_text: str) -> flags.FlagHolder[str | None]:
  """A flag that names a file or a folder of this machine; a URL is refused."""
  holder = flags.DEFINE_string(name, default, help_text)
  flags.register_validator(name, _is_local)
  return holder


def _is_local(path: str | None) -> bool:
  if path and (fault := paths.local(path)):
    raise flags.ValidationError(fault)
  return True


_WORKDIR = define_path(
  'workdir', None, 'Folder that this run writes into; made if it is not there.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, or auto, where several processes train.'
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many processes train together.')
_PROCESS = flags.DEFINE_integer('process', None, 'Which of them this is, from 0.')

_HELP = """
Flags:
  --config=FILE[:variant]  Config file; those in configs/ say at their head what they are for.
  --workdir=DIR            Folder that this run writes into; made if it is not there. The same
                           command resumes an interrupted run.
  --config.FIELD=VALUE     Changes a field of the config. Fields most used:
    data.root, data.image_size     the images, and the side they are resized to
    data.labels                    how many labels to use
    data.labelled_from             which: a list, as launch.select writes it
    masking.strategy, masking.mask_ratio, masking.patch_size
    pretrain.batch_size, pretrain.learning_rate, pretrain.epochs, pretrain.steps
                                   how pre-training trains; so do segment.* and classifier.*
    init_from                      the run whose weights this one starts from
    seed
  Every field, with its meaning, range and default: ahm_jax/config/fields.py
"""

_SEVERAL = f"""
To train in several processes, on one machine or more, start the same command in each with these:
  --coordinator=HOST:PORT  Where process 0 can be reached, on a free port; all wait
                           {joining.JOINING} s for each other.
  --processes=N            How many there are; batch_size is divided evenly among all devices.
  --process=I              Which one this is, 0 to N - 1. Process 0 prints and logs.
  --coordinator=auto       In place of the three in a SLURM step, under Open MPI or mpi4py, or in a
                           Kubernetes job (with jax[k8s]).
"""

_CODES = f"""
Exit codes: 0 done; 2 wrong input, or a full disk or the like, explained in one line; {TRY_AGAIN}
  interrupted by Ctrl-C, SIGTERM, SIGHUP{{}}: run the same command again; it resumes."""
_LOST = ', or another process was lost or did not come'

_ALONE = (
  'only launch.pretrain, launch.segment and launch.classify run in several processes; leave out '
  '--coordinator. To share a grid among machines, start launch.reproduce on each with the same '
  '--workdir; each trains cells of the grid that no other is training'
)

_NO_CHECKPOINT = 'there was no checkpoint yet'

_UNKNOWN_FIELD = re.compile(
  r"""
  [\\'"]* (\w+) [\\'"]*                           # The field, in quotes within quotes.
  (?: (?:\n|\\n) (Did\ you\ mean\ "\w+") .* )?    # What ml_collections suggests.
  """,
  re.VERBOSE,
)


def run(stage: Callable[[Config, Path], object], several: bool = False) -> None:
  """Reads the flags, builds and checks the config, calls `stage(config, workdir)`, and ends the
  process.

  Wrong input ends it with one line on standard error and exit code 2; Ctrl-C, SIGTERM and the loss
  of another process with one line and TRY_AGAIN.

  Args:
    several: whether several processes may run the stage together.
  """
  help_text = _HELP + (_SEVERAL if several else '') + _CODES.format(_LOST if several else '')
  streams.make_steady()
  _parse_flags(('config', 'workdir'), help_text)
  with _process(_saved if several else str):
    config = config_module.from_config_dict(_CONFIG.value)
    directory.check_writable(_workdir(), 'workdir')
    _join_others(several)
    stage(config, _workdir())


def run_tool(main: Callable[[], None], required: Sequence[str], help_text: str = '') -> None:
  """As `run`, for a script with flags of its own, of which it names those that must be given."""
  streams.make_steady()
  _parse_flags(required, help_text)
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
    step = checkpoints.latest_step(_workdir())
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


# Reading the flags.


def _parse_flags(required: Sequence[str], help_text: str) -> None:
  """Parses the command line; prints help, or what is wrong with it, and ends the process."""
  if {'-h', '-help', '--help', '--helpshort', '--helpfull'} & set(sys.argv):
    print((sys.modules['__main__'].__doc__ or '').strip() + '\n' + help_text)
    sys.exit(0)
  _check_characters(sys.argv[1:])
  for argument in sys.argv:
    if argument.startswith('--config=') and (fault := paths.local(argument[len('--config=') :])):
      _refuse(f'flag --config {fault}')
  try:
    rest = flags.FLAGS(sys.argv)
    missing = [name for name in required if flags.FLAGS[name].value in (None, '')]
    if not missing and 'config' in required:
      _CONFIG.value.to_dict()  # A file that failed to load says so only here.
  except (
    UserError,
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    OSError,
    ImportError,
  ) as error:
    _refuse(_one_line(error))
  if len(rest) > 1:
    _refuse(f'argument {rest[1]!r} is not a flag; flags start with --, see --help')
  if missing:
    problem = 'missing' if flags.FLAGS[missing[0]].value is None else 'empty'
    _refuse(f'--{missing[0]} is {problem}; see --help')


def _check_characters(arguments: Sequence[str]) -> None:
  """Refuses what is no UTF-8: files of a checkpoint cannot be named by it."""
  for argument in arguments:
    if any('\ud800' <= letter <= '\udfff' for letter in argument):
      encoding = sys.getfilesystemencoding()
      _refuse(
        f'argument {argument!a} is no text in {encoding}; '
        + ('choose another name' if encoding == 'utf-8' else 'put PYTHONUTF8=1 before the command')
      )


def _one_line(error: Exception) -> str:
  """What is wrong with the flags or the config file, of which ml_collections says more."""
  text = str(error).strip()
  if isinstance(error, AttributeError | KeyError) and (found := _UNKNOWN_FIELD.fullmatch(text)):
    name, suggestion = found.groups()
    return f'{name} is not a field of the config' + (f'. {suggestion}?' if suggestion else '')
  if 'before a value for --config' in text:
    return 'a field of the config comes before its file; put --config=FILE first'
  if text.endswith('takes 0 positional arguments but 1 was given'):
    return 'the file given by --config has no variants; leave out the colon and what follows it'
  if isinstance(error, OSError) or 'Traceback' in text:
    return text.splitlines()[-1].strip()
  return ' '.join(text.split())


def _refuse(message: str) -> NoReturn:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(USER_ERROR)
