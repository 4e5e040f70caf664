"""Two processes with two host devices each train the toy of test_loop.py. Run as a script, this file is one of them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import flags

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / 'training'))

import test_loop as toy  # noqa: E402

from ahm_jax import processes  # noqa: E402
from ahm_jax.checkpoint import FOLDER, latest_step  # noqa: E402
from ahm_jax.config import DataConfig  # noqa: E402
from ahm_jax.data.source import Source, source  # noqa: E402
from ahm_jax.errors import UserError  # noqa: E402
from ahm_jax.training.loop import fit  # noqa: E402
from ahm_jax.writer import FILE  # noqa: E402
from launch import app  # noqa: E402

HEARTBEAT = 8  # Seconds, to test in less than those of a real run.


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
  item = Watched(*vars(source(toy.toy_split(), DataConfig(resident_share=flags.FLAGS.share), np.arange(25), 8, 0)).values())
  vars(item)['rows'] = workdir / f'rows{index}.json'
  if flags.FLAGS.fails == index:
    raise RuntimeError('a fault in one process')
  scores = None if index == 0 else dict.fromkeys(range(toy.STEPS + 1), -index)  # Only those of process 0 are to count.
  state = fit(toy.scored(scores), item, toy.RECIPE, workdir, 0, toy.STEPS)
  np.savez(workdir / f'process{index}.npz', **state.params)


def start(workdir, *options):
  """Both processes, at work on `workdir`."""
  workdir.mkdir(exist_ok=True)
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, __file__, '--config=configs/smoke.py', f'--workdir={workdir}', *options]
  together = [*command, f'--coordinator=127.0.0.1:{port}', '--processes=2']
  pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': 'false', 'PYTHONPATH': str(HERE.parent)}
  return [
    subprocess.Popen([*together, f'--process={index}'], cwd=HERE.parent, env=environment, **pipes) for index in range(2)
  ]


def finish(pair):
  """(exit code, standard output, standard error) of each."""
  try:
    said = [process.communicate(timeout=60) for process in pair]
  finally:
    for process in pair:
      process.kill()
  return [(process.returncode, *texts) for process, texts in zip(pair, said, strict=True)]


def interrupt(pair, workdir, index, number):
  """Sends one process a signal after a checkpoint; both as `finish` returns them, and the seconds until the other ended."""
  deadline = time.monotonic() + 60
  while latest_step(workdir) < 5:
    assert time.monotonic() < deadline and pair[index].poll() is None, finish(pair)
    time.sleep(0.05)
  pair[index].send_signal(number)
  since = time.monotonic()
  pair[1 - index].wait(60)
  return finish(pair), time.monotonic() - since


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """State and metrics of one process and one device."""
  workdir = tmp_path_factory.mktemp('alone')
  return toy.run(workdir).params, toy.lines(workdir)


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
  assert [json.loads((tmp_path / f'rows{index}.json').read_text()) for index in range(2)] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
  written = {'process0.npz', 'process1.npz', 'rows0.json', 'rows1.json', FOLDER, FILE}
  assert {path.name for path in tmp_path.iterdir()} == written
  four = tmp_path / 'four'
  assert_equals(toy.run(four, devices=4).params, four, alone)


@pytest.mark.parametrize(('victim', 'devices'), [(1, 1), (0, 2)])
def test_a_lost_process_ends_the_other_and_the_run_goes_on(tmp_path, alone, victim, devices):
  ended, seconds = interrupt(start(tmp_path, '--share=0', '--pause=0.2'), tmp_path, victim, signal.SIGKILL)
  code, _, err = ended[1 - victim]
  assert code == processes.LOST
  assert seconds < 2 * HEARTBEAT
  name = '' if victim else 'process 1: '
  assert err.splitlines()[-1].startswith(f'{name}another process was lost, so this one ends; the last checkpoint is that of step')
  assert 'Traceback' not in err
  assert 5 <= latest_step(tmp_path) < toy.STEPS
  assert_equals(toy.run(tmp_path, devices=devices).params, tmp_path, alone)


def test_a_run_of_one_process_goes_on_in_two(tmp_path, alone):
  with pytest.raises(toy.Interruption):
    toy.run(tmp_path, at=12)
  first, second = finish(start(tmp_path, '--share=0'))
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert_equals(np.load(tmp_path / 'process1.npz'), tmp_path, alone)


def test_a_fault_of_one_process_ends_both(tmp_path):
  pair = start(tmp_path, '--fails=1')
  first, second = finish(pair)
  assert second[0] == 1 and 'process 1: RuntimeError: a fault in one process\n' in second[2]
  assert first[0] == processes.LOST


@pytest.mark.parametrize('devices', [1, 2])
def test_a_run_of_four_devices_goes_on_on_fewer(tmp_path, alone, devices):
  with pytest.raises(toy.Interruption):
    toy.run(tmp_path, devices=4, at=12)
  assert_equals(toy.run(tmp_path, devices=devices).params, tmp_path, alone)


if __name__ == '__main__':
  flags.DEFINE_float('share', 1.0, 'As config.data.resident_share.')
  flags.DEFINE_float('pause', 0.0, 'Seconds before every step.')
  flags.DEFINE_integer('fails', None, 'Which process is to fail.')
  jax.config.update('jax_num_cpu_devices', 2)
  processes.HEARTBEAT = processes.LEAVING = HEARTBEAT
  app.run(stage, several=True)
