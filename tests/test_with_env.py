"""launch/with_env, observed through stand-ins: a `python3` that writes down how it is called and
installs nothing.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / 'launch' / 'with_env'
TOOLS = (
  'bash',
  'cat',
  'chmod',
  'cksum',
  'cp',
  'dirname',
  'env',
  'find',
  'flock',
  'grep',
  'head',
  'mkdir',
  'rm',
  'sleep',
  'tail',
  'touch',
)

# Behaves as `python3` and, copied into .venv, as its python. It is of version STUB_VERSION; `-m pip
# install` exits with STUB_PIP_EXIT once the file STUB_GATE is there.
STUB = """#!/usr/bin/env bash
set -eu
case "$*" in
  "-c "*version_info*)
    [[ ${STUB_VERSION:-3.12} == 3.1[12] ]] ;;
  "-c "*ensurepip*)
    [ -z "${STUB_NO_ENSUREPIP:-}" ] ;;
  "-m venv"*)
    echo "$*" >>"$STUB_CALLS"
    mkdir -p "${!#}/bin"
    cp "$0" "${!#}/bin/python" ;;
  *"-m pip"*" install "*)
    echo "$*" >>"$STUB_CALLS"
    while [ -n "${STUB_GATE:-}" ] && [ ! -e "$STUB_GATE" ]; do sleep 0.05; done
    echo "pip's own words"
    exit "${STUB_PIP_EXIT:-0}" ;;
