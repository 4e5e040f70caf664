"""Two processes with two host devices each train the toy of test_loop.py, and what becomes of
one when the other is lost.
"""

import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'runtime'))

import toy_process  # noqa: E402
from toy_process import HEARTBEAT, RECIPE, RISING, toy  # noqa: E402

from ahm_jax.errors import UserError  # noqa: E402
from ahm_jax.runs import snapshots  # noqa: E402
from ahm_jax.runs.checkpoint_files import FOLDER  # noqa: E402
from ahm_jax.runs.checkpoint_reading import latest_step  # noqa: E402
from ahm_jax.runs.metrics_log import FILE  # noqa: E402
from ahm_jax.runtime import exits, joining  # noqa: E402
from ahm_jax.runtime.signals import TRY_AGAIN  # noqa: E402
from ahm_jax.runtime.signals import line as interrupted_line  # noqa: E402

FORKS = multiprocessing.get_context('forkserver')


@pytest.fixture(scope='module', autouse=True)
def forks():
  """Processes come as forks of one that has imported everything."""
  FORKS.set_forkserver_preload(['toy_process'])
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', f'{ROOT / "tests"}:{ROOT}')
    forkserver.ensure_running()


class Pair:
  """Two processes at work on `workdir`."""

  def __init__(self, workdir, *options, devices=(2, 2), slurm=False):
    workdir.mkdir(exist_ok=True)
    self.home = workdir.with_name(workdir.name + '-said')
    self.home.mkdir(exist_ok=True)
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      port = probe.getsockname()[1]
    command = ['toy', f'--config={ROOT}/configs/smoke.py', f'--workdir={workdir}', *options]
    self.processes = []
    for index in range(2):
      if slurm:
        step = {
          'SLURM_JOB_ID': 7,
          'SLURM_STEP_NODELIST': '127.0.0.1',
          'SLURM_NTASKS': 2,
          'SLURM_STEP_NUM_NODES': 1,
        }
        step |= {'SLURM_PROCID': index, 'SLURM_LOCALID': index, 'JAX_COORDINATOR_PORT': port}
        variables, together = (
          {name: str(value) for name, value in step.items()},
          ['--coordinator=auto'],
        )
      else:
        variables, together = (
          {},
          [f'--coordinator=127.0.0.1:{port}', '--processes=2', f'--process={index}'],
        )
      task = ([*command, *together], devices[index], self.home, index, variables)
      self.processes.append(FORKS.Process(target=toy_process.work, args=task))
      self.processes[-1].start()

  def finish(self):
    """(exit code, standard output, standard error) of each."""
    for process in self.processes:
      process.join(100)
      process.kill()
      process.join()
    said = [
      [(self.home / f'{index}.{kind}').read_text() for kind in ('out', 'err')] for index in range(2)
    ]
    return [(process.exitcode, *texts) for process, texts in zip(self.processes, said, strict=True)]


def break_off(workdir, victims, number, devices=(2, 2)):
  """Starts a pair, sends some a signal after a checkpoint, or moves the directory where there is
  none to send, and says how both ended, and how many seconds it took.
  """
  pair = Pair(workdir, '--share=0', '--pause=0.3', devices=devices)
  deadline = time.monotonic() + 100
  while latest_step(workdir) < 5 and time.monotonic() < deadline and pair.processes[0].is_alive():
    time.sleep(0.05)
  since = time.monotonic()
  for victim in victims:
    os.kill(pair.processes[victim].pid, number)
  if number is None:
    workdir.rename(workdir.with_name('elsewhere'))
  if number == signal.SIGSTOP:
    for victim in victims:
      pair.processes[1 - victim].join(100)
      pair.processes[victim].kill()
  return pair.finish(), time.monotonic() - since


STARTING = ('joined', 'devices', 'sent')  # Moments at which a process is lost.


