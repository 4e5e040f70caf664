"""A stage in two processes, as a user starts it."""

import json
import socket

import jax
import numpy as np

from ahm_jax.runs.checkpoint_reading import load_variables


def start(commands, config_file, workdir, *flags):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  together = (
    f'--config={config_file}',
    f'--workdir={workdir}',
    f'--coordinator=127.0.0.1:{port}',
    '--processes=2',
    *flags,
  )
  return [commands.start('segment', *together, f'--process={index}') for index in range(2)]


def finish(pair):
  try:
    said = [process.communicate(timeout=200) for process in pair]
  finally:
    for process in pair:
      process.kill()
  return [(process.returncode, *texts) for process, texts in zip(pair, said, strict=True)]


def metrics(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_two_processes_segment_as_one(commands, config_file, study, tmp_path):
  two = tmp_path / 'two'
  first, second = finish(start(commands, config_file, two))
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert (
    first[1].startswith('images that serve pre-training only: 2 ') and 'segment: 100%' in first[2]
  )
  assert second[1:] == ('', '')
  one = study.run('segment/scratch/labels6/seed0').workdir
  of_one, of_two = (json.loads((workdir / 'run.json').read_text()) for workdir in (one, two))
  assert of_one == of_two | {'workdir': str(one)}
  for line, other in zip(metrics(one), metrics(two), strict=True):
    assert line.keys() == other.keys()
    for name in line:  # A score counts pixels above a threshold, which rounding may take over it.
      np.testing.assert_allclose(
        line[name], other[name], rtol=2e-2 if name.startswith('validation/') else 1e-3
      )
  statistics = [
    jax.tree.leaves(load_variables(workdir, best=False)['batch_stats']) for workdir in (one, two)
  ]
  for ours, theirs in zip(*statistics, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_what_is_refused_is_refused_in_all(commands, config_file, tmp_path):
  ended = finish(start(commands, config_file, tmp_path, '--config.segment.batch_size=5'))
  for (code, _, err), name in zip(ended, ('', 'process 1: '), strict=True):
    assert (code, err) == (
      2,
      f'{name}error: batch_size is 5, which 2 devices cannot share evenly; make it a multiple of '
      '2\n',
    )
  assert not (tmp_path / 'run.json').exists()
