"""One of several processes that train the toy of test_loop.py.

`stage` is what it runs in place of pretrain.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time

import jax
import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'training'))

import test_loop as toy

from ahm_jax.config import DataConfig
from ahm_jax.data.batches import Source, source
from ahm_jax.runtime import joining, processes
from ahm_jax.training.loop import fit
from launch import app

HEARTBEAT = 8  # Seconds, to test in less than those of a real run.
RECIPE = dataclasses.replace(toy.RECIPE, patience=2)
RISING = toy.scored({5: 0.1, 10: 0.2, 15: 0.3, 20: 0.4})
FALLING = toy.scored({5: 0.4, 10: 0.3, 15: 0.2, 20: 0.1})  # By these alone, a run stops at step 15.

flags.DEFINE_float('share', 1.0, 'As config.data.resident_share.')
flags.DEFINE_float('pause', 0.0, 'Seconds before every step.')
flags.DEFINE_integer('fails', None, 'Which process is to fail, at step 7.')
flags.DEFINE_enum('lost', None, ['joined', 'devices', 'sent'], 'When process 1 is killed.')


class Watched(Source):
  """Takes its time, and notes which rows of the first batch it gave."""

  def inputs(self, start, stop):
    for step, inputs in enumerate(super().inputs(start, stop), start):
      if step == start:
        self.rows.write_text(json.dumps(inputs.positions.tolist()))
      if flags.FLAGS.fails == jax.process_index() and step == 7:
        raise RuntimeError('a fault in one process')
      time.sleep(flags.FLAGS.pause)
      yield inputs


def _lose(when):
  if flags.FLAGS.lost == when and jax.process_index():
    os.kill(os.getpid(), signal.SIGKILL)


def _check_devices(check=joining._check_devices):
  _lose('joined')
  check()


def stage(_, workdir):
  index = jax.process_index()
  _lose('devices')
  processes.from_first(True)
  _lose('sent')
  print(f'process {index} speaks')
  item = Watched(
    *vars(
      source(toy.toy_split(), DataConfig(resident_share=flags.FLAGS.share), np.arange(25), 8, 0)
    ).values()
  )
  vars(item)['rows'] = workdir / f'rows{index}.json'
  state = fit(FALLING if index else RISING, item, RECIPE, workdir, 0, toy.STEPS)
  np.savez(workdir / f'process{index}.npz', **state.params)


def work(argv, devices, home, name, variables):
  """Runs the command on so many host devices, its standard output and error in NAME.out and
  NAME.err below `home`.
  """
  os.environ.update(variables)
  for number, kind in ((1, 'out'), (2, 'err')):
    os.dup2(os.open(home / f'{name}.{kind}', os.O_WRONLY | os.O_CREAT), number)
  sys.argv = argv
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', devices)
  jax.config.update('jax_enable_compilation_cache', False)
  joining.HEARTBEAT = joining.LEAVING = HEARTBEAT
  joining._check_devices = _check_devices
  app.run(stage, several=True)