@pytest.fixture(scope='module')
def broken_off(tmp_path_factory):
  """Pairs of processes that end early, all at once, since they wait most of the time."""
  home = tmp_path_factory.mktemp('broken')
  with ThreadPoolExecutor() as pool:
    found = {
      'first': pool.submit(break_off, home / 'first', [0], signal.SIGKILL),
      'second': pool.submit(break_off, home / 'second', [1], signal.SIGKILL, devices=(1, 1)),
      'waiting': pool.submit(break_off, home / 'waiting', [1], signal.SIGSTOP),
      'several': pool.submit(break_off, home / 'several', [1], signal.SIGKILL),
      'ctrl-c': pool.submit(break_off, home / 'ctrl-c', [0, 1], signal.SIGINT),
      'sigterm': pool.submit(break_off, home / 'sigterm', [1], signal.SIGTERM),
      'moved': pool.submit(break_off, home / 'moved', [], None),
      'fault': pool.submit(lambda: Pair(home / 'fault', '--fails=1').finish()),
      **{
        when: pool.submit(lambda when=when: Pair(home / when, f'--lost={when}').finish())
        for when in STARTING
      },
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
  first, second = Pair(tmp_path).finish()
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert first[1] == 'process 0 speaks\n' and 'toy: 100%' in first[2]
  assert second[1:] == ('', '')
  for index in range(2):
    assert_equals(np.load(tmp_path / f'process{index}.npz'), tmp_path, alone)
  assert [json.loads((tmp_path / f'rows{index}.json').read_text()) for index in range(2)] == [
    [[0, 1], [2, 3]],
    [[4, 5], [6, 7]],
  ]
  written = {
    'process0.npz',
    'process1.npz',
    'rows0.json',
    'rows1.json',
    FOLDER,
    FILE,
    snapshots.FOLDER,
  }
  assert {path.name for path in tmp_path.iterdir()} == written
  assert_equals(train(tmp_path / 'four', devices=4).params, tmp_path / 'four', alone)


LOST = (
  'another process was lost, so this one ends; the last checkpoint is that of step {}; '
  'run the same command again'
)


@pytest.mark.parametrize(
  ('name', 'victim', 'why', 'devices'),
  [
    # The coordinator: JAX calls abort().
    ('first', 0, ['Socket closed', 'failed to connect', 'by peer', 'coordination service'], 2),
    ('second', 1, ['by peer'], 1),  # A collective fails: the connection is closed or reset by peer.
    (
      'waiting',
      1,
      ['heartbeats'],
      4,
    ),  # All wait, for nothing is closed, until JAX notices and calls abort().
    (
      'several',
      1,
      ['by peer', 'heartbeats'],
      4,
    ),  # Whichever comes first: all devices fail, or one fails and the other waits.
  ],
)
def test_a_lost_process_ends_the_other_and_the_run_goes_on(
  broken_off, alone, name, victim, why, devices
):
  home, results = broken_off
  ended, took = results[name]
  assert ended[victim][0] == -signal.SIGKILL, ended
  code, _, err = ended[1 - victim]
  assert code == TRY_AGAIN, err
  assert took < 60
  step = latest_step(home / name)
  assert 5 <= step < toy.STEPS
  assert ('process 1: ' * (victim == 0) + LOST.format(step)) in err.splitlines()[-1]
  assert any(sign in err for sign in why), err
  assert_speaks_once(err)
  assert_equals(train(home / name, devices=devices).params, home / name, alone)


def assert_speaks_once(err):
  """Beside the progress of a training, there is one line, and nothing of C++ and Python."""
  lines = [said for said in err.splitlines() if said.strip() and 'images/s' not in said]
  assert len(lines) == 1 and 'another process was lost' in lines[0], err


@pytest.mark.parametrize('when', STARTING)
def test_a_process_lost_in_start_up_ends_the_other_in_one_line(broken_off, when):
  (code, _, err), second = broken_off[1][when]
  assert (code, second[0]) == (TRY_AGAIN, -signal.SIGKILL), err
  assert err.startswith('another process was lost, so this one ends; there was no checkpoint yet; ')
  assert_speaks_once(err)


LOSSES = [
  jax.errors.JaxRuntimeError('UNKNOWN: Gloo AllGather failed: Connection closed by peer'),
  jax.errors.JaxRuntimeError('INTERNAL: Gloo context initialization failed: timed out'),
  ValueError('[/gloo/transport/tcp/pair.cc:144] no error'),
  RuntimeError("Unable to initialize backend 'cpu': DEADLINE_EXCEEDED: GetKeyValue() timed out"),
  RuntimeError('connectFullMesh failed'),
  OSError(104, 'Connection reset by peer'),
  ConnectionRefusedError(111, 'Connection refused'),
]
FAULTS = [
  RuntimeError('a fault'),
  ValueError('shapes'),
  KeyError('barrier'),
  ValueError('the file is unavailable'),
  RuntimeError('a broken pipe of ours'),
  UserError('the heartbeat of gloo'),
  KeyboardInterrupt('heartbeat'),
]


@pytest.mark.parametrize('error', LOSSES + FAULTS, ids=repr)
def test_errors_of_a_loss_are_told_from_faults_of_the_program(monkeypatch, error):
  outer = RuntimeError('while it trained')
  outer.__cause__ = error
  assert not exits.is_loss(error)  # It has joined nobody.
  monkeypatch.setattr(exits.processes, 'has_others', lambda: True)
  assert exits.is_loss(error) == (error in LOSSES)
  if error in LOSSES:
    assert exits.is_loss(outer) and exits.said_of_loss(outer) == str(error)


@pytest.mark.parametrize('name', ['ctrl-c', 'sigterm'])
def test_a_signal_to_both_or_to_one_stops_both_at_the_same_step(broken_off, alone, name):
  home, results = broken_off
  (first, second), seconds = results[name]
  assert first[0] == second[0] == TRY_AGAIN, first[2] + second[2]
  assert seconds < HEARTBEAT
  said = interrupted_line(f'step {latest_step(home / name)} is saved in {home / name}')
  assert first[2].endswith(f'\n{said}\n')
  assert second[2] == f'\nprocess 1: {said}\n'
  assert 5 < latest_step(home / name) < toy.STEPS
  assert_equals(train(home / name).params, home / name, alone)


def test_two_processes_set_a_damaged_checkpoint_aside(broken_off, tmp_path, alone):
  workdir = tmp_path / 'run'
  shutil.copytree(broken_off[0] / 'sigterm', workdir)
  latest = latest_step(workdir)
  (workdir / FOLDER / str(latest) / 'default' / 'manifest.ocdbt').write_bytes(b'')
  first, second = Pair(workdir, '--share=0').finish()
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert f'the checkpoint of step {latest} is damaged' in first[2] and second[2] == ''
  assert_equals(np.load(workdir / 'process1.npz'), workdir, alone)


def test_a_run_of_one_process_goes_on_in_two_that_slurm_started(tmp_path, alone):
  workdir = tmp_path / 'run'
  with pytest.raises(toy.Interruption):
    train(workdir, at=12)
  first, second = Pair(workdir, '--share=0', slurm=True).finish()
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert_equals(np.load(workdir / 'process1.npz'), workdir, alone)


def test_processes_with_different_numbers_of_devices_are_refused(tmp_path):
  for (code, _, err), name in zip(
    Pair(tmp_path / 'run', devices=(2, 1)).finish(), ('', 'process 1: '), strict=True
  ):
    assert (code, err) == (
      2,
      f'{name}error: the processes have 2, 1 devices; give each the same number '
      '(CUDA_VISIBLE_DEVICES chooses)\n',
    )


def test_a_fault_of_one_process_ends_both(broken_off):
  first, second = broken_off[1]['fault']
  assert second[0] == 1 and 'process 1: RuntimeError: a fault in one process\n' in second[2]
  assert first[0] == TRY_AGAIN


def test_a_directory_that_is_moved_ends_both(broken_off):
  home, results = broken_off
  (first, second), _ = results['moved']
  assert (first[0], second[0]) == (2, 2), first[2] + second[2]
  assert (
    first[2]
    .splitlines()[-1]
    .startswith(
      f'error: {home}/moved was moved to {home}/elsewhere while this command was at work in it; '
    )
  )
  assert second[2] == 'process 1: error: process 0 has stopped; its own line says why\n'
  assert not (home / 'moved').exists() and latest_step(home / 'elsewhere') >= 5


@pytest.mark.parametrize('devices', [1, 2])
def test_a_run_of_four_devices_goes_on_on_fewer(tmp_path, alone, devices):
  with pytest.raises(toy.Interruption):
    train(tmp_path, devices=4, at=12)
  assert_equals(train(tmp_path, devices=devices).params, tmp_path, alone)


def test_lines_name_the_process(capsys):
  stream = joining._Named(sys.stdout, 'process 3: ')
  print('one\n\ntwo', file=stream)
  print('thr', 'ee', sep='', file=stream, flush=True)
  assert capsys.readouterr().out == 'process 3: one\n\nprocess 3: two\nprocess 3: three\n'
