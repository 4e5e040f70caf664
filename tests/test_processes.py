"""Two processes with two host devices each train the toy of test_loop.py. Run as a script, this file is one of them."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from absl import flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tests' / 'training'))

import test_loop as toy  # noqa: E402

from ahm_jax import processes  # noqa: E402
from ahm_jax.checkpoint import FOLDER, latest_step  # noqa: E402
from ahm_jax.config import DataConfig  # noqa: E402
from ahm_jax.data.source import Source, source  # noqa: E402
from ahm_jax.training.loop import fit  # noqa: E402
from ahm_jax.writer import FILE  # noqa: E402
from launch import app  # noqa: E402

HEARTBEAT = 8  # Seconds, to test in less than those of a real run.
RECIPE = dataclasses.replace(toy.RECIPE, patience=2)
RISING = toy.scored({5: 0.1, 10: 0.2, 15: 0.3, 20: 0.4})
FALLING = toy.scored({5: 0.4, 10: 0.3, 15: 0.2, 20: 0.1})  # By these alone, a run stops at step 15.


class Watched(Source):
  """Takes its time, and notes which rows of the first batch it gave."""

  def inputs(self, start, stop):
    for step, inputs in enumerate(super().inputs(start, stop), start):
      if step == start:
        self.rows.write_text(json.dumps(inputs.positions.tolist()))
      time.sleep(flags.FLAGS.pause)
      yield inputs


def stage(_, workdir):
  index = jax.process_index()
  print(f'process {index} speaks')
  if flags.FLAGS.fails == index:
    raise RuntimeError('a fault in one process')
  item = Watched(*vars(source(toy.toy_split(), DataConfig(resident_share=flags.FLAGS.share), np.arange(25), 8, 0)).values())
  vars(item)['rows'] = workdir / f'rows{index}.json'
  state = fit(FALLING if index else RISING, item, RECIPE, workdir, 0, toy.STEPS)
  np.savez(workdir / f'process{index}.npz', **state.params)


def start(workdir, *options):
  """Both processes, at work on `workdir`."""
  workdir.mkdir(exist_ok=True)
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, __file__, '--config=configs/smoke.py', f'--workdir={workdir}', *options]
  together = [*command, f'--coordinator=127.0.0.1:{port}', '--processes=2']
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': 'false', 'PYTHONPATH': str(ROOT)}
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True, 'cwd': ROOT, 'env': environment}
  return [subprocess.Popen([*together, f'--process={index}'], **pipes) for index in range(2)]


def finish(pair):
  """(exit code, standard output, standard error) of each."""
  try:
    said = [process.communicate(timeout=100) for process in pair]
  finally:
    for process in pair:
      process.kill()
  return [(process.returncode, *texts) for process, texts in zip(pair, said, strict=True)]


def break_off(workdir, victims, number):
  """Starts both, sends some a signal after a checkpoint, and says as `finish` how both ended, and how many seconds it took."""
  pair = start(workdir, '--share=0', '--pause=0.3')
  deadline = time.monotonic() + 100
  while latest_step(workdir) < 5 and time.monotonic() < deadline and pair[0].poll() is None:
    time.sleep(0.05)
  for victim in victims:
    pair[victim].send_signal(number)
  since = time.monotonic()
  return finish(pair), time.monotonic() - since


@pytest.fixture(scope='module')
def broken_off(tmp_path_factory):
  """Pairs of processes that end early, all at once, since they wait most of the time."""
  home = tmp_path_factory.mktemp('broken')
  with ThreadPoolExecutor() as pool:
    found = {
      'lost 0': pool.submit(break_off, home / 'lost 0', [0], signal.SIGKILL),
      'lost 1': pool.submit(break_off, home / 'lost 1', [1], signal.SIGKILL),
      'ctrl-c': pool.submit(break_off, home / 'ctrl-c', [0, 1], signal.SIGINT),
      'fault': pool.submit(lambda: finish(start(home / 'fault', '--fails=1'))),
    }
  return home, {name: future.result() for name, future in found.items()}


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Parameters and metrics of one process and one device."""
  workdir = tmp_path_factory.mktemp('alone')
  return train(workdir).params, toy.lines(workdir)


def train(workdir, **options):
  return toy.run(workdir, RISING, RECIPE, **options)


