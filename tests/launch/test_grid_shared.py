"""`reproduce`, stopped, started again, and widened, by one process and by several."""

import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest


def read(path):
  return json.loads(path.read_text())


@pytest.fixture(scope='module')
def grid(study):
  """The directory of a finished run of the grid, not to be changed."""
  return study.grid().workdir


def evaluations(workdir):
  return {path: path.stat().st_mtime_ns for path in workdir.glob('*/**/evaluation.json')}


# Inits that share what they train with the grid of the fixture, and no more than they need.
FEW = ('scratch', 'uniform')


@pytest.fixture(scope='module')
def few(commands, config_file, grid, tmp_path_factory):
  """The results.json of these alone, from the finished grid, in which nothing is trained again."""
  workdir = shutil.copytree(grid, tmp_path_factory.mktemp('few') / 'grid')
  commands.succeed(
    'reproduce', f'--config={config_file}', f'--workdir={workdir}', f'--config.grid.methods={FEW}'
  )
  results = read(workdir / 'results.json')
  assert results['cells'] == read(grid / 'results.json')['cells'][:2]
  return results


def wait_for(condition, process):
  deadline = time.monotonic() + 200
  while not condition():
    assert time.monotonic() < deadline and process.poll() is None, process.communicate()
    time.sleep(0.02)


def trained(err):
  """How many trainings ended in a process."""
  return len([line for line in err.splitlines() if '100%' in line])


def test_killed_grids_go_on_in_other_processes_and_a_wider_one_keeps_its_cells(
  commands, config_file, grid, few, tmp_path
):
  wider = ('reproduce', f'--config={config_file}', f'--workdir={tmp_path}')
  command = (*wider, f'--config.grid.methods={FEW}')
  process = commands.start(*command, own_session=True)
  first = tmp_path / 'segment/scratch/labels6/seed0/evaluation.json'
  wait_for(first.exists, process)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  finished = evaluations(tmp_path)
  assert first in finished
  assert not (tmp_path / 'results.json').exists()

  # One classifies from scratch; the other pre-trains, and is killed as well.
  both = [commands.start(*command, own_session=True) for _ in range(2)]
  pretraining = tmp_path / 'pretrain/uniform/seed0'
  wait_for(lambda: any((pretraining / 'checkpoints').glob('[0-9]*')), both[0])
  (holder,) = map(int, re.findall(r'process (\d+) ', (pretraining / '.lock').read_text()))
  killed, other = sorted(both, key=lambda process: process.pid != holder)
  os.killpg(killed.pid, signal.SIGKILL)
  killed.communicate()
  assert (killed.pid, killed.returncode) == (holder, -signal.SIGKILL)
  assert not (tmp_path / 'results.json').exists()
  _, err = other.communicate(timeout=500)
  assert other.returncode == 0, err
  assert read(tmp_path / 'results.json') == few
  assert finished.items() <= evaluations(tmp_path).items()

  finished = evaluations(tmp_path)
  # Of two methods: a pre-training, two segmentations, two classifications.
  assert len(finished) == 5
  command = (
    *wider,
    '--config.grid.seeds=(0,1)',
    '--config.grid.labels=(6,8)',
    '--config.grid.methods=("scratch",)',
    '--config.grid.classify=False',
  )
  both = [commands.start(*command) for _ in range(2)]
  said = [process.communicate(timeout=500) for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  # Three segmentations, each in one process only.
  assert sum(trained(err) for _, err in said) == 3
  assert finished.items() <= evaluations(tmp_path).items()
  results = read(tmp_path / 'results.json')
  cells, (mean,) = results['cells'], results['over_labels']
  assert [(cell['method'], cell['seed'], cell['labels']) for cell in cells] == [
    ('scratch', s, n) for s in (0, 1) for n in (6, 8)
  ]
  with_classifier = read(grid / 'results.json')['cells'][0]
  assert set(with_classifier) - set(cells[0]) == {'accuracy', 'balanced_accuracy', 'auc'}
  assert cells[0].items() <= with_classifier.items()
  assert (mean['method'], mean['labels'], mean['seeds']) == ('scratch', [6, 8], 2)
  assert mean['iou'] == pytest.approx(np.mean([cell['iou'] for cell in cells]))


def test_a_method_may_change_fields(commands, config_file, tmp_path):
  method, tuned = 'uniform:mask_ratio=0.4+patch_size=16', 'tuned'
  fields = {'strategy': 'uniform', 'mask_ratio': 0.4, 'patch_size': 16, 'segment': {'steps': 2}}
  own_file, workdir = tmp_path / 'config.py', tmp_path / 'grid'
  own_file.write_text(
    config_file.read_text().replace(
      '  return c', f'  c.grid.variants = {{{tuned!r}: {fields}}}\n  return c'
    )
  )
  flags = (
    f'--config.grid.methods=("{method}","{tuned}")',
    '--config.grid.classify=False',
  )
  commands.succeed('reproduce', f'--config={own_file}', f'--workdir={workdir}', *flags)
  held = read(workdir / f'pretrain/{method}/seed0/run.json')['config']['masking']
  assert (held['strategy'], held['mask_ratio'], held['patch_size']) == ('uniform', 0.4, 16)
  results = read(workdir / 'results.json')
  assert [row['method'] for row in results['summary']] == [method, tuned]
  # What fine-tunes in another way starts alike.
  assert [path.name for path in (workdir / 'pretrain').iterdir()] == [method]
  starts = [
    read(workdir / f'segment/{name}/labels6/seed0/run.json')['config'] for name in (method, tuned)
  ]
  assert (
    starts[0]['init_from'] == starts[1]['init_from'] == str(workdir / f'pretrain/{method}/seed0')
  )
  assert starts[1]['segment'] == starts[0]['segment'] | {'steps': 2} != starts[0]['segment']
  assert results['agent'][method]['mask_ratio'] == pytest.approx(0.4, abs=0.15)
  assert method in (workdir / 'report.html').read_text()
