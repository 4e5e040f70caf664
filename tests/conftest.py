import os
import runpy
import signal
from pathlib import Path
from types import SimpleNamespace

os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = (
  'true'  # Also in processes that tests start: most of their time is compiling.
)

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 4)

from ahm_jax.runtime import parallel  # noqa: E402


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Runs train on one of the four host devices, as on a user's CPU.

  Tests of several devices name them.
  """
  monkeypatch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))


@pytest.fixture(scope='session', autouse=True)
def ctrl_c_is_heard():
  """Commands inherit it when this process ignores Ctrl-C, as one that a script started in the
  background does.
  """
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """Each compiled program keeps memory mapped, and Linux ends a process of more than 65,530 maps
  (`vm.max_map_count`).
  """
  yield
  maps = Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > 8_000:
    jax.clear_caches()


@pytest.fixture(scope='module')
def run_fast():
  """For modules whose time goes into running, not into compiling: `pytestmark =
  pytest.mark.usefixtures('run_fast')`.
  """
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture(scope='module')
def one_torch_thread():
  """For networks so small that threads which wait for each other cost more than they save."""
  torch = pytest.importorskip('torch')
  before = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(before)


@pytest.fixture(scope='session')
def torch_networks():
  """What tests/torch_networks.py defines.

  Tests that ask for it are skipped where PyTorch is not installed.
  """
  pytest.importorskip('torch')
  return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name('torch_networks.py'))))
