"""The package as pip installs it from a wheel, used from elsewhere, with the repository not on the
path.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from ahm_jax.api.command import COMMANDS
from tests.launch.conftest import ROOT

SHIPPED = ('ahm_jax', 'configs', 'launch')
OWN = """
import sys
from pathlib import Path
from configs import smoke

def get_config(kind=''):
  paths = [smoke.__file__, *sys.modules['launch'].__path__[:1]]
  (Path(__file__).parent / 'seen').write_text('\\n'.join(paths))
  c = smoke.get_config()
  c.seed = 9
  return c
"""


def pip(*arguments, cwd):
  quiet = ('--disable-pip-version-check', '--no-index', '--no-deps')
  command = [sys.executable, '-m', 'pip', *arguments, *quiet]
  done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a source distribution of what git would check out, which it thereby shows whole."""
  home = tmp_path_factory.mktemp('built')
  for name in SHIPPED:
    shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, home)
  make = 'from setuptools import build_meta; build_meta.build_sdist("made")'
  subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', make], cwd=home, check=True, stdout=subprocess.DEVNULL
  )
  (source,) = (home / 'made').iterdir()
  pip('wheel', '--no-build-isolation', '--wheel-dir=made', str(source), cwd=home)
  (wheel,) = (home / 'made').glob('*.whl')
  return wheel


@pytest.fixture(scope='module')
def installed(wheel, commands, tmp_path_factory):
  """Where it is installed, another folder to work in, and `ahm` there."""
  home, work = tmp_path_factory.mktemp('target'), tmp_path_factory.mktemp('elsewhere')
  pip('install', f'--target={home}', str(wheel), cwd=work)
  environment = {**commands.environment, 'PYTHONPATH': str(home)}

  def run(*command):
    return subprocess.run(
      command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )

  return SimpleNamespace(home=home, work=work, run=run, ahm=str(home / 'bin/ahm'))


def test_the_wheel_holds_every_file_and_one_name_at_its_top(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  assert {name.split('/')[0].partition('-')[0] for name in names} == {'ahm_jax'}
  expected = set()
  for folder in SHIPPED:
    for path in (ROOT / folder).rglob('*'):
      is_data = folder == 'ahm_jax' and path.is_file() and '__pycache__' not in path.parts
      if path.suffix == '.py' or is_data:
        place = path.relative_to(ROOT).as_posix()
        expected.add(place if folder == 'ahm_jax' else f'ahm_jax/{place}')
  assert {name for name in names if '.dist-info/' not in name} == expected
  assert 'ahm_jax/configs/smoke.py' in expected and 'ahm_jax/py.typed' in expected


def test_ahm_lists_the_commands_and_helps(installed):
  listed = installed.run(installed.ahm)
  assert (listed.returncode, listed.stderr) == (0, '')
  assert [line.split()[0] for line in listed.stdout.splitlines()[1:-1]] == list(COMMANDS)
  assert installed.run(installed.ahm, '--help').stdout == listed.stdout
  for name, flag in (('pretrain', '--workdir=DIR'), ('export', '--format=FORMAT')):
    done = installed.run(installed.ahm, name, '--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert f'\n  ahm {name} --' in done.stdout and f'\n  {flag}' in done.stdout
    assert 'python -m launch' not in done.stdout and 'configs/phantom.py' not in done.stdout


def test_nothing_else_can_be_imported(installed):
  script = """
import importlib.util, ahm_jax
print(ahm_jax.__file__, ahm_jax.__version__, ahm_jax.get_config('phantom').data.image_size)
print(importlib.util.find_spec('launch'), importlib.util.find_spec('configs'))
print(*ahm_jax.get_config('phantom_mri').data.modalities)
"""
  done = installed.run(sys.executable, '-c', script)
  first, second, third = done.stdout.splitlines()
  assert first == f'{installed.home}/ahm_jax/__init__.py 0.1.0 64' and second == 'None None'
  assert third == 'flair t1 t2'


def test_a_command_runs(installed):
  """By a shipped config, and by one's own file that builds on one."""
  flags = ('--config.segment.steps=1', '--config.data.labels=4')
  done = installed.run(installed.ahm, 'segment', '--config=smoke', '--workdir=run', *flags)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == (
    'next: ahm evaluate with the same flags scores it; new images: ahm predict --checkpoint=run '
    '--images=DIR --out=DIR'
  )
  assert json.loads((installed.work / 'run/run.json').read_text())['config']['seed'] == 0
  (installed.work / 'own.py').write_text(OWN)
  done = installed.run(installed.ahm, 'prepare_data', '--config=own.py', '--workdir=own')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('train: 64 images, 64 with a mask')
  configs, launch = (installed.work / 'seen').read_text().splitlines()
  assert configs == f'{installed.home}/ahm_jax/configs/smoke.py'
  assert launch == f'{installed.home}/ahm_jax/launch'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('pretrian',), "there is no command 'pretrian'; did you mean pretrain?"),
    (('pretrain', '--config=smok', '--workdir=x'), 'no such config; did you mean smoke?'),
    (('pretrain', '--config=configs/smoke.py', '--workdir=x'), 'no such file; did you mean smoke?'),
    (('pretrain', '--config=smoke'), '--workdir is missing; see --help'),
    (('pretrain', '--config=smoke', '--workdir=x', 'y'), "argument 'y' is not a flag"),
  ],
)
def test_wrong_commands_are_refused_in_one_line(installed, arguments, message):
  done = installed.run(installed.ahm, *arguments)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert message in done.stderr and not (installed.work / 'x').exists()
