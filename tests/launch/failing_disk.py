"""A segmentation on a disk that fails: taken up again after each error, until there were enough.

failing_disk.py HOME CONFIG COUNT, with failing_disk.c preloaded for what lies in HOME/run*.
HOME/whole is the run that met no error. The last line tells which calls failed, how many of them
ended the run, and how many runs there were.
"""

import collections
import ctypes
import errno
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np

from ahm_jax.config import from_config_dict
from ahm_jax.errors import UserError, full_disk
from ahm_jax.pipeline import stages
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_reading
from ahm_jax.runs.checkpoint_files import FOLDER

STEPS = 40
ERRORS = (errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENOSPC, errno.ENOMEM)
START, RUN = 120, 2000  # So many calls a run makes at most until it trains, and altogether.


def foreseen(error, number):
  """Whether a command would tell the user in one line."""
  refused = isinstance(error, OSError) and error.errno == number
  return isinstance(error, UserError) or refused or full_disk(error) is not None


def result(workdir):
  """Of the state that a run ends with, its last one, and its log."""
  last = files.arrays(workdir / FOLDER / str(STEPS))
  best = checkpoint_reading.load_variables(workdir, best=True)
  return files.digest(best), files.digest(last), (workdir / 'metrics.jsonl').read_text()


def main():
  home, config_file, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
  config = runpy.run_path(config_file)['get_config']()
  config.segment.update({'eval_every': 2, 'log_every': 3, 'steps': STEPS})
  config = from_config_dict(config)
  disk = ctypes.CDLL(None)
  disk.what_failed.restype = ctypes.c_char_p
  stages.segment(config, home / 'whole')
  whole = result(home / 'whole')

  rng, failed, ended, runs = np.random.default_rng(0), collections.Counter(), 0, 0
  while failed.total() < count:
    workdir, over = home / f'run{runs}', False
    while not over:
      number, calls = int(rng.choice(ERRORS)), rng.choice([START, RUN])
      before = checkpoint_reading.latest_step(workdir)
      disk.fail_at(int(rng.integers(calls)), number)
      try:
        stages.segment(config, workdir)
        over = True
      except Exception as error:
        if not foreseen(error, number):
          raise
        print(error, file=sys.stderr)
      call = disk.what_failed().decode()
      disk.fail_at(-1, 0)
      failed.update(call.split()[:1])
      ended += not over
      assert checkpoint_reading.latest_step(workdir) >= before, call
      assert not (workdir / 'damaged').exists(), call
    found = result(workdir)
    assert found == whole, f'{found}\n{whole}'
    shutil.rmtree(workdir)
    runs += 1
  print(json.dumps({'failed': failed, 'ended': ended, 'runs': runs}))


if __name__ == '__main__':
  main()
