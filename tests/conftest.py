import contextlib
import gc
import os
import runpy
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import jaxlib
import pytest

from ahm_jax.runtime import compilation, parallel

# Most of a test's time goes into compiling, here and in the processes that it starts. XLA ends a
# process at a flag that it does not know.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = 'true'
FAST = '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
FLAGS = os.environ.get('XLA_FLAGS', '')
if FAST not in FLAGS and jaxlib.__version__.startswith('0.10.'):
  os.environ['XLA_FLAGS'] = f'{FAST} {FLAGS}'

# What is written durably, which tests do all the time, waits for a disk; memory does not.
MEMORY, ROOM = Path('/dev/shm'), 4 * 2**30  # Bytes.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
  os.environ.setdefault('PYTEST_DEBUG_TEMPROOT', str(MEMORY))

jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_num_cpu_devices', 4)

# Where tests compile networks, start commands that do, or take long; the longest first, so that no
# worker is left with one at the end.
COMPILES = (
  'launch/test_grid.py',
  'training/',
  'launch/',
  'masking/',
  'models/',
  'sam/',
  'predict/',
  'api/',
  'export/',
  'weights/',
  'benchmark/',
  'runtime/test_processes.py',
  'runtime/test_flops.py',
  'runs/test_trained.py',
  'selection/test_features.py',
  'report/test_viewer_browser.py',
  'data/test_augment.py',
  'data/test_fuzz.py',
  'data/test_prepare.py',
)
# What is quick in these folders.
QUICK = (
  'training/test_optimizers.py',
  'launch/test_cluster_files.py',
  'predict/test_views.py',
  'api/test_arrays.py',
  'api/test_inputs.py',
  'api/test_configs.py',
  'api/test_public.py',
  'weights/test_files.py',
  'weights/test_layouts.py',
  'weights/test_names.py',
  'benchmark/test_timing.py',
)
# The longest of the others, which come first among them.
LONG = (
  'runs/test_checkpoints.py',
  'data/sets/test_folder.py',
  'runtime/test_signals.py',
  'launch/test_cluster_files.py',
)


assert all((Path(__file__).parent / place).exists() for place in (*COMPILES, *QUICK, *LONG))


def pytest_configure(config):
  """Programs are kept for other tests and for the next time; --cache-clear removes them.

  Not those of commands, see tests/launch/conftest.py: JAX prints a warning, again and again, where
  one was killed while it wrote a program, and tests look at what commands print.
  """
  if not hasattr(config, 'cache'):  # By -p no:cacheprovider.
    return
  with contextlib.suppress(OSError):  # Of a checkout that cannot be written to.
    programs = config.cache.mkdir('programs') / compilation._processor()
    jax.config.update('jax_compilation_cache_dir', str(programs))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def place_of(path):
  return path.relative_to(Path(__file__).parent).as_posix()


def rank(path):
  """The place in COMPILES of what a test's file begins with, or how long that is."""
  place = place_of(path)
  found = (number for number, start in enumerate(COMPILES) if place.startswith(start))
  return len(COMPILES) if place in QUICK else next(found, len(COMPILES))


def pytest_ignore_collect(collection_path, config):
  """Files of tests that would all be left out are not even imported, which takes seconds."""
  is_tests = collection_path.match('test_*.py')
  left_out = config.option.markexpr == 'not compiles'
  return True if is_tests and left_out and rank(collection_path) < len(COMPILES) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks tests as `compiles` by where they are, slow ones too, and puts them in order."""
  items.sort(key=lambda item: (rank(item.path), place_of(item.path) not in LONG))
  for item in items:
    if rank(item.path) < len(COMPILES) or item.get_closest_marker('slow'):
      item.add_marker('compiles')


def pytest_collection_finish():
  """The collector of garbage need not look at modules and tests, and all of JAX, again and again:
  that is a tenth of the time.
  """
  gc.freeze()
  gc.set_threshold(200_000, 20, 100)


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
  if maps.exists() and maps.read_bytes().count(b'\n') > 20_000:
    jax.clear_caches()


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
