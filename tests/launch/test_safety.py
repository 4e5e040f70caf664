"""A run that cannot be lost: real signals, real files, real processes."""

import contextlib
import dataclasses
import json
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ahm_jax.config import from_config_dict
from ahm_jax.pipeline.setup import open_run
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs import checkpoint_files as files
from ahm_jax.runs import checkpoint_reading
from ahm_jax.runs.checkpoint_files import FOLDER

ROOT = Path(__file__).parents[2]
LONG = '--config.segment.steps=100000'


@contextlib.contextmanager
def training(commands, workdir, *flags):
  """A run that has taken some steps; killed in the end."""
  process = commands.start('segment', f'--workdir={workdir}', *flags, LONG)
  try:
    wait_for(
      lambda: (workdir / 'metrics.jsonl').exists() and (workdir / 'metrics.jsonl').stat().st_size,
      process,
    )
    yield process
  finally:
    process.kill()
    process.communicate()


def wait_for(condition, process):
  deadline = time.monotonic() + 200
  while not condition():
    assert time.monotonic() < deadline and process.poll() is None, process.communicate()
    time.sleep(0.1)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_one_line_with_its_step_saved_and_none_begins_beside_it(
  commands, config_file, tmp_path, number
):
  """A second process on its workdir is refused before."""
  with training(commands, tmp_path, f'--config={config_file}') as process:
    second = commands.run('segment', f'--workdir={tmp_path}', f'--config={config_file}', LONG)
    assert second.returncode == 2 and process.poll() is None
    assert second.stderr == (
      f'error: process {process.pid} on {socket.gethostname()} is at work in {tmp_path}; wait '
      'until it is done, or choose another --workdir\n'
    )
    process.send_signal(number)
    since = time.monotonic()
    _, err = process.communicate(timeout=60)
  assert process.returncode == 75 and time.monotonic() - since < 30
  said = f'step {checkpoint_reading.latest_step(tmp_path)} is saved in {tmp_path}'
  assert err.endswith(f'\ninterrupted; {said}; run the same command again to resume\n')
  assert 'Traceback' not in err and len(err.splitlines()) <= 4
  last_line = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[-1])
  # It logs every two steps.
  assert last_line['step'] <= checkpoint_reading.latest_step(tmp_path) <= last_line['step'] + 2


