"""Launch scripts as a user types them: commands run from the root of the checkout, on a tiny
folder of images.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = """
from configs import smoke

def get_config():
  c = smoke.get_config()
  c.data.name, c.data.root, c.data.prepared_dir = 'folder', {root!r}, {prepared!r}
  c.data.labels = 6
  c.pretrain.steps, c.pretrain.log_every, c.pretrain.eval_every = 6, 2, 3
  c.segment.steps, c.segment.log_every, c.segment.eval_every = 4, 2, 2
  c.classifier.steps, c.classifier.log_every, c.classifier.eval_every = 2, 1, 1
  c.evaluate.bootstrap_samples = 100
  c.grid.labels, c.grid.seeds = (6,), (0,)
  return c
"""

# Runs launch scripts, each in a fork of its own, so that Python starts and imports once for many
# commands.
FORKS = """
import json, os, runpy, signal, sys, tempfile
import ahm_jax.pipeline.grid, launch.app
for line in sys.stdin:
  stage, *flags = json.loads(line)
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    child = os.fork()
    if not child:
      os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
      signal.alarm(500)
      sys.argv = ['launch/' + stage + '.py', *flags]
      code = 0
      try:
        runpy.run_module('launch.' + stage, run_name='__main__', alter_sys=True)
      except SystemExit as end:
        code = end.code or 0
      except BaseException:
        import traceback
        traceback.print_exc()
        code = 1
      sys.stdout.flush(), sys.stderr.flush()
      os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out.seek(0), err.seek(0)
    print(json.dumps([code, out.read(), err.read()]), flush=True)
"""


class Commands:
  """Starts launch scripts.

  The programs that JAX compiles for one are kept for the next, which is most of their time.
  """

  def __init__(self, home: Path):
    cache = {
      'JAX_COMPILATION_CACHE_DIR': str(home),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self.environment = {**os.environ, **cache, 'JAX_PLATFORMS': 'cpu'}
    self._forks = None

  def start(self, stage: str, *flags, **options) -> subprocess.Popen:
    """A command that runs; standard output and error can be read from it."""
    command = [sys.executable, '-m', f'launch.{stage}', *map(str, flags)]
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes | options)

  def succeed(self, stage: str, *flags) -> subprocess.CompletedProcess:
    done = self.run(stage, *flags)
    assert done.returncode == 0, done.stderr
    return done

  def run(self, stage: str, *flags) -> subprocess.CompletedProcess:
    """A command that has ended; 500 s are the most that it may take."""
    if self._forks is None:
      pipes = {
        'stdin': subprocess.PIPE,
        'stdout': subprocess.PIPE,
        'stderr': subprocess.DEVNULL,
        'text': True,
      }
      self._forks = subprocess.Popen(
        [sys.executable, '-c', FORKS], cwd=ROOT, env=self.environment, **pipes
      )
    self._forks.stdin.write(json.dumps([stage, *map(str, flags)]) + '\n')
    self._forks.stdin.flush()
    return subprocess.CompletedProcess(flags, *json.loads(self._forks.stdout.readline()))

  def run_python(self, script: str, **environment) -> subprocess.CompletedProcess:
    """A script of Python that has ended."""
    command, own = [sys.executable, '-c', script], {**self.environment, **environment}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)

  def close(self) -> None:
    if self._forks is not None:
      self._forks.stdin.close()
      self._forks.wait(10)
      self._forks.stdout.close()


@pytest.fixture(scope='session')
def commands(tmp_path_factory):
  own = tmp_path_factory.getbasetemp()
  # Workers share it.
  commands = Commands((own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own) / 'compiled')
  yield commands
  commands.close()


def draw(
  name: str, number: int, size: tuple[int, int], root: Path, suffix: str, mask_value: int | None
) -> None:
  """An image with an ellipse, dark or red by turns, and its mask with this value inside."""
  rng = np.random.default_rng(number)
  width, height = size
  rows, columns = np.mgrid[:height, :width]
  inside = ((rows - height * 0.5) / (height * 0.3)) ** 2 + (
    (columns - width * 0.4) / (width * 0.25)
  ) ** 2 <= 1
  image = rng.integers(170, 230, (height, width, 3), np.uint8)
  image[inside] = (60, 40, 30) if number % 2 else (190, 60, 50)
  Image.fromarray(image).save(root / 'images' / f'{name}{suffix}')
  if mask_value is not None:
    Image.fromarray(inside.astype(np.uint8) * np.uint8(mask_value)).save(
      root / 'masks' / f'{name}.png'
    )


def draw_folder(root: Path) -> None:
  """10 images to train on with masks, one without a mask, one without a row.

  4 to validate, 5 (two of a patient) to test.
  """
  (root / 'images').mkdir(parents=True)
  (root / 'masks').mkdir()
  rows = ['image,label,split,group']
  splits = ['train'] * 10 + ['validation'] * 4 + ['test'] * 5
  for number, split in enumerate(splits):
    name = f'{split}{number:02d}'
    size = (40 + 7 * (number % 5), 64 - 5 * (number % 3))
    draw(name, number, size, root, '.jpg' if number % 3 else '.png', 1 if number == 4 else 255)
    rows.append(f'{name},{"ab"[number % 2]},{split},patient{min(number, 17)}')
  draw('maskless', 50, (48, 48), root, '.jpg', None)
  rows.append('maskless,a,train,patient50')
  draw('rowless', 51, (50, 30), root, '.png', None)
  (root / 'labels.csv').write_text('\n'.join(rows) + '\n')


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """The tiny folder of images; not to be changed."""
  root = tmp_path_factory.mktemp('folder') / 'lesions'
  draw_folder(root)
  return root


@pytest.fixture
def own_folder(folder, tmp_path):
  """A copy of it to spoil."""
  return Path(shutil.copytree(folder, tmp_path / 'lesions'))


@pytest.fixture(scope='session')
def config_file(folder, tmp_path_factory):
  """A config of a few steps of everything on the tiny folder."""
  home = tmp_path_factory.mktemp('config')
  path = home / 'tiny.py'
  path.write_text(CONFIG.format(root=str(folder), prepared=str(home / 'data')))
  return path
