"""The command `ahm`: what it lists, refuses and runs."""

import runpy
import sys

import pytest

import ahm_jax
from ahm_jax.api import command
from ahm_jax.config import shipped


def call(monkeypatch, capsys, *arguments):
  """Exit code, standard output and standard error."""
  monkeypatch.setattr(sys, 'argv', ['ahm', *arguments])
  code = 0
  try:
    command.main()
  except SystemExit as end:
    code = end.code
  return code, *capsys.readouterr()


def test_commands_are_the_scripts():
  scripts = {
    path.stem
    for path in shipped.folder('launch').glob('[!_]*.py')
    if "__name__ == '__main__'" in path.read_text(encoding='utf-8')
  }
  assert set(command.COMMANDS) == scripts and len(set(command.COMMANDS)) == len(command.COMMANDS)


@pytest.mark.parametrize('name', command.COMMANDS)
def test_the_first_line_of_a_docstring_says_what_it_does(name):
  summary = command.summary(name)
  assert summary.endswith('.') and 20 < len(summary) <= 84
  assert f'  {name} ' in command.listing() and command.listing().count(summary) == 1
  assert max(map(len, command.listing().splitlines())) <= 100


@pytest.mark.parametrize('arguments', [(), ('--help',), ('-h',), ('help',)])
def test_alone_it_lists_them(monkeypatch, capsys, arguments):
  assert call(monkeypatch, capsys, *arguments) == (0, command.listing() + '\n', '')


def test_it_tells_its_version(monkeypatch, capsys):
  told = call(monkeypatch, capsys, '--version')
  assert told == (0, f'ahm_jax {ahm_jax.__version__}\n', '')


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('pretrian', "there is no command 'pretrian'; did you mean pretrain?"),
    ('prepare-data', "there is no command 'prepare-data'; did you mean prepare_data?"),
    ('app', "there is no command 'app'; there are prepare_data, pretrain, "),
    ('x\ny', "there is no command 'x\\ny'; there are "),
    ('', "there is no command ''; there are "),
    ('--config=smoke', '--config=smoke comes before a command; put the command first'),
  ],
)
def test_others_are_refused_in_one_line(monkeypatch, capsys, name, message):
  code, out, err = call(monkeypatch, capsys, name, '--workdir=x')
  assert (code, out) == (2, '') and err.startswith(f'error: {message}') and err.count('\n') == 1


def test_a_script_gets_the_rest_and_is_told_who_runs_it(monkeypatch, capsys):
  ran = []

  def run(*arguments, **options):
    ran.append((*arguments, options, list(sys.argv[1:]), sys.modules['launch'].__path__[0]))

  monkeypatch.setattr(runpy, 'run_module', run)
  monkeypatch.setitem(sys.modules, 'launch', None)
  assert call(monkeypatch, capsys, 'segment', '--config=a', '--help') == (0, '', '')
  ((module, told, options, arguments, place),) = ran
  assert module == 'launch.segment' and told == {'BY_AHM': True}
  assert options == {'run_name': '__main__', 'alter_sys': True}
  assert arguments == ['--config=a', '--help'] and place == str(shipped.folder('launch'))
