"""The command line of the launch scripts: its help, and what is wrong with it."""

import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from ml_collections.config_flags import config_flags

from ahm_jax.config import paths, shipped
from ahm_jax.errors import UserError
from ahm_jax.runtime import joining
from ahm_jax.runtime.signals import TRY_AGAIN

USER_ERROR = 2  # Exit code for wrong input.

_HELP = """
Flags:
  --config=NAME[:variant]  A config that comes with ahm_jax, or a config file, FILE[:variant]; those
                           in configs/ say at their head what they are for.
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
  Every field, with its meaning, range and default: fields.py and recipes.py in ahm_jax/config/
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

_UNKNOWN_FIELD = re.compile(
  r"""
  [\\'"]* (\w+) [\\'"]*                           # The field, in quotes within quotes.
  (?: (?:\n|\\n) (Did\ you\ mean\ "\w+") .* )?    # What ml_collections suggests.
  """,
  re.VERBOSE,
)


class ConfigParser(config_flags.ConfigFileFlagParser):
  """Of --config, which may also be the name of a config that comes with the package."""

  def parse(self, path: str) -> object:
    file, variant = shipped.config_file(path)
    with shipped.importable_configs():
      return super().parse(file if variant is None else f'{file}:{variant}')


def help_of_a_run(several: bool) -> str:
  """What follows the docstring of a script that trains or scores; `several`: in several processes,
  if asked.
  """
  return _HELP + (_SEVERAL if several else '') + _CODES.format(_LOST if several else '')


def define_path(name: str, default: str | None, help_text: str) -> flags.FlagHolder[str | None]:
  """A flag that names a file or a folder of this machine; a URL is refused."""
  holder = flags.DEFINE_string(name, default, help_text)
  flags.register_validator(name, _is_local)
  return holder


def _is_local(path: str | None) -> bool:
  if path and (fault := paths.local(path)):
    raise flags.ValidationError(fault)
  return True


def parse(required: Sequence[str], help_text: str) -> None:
  """Parses the command line; prints help, or what is wrong with it, and ends the process."""
  if {'-h', '-help', '--help', '--helpshort', '--helpfull'} & set(sys.argv):
    print(as_called((sys.modules['__main__'].__doc__ or '').strip() + '\n' + help_text))
    sys.exit(0)
  _check_characters(sys.argv[1:])
  try:
    rest = flags.FLAGS(sys.argv)
    missing = [name for name in required if flags.FLAGS[name].value in (None, '')]
    if not missing and 'config' in required:
      flags.FLAGS.config.to_dict()  # A file that failed to load says so only here.
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


def as_called(text: str) -> str:
  """Text as it is of a script that the command `ahm` runs, which says so by BY_AHM: commands, and
  configs, by their names.
  """
  if not hasattr(sys.modules['__main__'], 'BY_AHM'):
    return text
  text = re.sub(r'(launch/with_env )?(python -m )?\blaunch\.(?=[a-z])', 'ahm ', text)
  return re.sub(r'--config=configs/(\w+)\.py', r'--config=\1', text)


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