esac
"""

PYPROJECT = """[project]
dependencies = [
]
[project.optional-dependencies]
browser = ["a"]
interop = ["b"]
test = ["c"]
[tool.x]
y = ["z"]
"""


class Checkout:
  """A checkout with launch/with_env, below a folder with a space in its name, and the PATH it
  runs under.
  """

  def __init__(self, folder: Path):
    self.root = folder / 'a checkout'
    self.bin = folder / 'bin'
    self.calls = folder / 'calls'
    (self.root / 'launch').mkdir(parents=True)
    shutil.copy(SCRIPT, self.root / 'launch')
    (self.root / 'pyproject.toml').write_text(PYPROJECT)
    self.constraints = self.root / 'launch' / 'constraints.txt'
    self.constraints.write_text('numpy==2.0\n')
    self.bin.mkdir()
    for tool in TOOLS:
      if shutil.which(tool):
        (self.bin / tool).symlink_to(shutil.which(tool))
    self.add_program('python3', STUB)

  def add_program(self, name: str, text: str):
    (self.bin / name).write_text(text)
    (self.bin / name).chmod(0o755)

  def start(self, *command, cwd=None, **environment) -> subprocess.Popen:
    return subprocess.Popen(
      [self.root / 'launch' / 'with_env', *command],
      cwd=cwd,
      env={'PATH': str(self.bin), 'STUB_CALLS': str(self.calls), **environment},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )

  def run(self, *command, **options) -> subprocess.CompletedProcess:
    process = self.start(*command, **options)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)

  def installs(self) -> list[str]:
    lines = self.calls.read_text().splitlines() if self.calls.exists() else []
    return [line for line in lines if 'pip' in line and '--editable' in line]

  def wait_for_install(self):
    deadline = time.monotonic() + 30
    while not self.installs():
      assert time.monotonic() < deadline, 'it never began to install'
      time.sleep(0.01)

  def venvs(self) -> list[str]:
    lines = self.calls.read_text().splitlines() if self.calls.exists() else []
    return [line for line in lines if line.startswith('-m venv')]


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


def test_without_a_command_it_shows_its_usage_and_exits_2(checkout):
  result = checkout.run()
  assert result.returncode == 2
  assert 'usage: launch/with_env' in result.stderr
  assert checkout.run('--help').returncode == 0
  assert not (checkout.root / '.venv').exists()


def test_installs_once_under_the_constraints_and_keeps_pip_quiet(checkout):
  first = checkout.run('env')
  assert first.returncode == 0
  assert 'Setting up .venv (once' in first.stderr
  assert "pip's own words" not in first.stdout + first.stderr
  assert "pip's own words" in (checkout.root / '.venv' / 'setup.log').read_text()
  (install,) = checkout.installs()
  assert '--constraint launch/constraints.txt' in install
  assert install.endswith('test]')

  second = checkout.run('env')
  assert second.returncode == 0
  assert second.stderr == ''
  assert len(checkout.installs()) == 1


def test_big_arrays_go_into_huge_pages_unless_the_user_tunes_malloc(checkout):
  assert 'GLIBC_TUNABLES=glibc.malloc.hugetlb=1\n' in checkout.run('env').stdout
  assert (
    'GLIBC_TUNABLES=glibc.malloc.check=1\n'
    in checkout.run('env', GLIBC_TUNABLES='glibc.malloc.check=1').stdout
  )


@pytest.mark.skipif(
  Path('/proc/driver/nvidia/version').exists(), reason='this machine has an NVIDIA driver'
)
def test_installs_cuda_only_where_there_is_a_driver_and_then_keeps_it(checkout):
  checkout.run('env')
  assert checkout.installs()[-1].endswith(' .[test]')
  checkout.add_program('nvidia-smi', '#!/bin/sh\n')
  checkout.run('env')
  assert checkout.installs()[-1].endswith(' .[cuda12,test]')
  (checkout.bin / 'nvidia-smi').unlink()
  checkout.run('env')
  assert len(checkout.installs()) == 2


def test_extras_are_added_and_kept(checkout):
  checkout.run('env')
  assert 'Updating' in checkout.run('env', EXTRAS='interop').stderr
  assert checkout.installs()[-1].endswith(' .[test,interop]')
  last = checkout.calls.read_text().splitlines()[-1]
  assert last.endswith(' --no-deps jax2onnx') and '--constraint launch/constraints.txt' in last
  assert checkout.run('env').stderr == '' == checkout.run('env', EXTRAS='test,interop').stderr
  checkout.run('env', EXTRAS='browser,interop')
  assert checkout.installs()[-1].endswith(' .[test,interop,browser]')
  assert len(checkout.installs()) == 3


@pytest.mark.parametrize('name', ['dependencies', 'y', 'inter', 'nothing'])
def test_an_unknown_extra_is_refused(checkout, name):
  refused = checkout.run('env', EXTRAS=f'interop,{name}')
  assert refused.returncode == 2
  line = f'EXTRAS has {name}, which pyproject.toml does not know; it has: browser interop test'
  assert refused.stderr == f'launch/with_env: {line}\n'
  assert checkout.installs() == []


@pytest.mark.parametrize('name', ['pyproject.toml', 'launch/constraints.txt'])
def test_updates_in_place_when_what_it_installs_has_changed(checkout, name):
  checkout.run('env')
  with (checkout.root / name).open('a') as file:
    file.write('# changed\n')
  result = checkout.run('env')
  assert 'Updating' in result.stderr
  assert (len(checkout.installs()), len(checkout.venvs())) == (2, 1)
  assert checkout.run('env').stderr == ''


def test_the_command_gets_the_environment_its_directory_and_its_arguments(checkout, tmp_path):
  result = checkout.run(
    'bash',
    '-c',
    'echo "$VIRTUAL_ENV|$PYTHONPATH|${PATH%%:*}|$PWD|$1"',
    '-',
    'two  words',
    cwd=tmp_path,
  )
  venv = checkout.root / '.venv'
  assert result.stdout == f'{venv}|{checkout.root}|{venv}/bin|{tmp_path}|two  words\n'


def test_the_exit_code_is_the_commands(checkout):
  assert checkout.run('bash', '-c', 'exit 7').returncode == 7
  assert checkout.run('no-such-program').returncode == 127


def test_a_failed_install_says_so_and_is_started_afresh(checkout):
  failed = checkout.run('bash', '-c', 'echo ran', STUB_PIP_EXIT='1')
  assert failed.returncode == 1
  assert failed.stdout == ''
  assert "pip's own words" in failed.stderr
  assert 'call it again' in failed.stderr
  (checkout.root / '.venv' / 'half').write_text('')
  assert checkout.run('bash', '-c', 'echo ran').stdout == 'ran\n'
  assert len(checkout.venvs()) == 2
  assert not (checkout.root / '.venv' / 'half').exists()


def test_a_failed_update_keeps_the_environment_and_is_tried_again(checkout):
  checkout.run('env')
  checkout.constraints.write_text('numpy==2.1\n')
  assert checkout.run('env', STUB_PIP_EXIT='1').returncode == 1
  assert checkout.run('env').returncode == 0
  assert (len(checkout.installs()), len(checkout.venvs())) == (3, 1)


def test_an_environment_made_by_hand_is_kept_and_completed(checkout):
  python = checkout.root / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  shutil.copy(checkout.bin / 'python3', python)
  assert checkout.run('env').returncode == 0
  assert (len(checkout.installs()), len(checkout.venvs())) == (1, 0)


def test_an_interrupted_install_is_not_taken_for_a_whole_one(checkout, tmp_path):
  process = checkout.start('env', STUB_GATE=str(tmp_path / 'never'))
  checkout.wait_for_install()
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert checkout.run('env').returncode == 0
  assert len(checkout.venvs()) == 2


def test_a_checkout_that_was_moved_gets_a_new_environment(checkout):
  checkout.run('env')
  checkout.root = checkout.root.rename(checkout.root.with_name('moved'))
  assert 'Setting up' in checkout.run('env').stderr
  assert len(checkout.venvs()) == 2


@pytest.mark.skipif(not shutil.which('flock'), reason='no flock')
def test_two_first_calls_at_once_install_once(checkout, tmp_path):
  gate = tmp_path / 'gate'
  first = checkout.start('bash', '-c', 'echo ran', STUB_GATE=str(gate))
  checkout.wait_for_install()
  second = checkout.start('bash', '-c', 'echo ran', STUB_GATE=str(gate))
  assert 'waiting for another' in second.stderr.readline()
  gate.touch()
  assert [process.communicate(timeout=60)[0] for process in (first, second)] == ['ran\n', 'ran\n']
  assert len(checkout.installs()) == 1


def test_an_old_python_is_refused_and_a_newer_one_beside_it_is_found(checkout):
  result = checkout.run('env', STUB_VERSION='3.10')
  assert result.returncode == 2
  assert 'no Python 3.11 or newer' in result.stderr
  checkout.add_program('python3.12', STUB.replace('STUB_VERSION', 'OTHER_VERSION'))
  assert checkout.run('env', STUB_VERSION='3.10').returncode == 0


def test_the_chosen_python_is_used_or_refused(checkout, tmp_path):
  refused = checkout.run('env', PYTHON='no-such-python')
  assert refused.returncode == 2
  assert 'PYTHON=no-such-python' in refused.stderr
  other = tmp_path / 'other python'
  other.write_text(STUB.replace('"$*" >>', '"chosen $*" >>'))
  other.chmod(0o755)
  assert checkout.run('env', PYTHON=str(other)).returncode == 0
  assert 'chosen -m venv' in checkout.calls.read_text()


def test_without_ensurepip_the_pip_that_is_there_installs_one(checkout):
  assert checkout.run('env', STUB_NO_ENSUREPIP='1').returncode == 0
  venv = checkout.root / '.venv'
  assert checkout.calls.read_text().splitlines()[:2] == [
    f'-m venv --without-pip {venv}',
    f'-m pip --python {venv}/bin/python install pip',
  ]
