"""How JAX compiles: where programs are kept, so that a command that ran before starts in
seconds, and XLA's flags on GPUs.
"""

import hashlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import jax
import jaxlib

from ahm_jax.config import paths

SHORTEST = 0.5  # Seconds: what compiles faster is not kept.

GPU_FLAGS = (
  # All-reduces run beside the backward pass. False where nobody sets it.
  '--xla_gpu_enable_latency_hiding_scheduler=true',
)
# The jaxlib versions, from and below, that GPU_FLAGS are known to suit: a flag that XLA does not
# know ends the process.
GPU_FLAGS_SUIT = (0, 10), (0, 13)

_OPTIONS: Any = jax.config  # Whose type does not name the options.
_DRIVER = Path('/proc/driver/nvidia/version')  # There where the NVIDIA driver is loaded.


def keep_programs() -> None:
  """Lets JAX keep what it compiles below ~/.cache/ahm_jax (or $XDG_CACHE_HOME), in a folder for
  this kind of processor.

  To be called before the first compilation. JAX_COMPILATION_CACHE_DIR, where it is set, says
  another place, and JAX_ENABLE_COMPILATION_CACHE=false that nothing is kept; so does a home that
  is not there or cannot be written to.
  """
  if _OPTIONS.jax_compilation_cache_dir is not None:
    return
  try:
    home = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    if paths.local(str(home)):
      return
    folder = home / 'ahm_jax' / f'jaxlib-{jaxlib.__version__}-{_processor()}'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # A user whom the system does not know has no home.
    return
  if os.access(folder, os.W_OK):
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', SHORTEST)


def set_gpu_flags() -> None:
  """Adds GPU_FLAGS to XLA_FLAGS where JAX is to use an NVIDIA GPU.

  To be called before it computes anything.
  """
  version = tuple(int(part) for part in jaxlib.__version__.split('.')[:2])
  if GPU_FLAGS_SUIT[0] <= version < GPU_FLAGS_SUIT[1] and _uses_gpu(_OPTIONS.jax_platforms):
    os.environ['XLA_FLAGS'] = with_gpu_flags(os.environ.get('XLA_FLAGS', ''))


def with_gpu_flags(flags: str) -> str:
  """A value of XLA_FLAGS with those of GPU_FLAGS added that it does not set itself.

  The name of a file stays as it is.
  """
  if flags.strip() and not flags.strip().startswith('-'):
    return flags
  own = {flag.split('=')[0] for flag in flags.split()}
  return ' '.join([*flags.split(), *(flag for flag in GPU_FLAGS if flag.split('=')[0] not in own)])


def _uses_gpu(platforms: str | None) -> bool:
  """Whether JAX finds an NVIDIA driver and its own CUDA plugin, and JAX_PLATFORMS, or None, lets
  it use them.
  """
  if platforms and not {'cuda', 'gpu'} & set(platforms.split(',')):
    return False
  driver = _DRIVER.exists() or shutil.which('nvidia-smi') is not None
  return driver and any(
    'cuda' in plugin.name for plugin in importlib.metadata.entry_points(group='jax_plugins')
  )


def _processor() -> str:
  """What tells processors apart that cannot run each other's programs, though they may share a
  home directory.
  """
  try:
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  except OSError:
    features = platform.processor()
  return hashlib.sha256((platform.machine() + features).encode()).hexdigest()[:12]
