"""Compiled programs are kept between processes, so that a command that ran before starts in seconds."""

import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib

SHORTEST = 0.5  # Seconds: what compiles faster is not kept.


def keep_programs() -> None:
  """Lets JAX keep what it compiles below ~/.cache/ahm_jax (or $XDG_CACHE_HOME), in a folder for this kind of processor.

  To be called before the first compilation. JAX_COMPILATION_CACHE_DIR, where it is set, says another place, and
  JAX_ENABLE_COMPILATION_CACHE=false that nothing is kept; so does a home that cannot be written to.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  home = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
  folder = home / 'ahm_jax' / f'jaxlib-{jaxlib.__version__}-{_processor()}'
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', SHORTEST)


def _processor() -> str:
  """What tells processors apart that cannot run each other's programs, though they may share a home directory."""
  try:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  except OSError:
    features = platform.processor()
  return hashlib.sha256((platform.machine() + features).encode()).hexdigest()[:12]