SMALL_FILES = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.argv = ['launch/segment.py', *{flags}]
runpy.run_module('launch.segment', run_name='__main__', alter_sys=True)
"""


def test_no_room_for_a_checkpoint_is_said_in_one_line(commands, config_file, tmp_path):
  """Here by a limit on the size of files, which Python tells as it tells a full disk."""
  flags = [f'--config={config_file}', f'--workdir={tmp_path / "run"}']
  script = SMALL_FILES.format(flags=flags)
  # Programs are large, and not to be kept.
  done = commands.run_python('-c', script, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='10000')
  assert done.returncode == 2, done.stderr
  *others, last = done.stderr.splitlines()
  assert last == (
    f'error: file too large in {tmp_path / "run"} (or in the temporary folder); there was no '
    'checkpoint yet; make room and run the same command again; it resumes'
  )
  assert all('images/s' in line or 'the first one compiles' in line for line in others)
  commands.succeed('segment', *flags)


def test_a_full_disk_leaves_the_last_whole_checkpoint_and_the_run_goes_on(
  commands, config_file, tmp_path
):
  disk = tmp_path / 'disk'
  disk.mkdir()
  if subprocess.run(
    ['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', disk], capture_output=True, check=False
  ).returncode:
    pytest.skip('only root may mount a small disk')
  try:
    flags = (
      f'--config={config_file}',
      '--config.segment.eval_every=20',
      '--config.segment.log_every=20',
    )
    with training(commands, disk / 'run', *flags) as process:
      wait_for(lambda: checkpoint_reading.latest_step(disk / 'run'), process)
      with contextlib.suppress(OSError), (disk / 'filler').open('wb', buffering=0) as filler:
        while filler.write(b'0' * 4096):
          pass
      _, err = process.communicate(timeout=100)
    step = checkpoint_reading.latest_step(disk / 'run')
    assert process.returncode == 2, err
    assert (
      f'no space left on device in {disk / "run"} ' in err
      and f'; the last checkpoint is that of step {step}; ' in err
    )
    assert 'Traceback' not in err
    (disk / 'filler').unlink()
    with training(commands, disk / 'run', *flags) as process:
      wait_for(lambda: checkpoint_reading.latest_step(disk / 'run') > step, process)
    steps = [
      json.loads(line)['step']
      for line in (disk / 'run' / 'metrics.jsonl').read_text().splitlines()
      if line[-1] == '}'
    ]
    assert steps == list(range(20, 20 * len(steps) + 1, 20))
  finally:
    subprocess.run(['umount', '-l', disk], check=True)


def test_a_damaged_run_is_not_started_from(commands, config_file, study, tmp_path):
  pretrain = (
    'pretrain',
    f'--config={config_file}',
    f'--workdir={tmp_path}/pretrain',
    '--config.masking.strategy=uniform',
  )
  segment = (
    'segment',
    f'--config={config_file}',
    f'--workdir={tmp_path}/run',
    f'--config.init_from={tmp_path}/pretrain',
  )
  shutil.copytree(study.run('pretrain/uniform/seed0').workdir, tmp_path / 'pretrain')
  shutil.rmtree(tmp_path / 'pretrain' / FOLDER / '6' / 'default' / 'd')
  done = commands.run(*segment)
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert done.stderr.startswith(
    f'error: {tmp_path}/pretrain/checkpoints/6: the checkpoint is damaged ('
  )
  assert "run that run's own command again; it resumes from the checkpoint before" in done.stderr
  assert not (tmp_path / 'run').exists()
  assert 'the checkpoint of step 6 is damaged (' in commands.succeed(*pretrain).stderr
  assert (tmp_path / 'pretrain' / 'damaged' / '6').is_dir()
  config = from_config_dict(runpy.run_path(str(config_file))['get_config']())
  config = dataclasses.replace(config, init_from=str(tmp_path / 'pretrain'))
  assert SEGMENT.plan(open_run(SEGMENT, config, tmp_path / 'run'))


KILLS = 50


@pytest.mark.slow
def test_fifty_kills_leave_no_trace(commands, config_file, tmp_path, capsys):
  """kill -9 at random moments of a run that saves after every other step.

  The last process is left to finish.
  """
  often = (
    '--config.pretrain.eval_every=2',
    '--config.pretrain.log_every=3',
    '--config.pretrain.steps=320',
  )
  flags = (f'--config={config_file}', *often)
  commands.succeed('pretrain', *flags, f'--workdir={tmp_path}/whole')
  rng = np.random.default_rng(0)
  killed, reached, saving = 0, set(), 0
  while killed < KILLS:
    process = commands.start('pretrain', *flags, f'--workdir={tmp_path}/run')
    if killed % 5:  # Every fifth is killed while it starts.
      before = checkpoint_reading.latest_step(tmp_path / 'run')
      wait_for(
        lambda before=before: checkpoint_reading.latest_step(tmp_path / 'run') > before, process
      )
    time.sleep(rng.uniform(0, 1))
    assert process.poll() is None, 'the run is over: give it more steps'
    process.kill()
    process.communicate()
    killed += 1
    reached.add(checkpoint_reading.latest_step(tmp_path / 'run'))
    saving += any('-saving' in home.name for home in (tmp_path / 'run' / FOLDER).glob('*'))
  commands.succeed('pretrain', *flags, f'--workdir={tmp_path}/run')
  whole, run = (files.arrays(tmp_path / name / FOLDER / '320') for name in ('whole', 'run'))
  assert files.digest(whole) == files.digest(run)
  assert read(tmp_path / 'whole') == read(tmp_path / 'run')
  with capsys.disabled():
    print(
      f'\n{killed} kills, {saving} of them during a save, at {len(reached)} steps from '
      f'{min(reached)} to {max(reached)}'
    )


FAILURES = 200


@pytest.mark.slow
def test_two_hundred_errors_of_a_disk_lose_nothing(commands, config_file, tmp_path, capsys):
  """One read or write of a run fails, at random, and it is taken up again, until enough have."""
  here, library = Path(__file__).parent, tmp_path / 'failing_disk.so'
  build = ['cc', '-shared', '-fPIC', '-o', library, here / 'failing_disk.c', '-ldl']
  if shutil.which('cc') is None:
    pytest.skip('no C compiler')
  subprocess.run(build, check=True)
  preloaded = {'LD_PRELOAD': str(library), 'FAILING_FOLDER': str(tmp_path / 'run')}
  done = subprocess.run(
    [sys.executable, here / 'failing_disk.py', tmp_path, config_file, str(FAILURES)],
    cwd=ROOT,
    env={**commands.environment, 'PYTHONPATH': str(ROOT), **preloaded},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert sum(found['failed'].values()) >= FAILURES
  with capsys.disabled():
    print(f'\n{found}')


def read(workdir):
  """metrics.jsonl, as far as it is there."""
  return (workdir / 'metrics.jsonl').read_bytes() if (workdir / 'metrics.jsonl').exists() else b''
