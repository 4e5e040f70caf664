"""The command `ahm`, of which each script in launch/ is a sub-command."""

import ast
import difflib
import runpy
import sys

import ahm_jax
from ahm_jax.config import shipped

COMMANDS = (
  *('prepare_data', 'pretrain', 'segment', 'classify', 'evaluate', 'predict', 'export', 'select'),
  *('reproduce', 'profile', 'benchmark'),
)
_HELP = ('-h', '--help', '-help', 'help')
_USER_ERROR = 2  # As of all commands.


def main() -> None:
  """Runs the command that the first argument names, on those that follow, or lists them all."""
  name, *rest = sys.argv[1:] or _HELP[:1]
  if name in _HELP and not rest:
    print(listing())
  elif name == '--version':
    print(f'ahm_jax {ahm_jax.__version__}')
  elif name not in COMMANDS:
    print(f'error: {_refusal(name)}', file=sys.stderr)
    sys.exit(_USER_ERROR)
  else:
    sys.modules['launch'] = shipped.as_package('launch')
    del sys.argv[1]
    runpy.run_module(f'launch.{name}', {'BY_AHM': True}, run_name='__main__', alter_sys=True)


def listing() -> str:
  """The commands, with a line each."""
  width = max(map(len, COMMANDS))
  lines = [f'  {name:{width}}  {summary(name)}' for name in COMMANDS]
  return '\n'.join(
    [
      'ahm COMMAND --FLAG=VALUE ..., or python -m launch.COMMAND in a checkout:',
      *lines,
      'ahm COMMAND --help says more of each.',
    ]
  )


def summary(name: str) -> str:
  """The first line of the script's docstring."""
  text = (shipped.folder('launch') / f'{name}.py').read_text(encoding='utf-8')
  return (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]


def _refusal(name: str) -> str:
  if name.startswith('-'):
    return f'{name} comes before a command; put the command first, see ahm --help'
  near = difflib.get_close_matches(name.replace('-', '_'), COMMANDS, n=1)
  hint = f'did you mean {near[0]}?' if near else f'there are {", ".join(COMMANDS)}'
  return f'there is no command {name!r}; {hint}'


if __name__ == '__main__':
  main()
