import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from ahm_jax.runtime import compilation


@pytest.fixture(autouse=True)
def restored_config():
  names = (
    'jax_platforms',
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_kept_below_the_users_cache(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  compilation.keep_programs()
  folder = tmp_path / 'ahm_jax'
  assert jax.config.jax_compilation_cache_dir.startswith(str(folder / 'jaxlib-'))
  assert len(list(folder.iterdir())) == 1


def test_without_xdg_they_are_below_the_home(monkeypatch, tmp_path):
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / '.cache' / 'ahm_jax'))


def test_another_place_is_left_alone(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', '/elsewhere')
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir == '/elsewhere'
  assert not list(tmp_path.iterdir())


def test_without_room_nothing_is_kept(monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  compilation.keep_programs()
  assert jax.config.jax_compilation_cache_dir is None


def test_processors_are_told_apart(monkeypatch):
  here = compilation._processor()
  assert here == compilation._processor() and len(here) == 12
  monkeypatch.setattr(compilation.platform, 'machine', lambda: 'other')
  assert compilation._processor() != here


@pytest.fixture
def a_gpu(monkeypatch):
  """A machine with an NVIDIA driver and JAX's CUDA plugin, on which the user has set no flag."""
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  jax.config.update('jax_platforms', None)
  monkeypatch.setattr(
    compilation.shutil,
    'which',
    lambda name: '/usr/bin/nvidia-smi' if name == 'nvidia-smi' else None,
  )
  plugins = [SimpleNamespace(name='xla_cuda12')]
  monkeypatch.setattr(
    compilation.importlib.metadata,
    'entry_points',
    lambda group: plugins if group == 'jax_plugins' else [],
  )
  return plugins


@pytest.mark.usefixtures('a_gpu')
def test_flags_are_set_on_a_gpu_and_once():
  for _ in range(2):
    compilation.set_gpu_flags()
    assert os.environ['XLA_FLAGS'].split() == list(compilation.GPU_FLAGS)


@pytest.mark.usefixtures('a_gpu')
@pytest.mark.parametrize('platforms', ['cuda', 'gpu', 'cuda,cpu'])
def test_flags_are_set_where_a_gpu_is_asked_for(platforms):
  jax.config.update('jax_platforms', platforms)
  compilation.set_gpu_flags()
  assert os.environ['XLA_FLAGS']


@pytest.mark.parametrize('lack', ['platform', 'driver', 'plugin', 'version'])
def test_without_a_gpu_or_a_known_jaxlib_no_flag_is_set(a_gpu, lack, monkeypatch):
  if lack == 'platform':
    jax.config.update('jax_platforms', 'cpu')
  elif lack == 'driver':
    monkeypatch.setattr(compilation.shutil, 'which', lambda _: None)
    monkeypatch.setattr(compilation, '_DRIVER', Path('/nowhere'))
  elif lack == 'plugin':
    a_gpu.clear()
  else:
    monkeypatch.setattr(compilation.jaxlib, '__version__', '0.13.1')
  compilation.set_gpu_flags()
  assert 'XLA_FLAGS' not in os.environ


def test_what_the_user_set_stays():
  (flag,) = compilation.GPU_FLAGS
  name = flag.split('=')[0]
  assert compilation.with_gpu_flags('') == flag
  assert (
    compilation.with_gpu_flags('--xla_dump_to=x  --other=1') == f'--xla_dump_to=x --other=1 {flag}'
  )
  assert compilation.with_gpu_flags(f'{name}=false') == f'{name}=false'
  assert compilation.with_gpu_flags('flags.txt') == 'flags.txt'


def test_xla_knows_the_flags():
  """A program of its own, on CPU: XLA reads all flags there too, and ends the process at one
  that it does not know.
  """
  flags = compilation.with_gpu_flags('')
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
  command = [sys.executable, '-c', 'import jax; print(jax.numpy.ones(3).sum())']
  assert (
    subprocess.run(
      command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    == '3.0'
  )
  unknown = subprocess.run(
    command, env=environment | {'XLA_FLAGS': flags + '_'}, capture_output=True, text=True
  )
  assert unknown.returncode and re.search('XLA_FLAGS|invalid', unknown.stderr)
