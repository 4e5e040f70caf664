"""What the launch scripts share: their flags, their help, and how they end."""

import functools
import pathlib
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from ahm_jax import config as config_module
from ahm_jax.config import Config
from ahm_jax.errors import UserError, full_disk
from ahm_jax.runs import checkpoints, directory
from ahm_jax.runtime import compilation, processes, signals
from ahm_jax.runtime.signals import TRY_AGAIN

USER_ERROR = 2  # Exit code for wrong input.
FAILED = 1  # Exit code for a fault of the program.

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Config file, with its variant where it has one: FILE[:variant].'
)
_WORKDIR = flags.DEFINE_string(
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
    masking.strategy, masking.mask_ratio, masking.patch_size
    pretrain.batch_size, pretrain.learning_rate, pretrain.epochs, pretrain.steps
                                   how pre-training trains; so do segment.* and classifier.*
    init_from                      the run whose weights this one starts from
    seed
  Every field, with its meaning, range and default: ahm_jax/config/fields.py
"""

_SEVERAL = f"""
To train in several processes, on one machine or more, start the same command in each with these:
  --coordinator=HOST:PORT  Where process 0 can be reached, on a free port; all wait {processes.JOINING} s for each other.
  --processes=N            How many there are; batch_size is shared out evenly among the devices of all.
  --process=I              Which one this is, 0 to N - 1. Process 0 prints and logs.
  --coordinator=auto       In place of the three in a SLURM step, under Open MPI or mpi4py, or in a Kubernetes job
                           (with jax[k8s]).
"""

_CODES = f"""
Exit codes: 0 done; 2 wrong input, or a full disk, said in one line; {TRY_AGAIN} interrupted by Ctrl-C or SIGTERM{{}}: the same
  command goes on where it was."""
_LOST = ', or another process was\n  lost or did not come'

_FULL = 'error: {} in {} (or in the temporary folder); {}; make room, and the same command goes on'

_ALONE = (
  'only launch.pretrain, launch.segment and launch.classify run in several processes; leave out --coordinator. To share a grid '
  'among machines, start launch.reproduce on each with the same --workdir; each takes cells that no other is at'
)


def run(stage: Callable[[Config, pathlib.Path], None], several: bool = False) -> None:
  """Reads the flags, builds and checks the config, calls `stage(config, workdir)`, and ends the
  process.

  Wrong input ends it with one line on standard error and exit code 2; so do Ctrl-C, SIGTERM and the
  loss of another process, with TRY_AGAIN.

  Args:
    several: whether several processes may run the stage together.
  """

  def main():
    config = config_module.from_config_dict(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value).expanduser()
    directory.check_writable(workdir, 'workdir')
    processes.check(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if _COORDINATOR.value is not None:
      if not several:
        raise UserError(_ALONE)
      processes.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _last_words)
    stage(config, workdir)

  help_text = _HELP + (_SEVERAL if several else '') + _CODES.format(_LOST if several else '')
  run_tool(main, required=('config', 'workdir'), help_text=help_text)


def run_tool(main: Callable[[], None], required: Sequence[str], help_text: str = '') -> None:
  """As `run`, for a script with flags of its own, of which it names those that must be given."""

  def guarded(_):
    logging.set_verbosity(logging.WARNING)
    _silence_orbax()
    compilation.set_gpu_flags()
    compilation.keep_programs()
    with signals.raising():
      code, lost = _outcome(main)
    processes.leave(code, lost)

  app.run(guarded, flags_parser=functools.partial(_parse, required=required, help_text=help_text))


def _outcome(main: Callable[[], None]) -> tuple[int, bool]:
  """Calls `main` and says what stopped it; what nobody foresaw is raised where nobody waits for it.

  Returns:
    The exit code, and whether another process was lost.
  """
  try:
    main()
    return 0, False
  except UserError as error:
    return _end(USER_ERROR, f'error: {error}')
  except KeyboardInterrupt:
    return _end(TRY_AGAIN, f'\n{signals.LINE}')
  except Exception as error:
    if said := full_disk(error):
      return _end(USER_ERROR, _FULL.format(said.lower(), _WORKDIR.value, _last_checkpoint()))
    if processes.is_loss(error):
      return _end(TRY_AGAIN, f'{_last_words()} ({_one_line(error)})', lost=True)
    if not processes.has_others():
      raise
    traceback.print_exc()
    return FAILED, False


def _silence_orbax() -> None:
  """Where Orbax fails, it says so to us.

  What it logs besides, and its threads complain of later, is of no use to the user.
  """
  noisy = ('orbax', 'asyncio', 'concurrent')
  logging.get_absl_handler().addFilter(
    lambda record: not any(name in record.pathname for name in noisy)
  )
  warnings.filterwarnings('ignore', "coroutine '.*' was never awaited", RuntimeWarning)
  complain = sys.unraisablehook

  def unless_closed(report):
    if str(report.exc_value) != 'Event loop is closed':
      complain(report)

  sys.unraisablehook = unless_closed


def _end(code: int, line: str, lost: bool = False) -> tuple[int, bool]:
  print(line, file=sys.stderr)
  return code, lost


def _last_words() -> str:
  checkpoint_line = f'another process was lost, so this one ends; {_last_checkpoint()}'
  return f'{checkpoint_line}; the same command goes on from there, with other --processes too'


def _last_checkpoint() -> str:
  step = checkpoints.latest_step(pathlib.Path(_WORKDIR.value or '').expanduser())
  return f'the last checkpoint is that of step {step}' if step else 'there was no checkpoint yet'


def _parse(argv: list[str], required: Sequence[str], help_text: str) -> list[str]:
  if {'-h', '-help', '--help', '--helpshort', '--helpfull'} & set(argv):
    print(sys.modules['__main__'].__doc__.strip() + '\n' + help_text)
    sys.exit(0)
  try:
    rest = flags.FLAGS(argv)
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
    _refuse(
      f'--{missing[0]} is {"missing" if flags.FLAGS[missing[0]].value is None else "empty"}; see --help'
    )
  return rest


def _one_line(error: Exception) -> str:
  """ml_collections puts its message into the repr of a KeyError, its suggestion on a second
  line, or a whole traceback.
  """
  text = (
    str(error.args[0])
    if isinstance(error, AttributeError | KeyError) and error.args
    else str(error)
  )
  if isinstance(error, OSError) or 'Traceback' in text:
    line = text.strip().splitlines()[-1].strip()
    if line.endswith('takes 0 positional arguments but 1 was given'):
      return 'the file given by --config has no variants; leave out the colon and what follows it'
    return line
  if 'before a value for --config' in text:
    return 'a field of the config comes before its file; put --config=FILE first'
  return (
    text.replace('\\n', '\n')
    .replace("\\'", "'")
    .strip('\'"')
    .replace("'\n", ' is not a field of the config. ')
    .replace('\n', ' ')
  )


def _refuse(message: object) -> None:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(USER_ERROR)
