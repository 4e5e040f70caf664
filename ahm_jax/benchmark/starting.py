"""How long it takes from the command line to the first training step, with nothing compiled yet
and with everything kept.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ahm_jax.benchmark.timing import figure
from ahm_jax.benchmark.workloads import Bench, Result
from ahm_jax.runs import metrics_log

CONFIG = 'smoke'
WARM_STARTS = 3
_LIMIT = 600.0  # Seconds.


def start(bench: Bench) -> Result:
  """`launch.pretrain` on the phantoms of configs/smoke.py, prepared before, in seconds.

  Each start is a process of its own.
  """
  del bench
  with tempfile.TemporaryDirectory() as folder:
    scratch = Path(folder)
    _first_step(scratch, 'prepare', 'prepared')
    cold = _first_step(scratch, 'cold', 'kept')
    warm = [_first_step(scratch, f'warm{i}', 'kept') for i in range(WARM_STARTS)]
  return Result([figure('start', 'cold', 's', [cold]), figure('start', 'warm', 's', warm)], {})


def _first_step(scratch: Path, name: str, cache: str) -> float:
  """Seconds until the first line of metrics.jsonl, which is written when the first step is done."""
  workdir = scratch / name
  command = [sys.executable, '-m', 'ahm_jax.api.command', 'pretrain', f'--config={CONFIG}']
  command += [f'--workdir={workdir}']
  command += [f'--config.data.prepared_dir={scratch / "data"}', '--config.pretrain.log_every=1']
  environment = os.environ | {'JAX_COMPILATION_CACHE_DIR': str(scratch / cache)}
  started = time.perf_counter()
  with subprocess.Popen(
    command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
  ) as process:
    metrics = workdir / metrics_log.FILE
    while not (metrics.exists() and metrics.stat().st_size):
      if process.poll() is not None or time.perf_counter() - started > _LIMIT:
        process.kill()
        _, said = process.communicate()
        raise RuntimeError(f'{" ".join(command)} did not get to its first step: {said[-2000:]}')
      time.sleep(0.02)
    seconds = time.perf_counter() - started
    process.kill()
  return seconds
