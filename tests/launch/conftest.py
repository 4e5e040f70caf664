"""Launch scripts as a user types them: commands run from the root of the checkout, on a tiny
folder of images.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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
# commands. The collector of garbage, which would look at all of JAX again and again, is a tenth of
# their time.
FORKS = """
import gc, importlib, json, os, runpy, signal, sys
gc.set_threshold(200_000, 20, 100)

def preload(*modules):
  for module in modules:
    importlib.import_module(module)
  gc.freeze()

preload('ahm_jax.pipeline.grid', 'launch.app')

def start(out, err, own_session, stage, *flags):
  child = os.fork()
  if child:
    return child
  for place, number in ((out, 1), (err, 2)):
    os.dup2(os.open(place, os.O_WRONLY), number)
  if own_session:
    os.setsid()
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

def wait(child, options):
  ended, status = os.waitpid(child, options)
  return os.waitstatus_to_exitcode(status) if ended else None

for line in sys.stdin:
  name, *arguments = json.loads(line)
  print(json.dumps(globals()[name](*arguments)), flush=True)
"""


class Process:
  """A command that was started, to be used as `subprocess.Popen`."""

  def __init__(self, ask: Callable, home: Path, stage: str, *flags, own_session: bool = False):
    self._ask, self.args, self.returncode = ask, flags, None
    self._files = []
    for _ in range(2):
      number, path = tempfile.mkstemp(dir=home)
      os.close(number)
      self._files.append(path)
    self.pid = ask('start', *self._files, own_session, stage, *map(str, flags))

  def poll(self, options: int = os.WNOHANG) -> int | None:
    if self.returncode is None:
      self.returncode = self._ask('wait', self.pid, options)
    return self.returncode

  def wait(self, timeout: float | None = None) -> int:
    if timeout is None:
      return self.poll(0)
    deadline = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() > deadline:
        raise subprocess.TimeoutExpired(self.args, timeout)
      time.sleep(0.02)
    return self.returncode

  def communicate(self, timeout: float | None = None) -> tuple[str, str]:
    self.wait(timeout)
    out, err = (Path(path).read_text() for path in self._files)
    return out, err

  def send_signal(self, number: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    self.send_signal(signal.SIGKILL)


class Commands:
  """Starts launch scripts.

  The programs that JAX compiles for one are kept for the next, which is most of their time.
  """

  def __init__(self, home: Path):
    """`home` is where those programs are; workers share it."""
    cache = {
      'JAX_COMPILATION_CACHE_DIR': str(home),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self.environment = {**os.environ, **cache, 'JAX_PLATFORMS': 'cpu'}
    self._forks, self._said = None, tempfile.TemporaryDirectory()

  def preload(self, *modules: str) -> None:
    """Imports what many of the following commands import."""
    self._ask('preload', *modules)

  def start(self, stage: str, *flags, own_session: bool = False) -> Process:
    """A command that runs; standard output and error can be read from it when it has ended."""
    return Process(self._ask, Path(self._said.name), stage, *flags, own_session=own_session)

  def _ask(self, *question):
    if self._forks is None:
      pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
      self._forks = subprocess.Popen(
        [sys.executable, '-c', FORKS], cwd=ROOT, env=self.environment, text=True, **pipes
      )
    self._forks.stdin.write(json.dumps(question) + '\n')
    self._forks.stdin.flush()
    return json.loads(self._forks.stdout.readline())

  def succeed(self, stage: str, *flags) -> subprocess.CompletedProcess:
    done = self.run(stage, *flags)
    assert done.returncode == 0, done.stderr
    return done

  def run(self, stage: str, *flags) -> subprocess.CompletedProcess:
    """A command that has ended; 500 s are the most that it may take."""
    process = self.start(stage, *flags)
    said = process.communicate()
    return subprocess.CompletedProcess(flags, process.returncode, *said)

  def run_python(self, *options: str, **environment) -> subprocess.CompletedProcess:
    """Python, as it starts by itself, that has ended."""
    command, own = [sys.executable, *options], {**self.environment, **environment}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)

  def close(self) -> None:
    if self._forks is not None:
      self._forks.stdin.close()
      self._forks.wait(10)
      self._forks.stdout.close()
    self._said.cleanup()


@pytest.fixture(scope='session')
def shared(tmp_path_factory):
  """A folder that all workers share."""
  own = tmp_path_factory.getbasetemp()
  home = (own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own) / 'shared'
  home.mkdir(exist_ok=True)
  return home


@contextlib.contextmanager
def made_once(path: Path):
  """Whether `path` is still to be made, by this worker; others wait until the context is left."""
  with path.with_name(f'{path.name}.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield not path.exists()


@pytest.fixture(scope='session')
def commands(shared):
  commands = Commands(shared / 'compiled')
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
def folder(shared):
  """The tiny folder of images; not to be changed."""
  root = shared / 'lesions'
  with made_once(root) as missing:
    if missing:
      draw_folder(shared / 'drawn')
      (shared / 'drawn').rename(root)
  return root


@pytest.fixture
def own_folder(folder, tmp_path):
  """A copy of it to spoil."""
  return Path(shutil.copytree(folder, tmp_path / 'lesions'))


@pytest.fixture(scope='session')
def config_file(folder, shared):
  """A config of a few steps of everything on the tiny folder."""
  path = shared / 'tiny.py'
  with made_once(path) as missing:
    if missing:
      path.write_text(CONFIG.format(root=str(folder), prepared=str(shared / 'data')))
  return path


# Runs of a grid, each with the one that it starts from.
STARTS = {
  'pretrain/uniform/seed0': '',
  'pretrain/ahm/seed0': '',
  'segment/scratch/labels6/seed0': '',
  'segment/ahm/labels6/seed0': 'pretrain/ahm/seed0',
  'classify/ahm/labels6/seed0': 'segment/ahm/labels6/seed0',
}


class Study:
  """Runs by the config of a few steps, each evaluated, in the directories of a grid.

  The first that asks for one trains it, for the tests of all workers, which leave it as it is.
  """

  def __init__(self, commands: Commands, config_file: Path, home: Path):
    self._commands, self._config, self._home = commands, f'--config={config_file}', home

  def run(self, name: str) -> SimpleNamespace:
    """The directory of a run, what its command printed, and what its evaluation printed."""
    stage, method = name.split('/')[:2]
    workdir, flags = self._home / 'grid' / name, []
    if stage == 'pretrain':
      flags = [f'--config.masking.strategy={method}']
    elif start := STARTS[name]:
      flags = [f'--config.init_from={self.run(start).workdir}']
    trained, evaluated = self._once(
      name, [(stage, f'--workdir={workdir}', *flags), ('evaluate', f'--workdir={workdir}')]
    )
    return SimpleNamespace(workdir=workdir, trained=trained, evaluated=evaluated)

  def grid(self) -> SimpleNamespace:
    """The directory of a grid, which makes what is missing of its runs, and what it printed."""
    for name in STARTS:
      self.run(name)
    workdir = self._home / 'grid'
    (done,) = self._once('reproduce', [('reproduce', f'--workdir={workdir}')])
    return SimpleNamespace(workdir=workdir, done=done)

  def _once(self, name: str, commands: list) -> list[SimpleNamespace]:
    said = self._home / f'{name.replace("/", "_")}.json'
    with made_once(said) as missing:
      if missing:
        done = [self._commands.succeed(stage, self._config, *flags) for stage, *flags in commands]
        said.write_text(json.dumps([(each.stdout, each.stderr) for each in done]))
    return [SimpleNamespace(stdout=out, stderr=err) for out, err in json.loads(said.read_text())]


@pytest.fixture(scope='session')
def study(commands, config_file, shared):
  (shared / 'study').mkdir(exist_ok=True)
  return Study(commands, config_file, shared / 'study')