def assert_equals(params, workdir, alone):
  for name in alone[0]:
    np.testing.assert_allclose(params[name], alone[0][name], rtol=0, atol=1e-6)
  lines = toy.lines(workdir)
  assert [line.keys() for line in lines] == [line.keys() for line in alone[1]]
  for line, other in zip(lines, alone[1], strict=True):
    np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-6)


def test_two_processes_equal_one_and_process_0_speaks(tmp_path, alone):
  first, second = finish(start(tmp_path))
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert first[1] == 'process 0 speaks\n' and 'toy: 100%' in first[2]
  assert second[1:] == ('', '')
  for index in range(2):
    assert_equals(np.load(tmp_path / f'process{index}.npz'), tmp_path, alone)
  assert [json.loads((tmp_path / f'rows{index}.json').read_text()) for index in range(2)] == [
    [[0, 1], [2, 3]],
    [[4, 5], [6, 7]],
  ]
  written = {'process0.npz', 'process1.npz', 'rows0.json', 'rows1.json', FOLDER, FILE}
  assert {path.name for path in tmp_path.iterdir()} == written
  assert_equals(train(tmp_path / 'four', devices=4).params, tmp_path / 'four', alone)


@pytest.mark.parametrize(('victim', 'devices'), [(1, 1), (0, 2)])
def test_a_lost_process_ends_the_other_and_the_run_goes_on_on_what_is_left(broken_off, alone, victim, devices):
  home, results = broken_off
  workdir = home / f'lost {victim}'
  ended, seconds = results[workdir.name]
  code, _, err = ended[1 - victim]
  assert ended[victim][0] == -signal.SIGKILL, ended
  assert code == processes.LOST, err
  assert seconds < 2 * HEARTBEAT
  name = '' if victim else 'process 1: '
  step = latest_step(workdir)
  assert err.splitlines()[-1].startswith(
    f'{name}another process was lost, so this one ends; the last checkpoint is that of step {step}; the same command goes on'
  )
  assert 'Traceback' not in err
  assert 5 <= step < toy.STEPS
  assert_equals(train(workdir, devices=devices).params, workdir, alone)


def test_ctrl_c_ends_both_at_once_and_the_run_goes_on_in_two(broken_off, alone):
  home, results = broken_off
  (first, second), seconds = results['ctrl-c']
  assert first[0] == second[0] == processes.INTERRUPTED, first[2] + second[2]
  assert seconds < HEARTBEAT / 2
  assert first[2].endswith('\ninterrupted; the same command goes on where it was\n')
  assert second[2] == '\nprocess 1: interrupted; the same command goes on where it was\n'
  workdir = home / 'ctrl-c'
  assert latest_step(workdir) < toy.STEPS
  first, second = finish(start(workdir, '--share=0'))
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert_equals(np.load(workdir / 'process1.npz'), workdir, alone)


def test_a_fault_of_one_process_ends_both(broken_off):
  first, second = broken_off[1]['fault']
  assert second[0] == 1 and 'process 1: RuntimeError: a fault in one process\n' in second[2]
  assert first[0] == processes.LOST


@pytest.mark.parametrize('devices', [1, 2])
def test_a_run_of_four_devices_goes_on_on_fewer(tmp_path, alone, devices):
  with pytest.raises(toy.Interruption):
    train(tmp_path, devices=4, at=12)
  assert_equals(train(tmp_path, devices=devices).params, tmp_path, alone)


def test_lines_name_the_process(capsys):
  stream = processes._Named(sys.stdout, 'process 3: ')
  print('one\n\ntwo', file=stream)
  print('thr', 'ee', sep='', file=stream, flush=True)
  assert capsys.readouterr().out == 'process 3: one\n\nprocess 3: two\nprocess 3: three\n'


if __name__ == '__main__':
  flags.DEFINE_float('share', 1.0, 'As config.data.resident_share.')
  flags.DEFINE_float('pause', 0.0, 'Seconds before every step.')
  flags.DEFINE_integer('fails', None, 'Which process is to fail.')
  jax.config.update('jax_num_cpu_devices', 2)
  processes.HEARTBEAT = processes.LEAVING = HEARTBEAT
  app.run(stage, several=True)
