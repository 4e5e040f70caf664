"""The launch files for SLURM and Kubernetes: they can be read, and their flags are flags."""

import os
import re
import subprocess

import pytest
import yaml

from ahm_jax.runtime.signals import TRY_AGAIN

from .conftest import ROOT

SBATCH = ROOT / 'launch' / 'slurm.sbatch'


def test_the_kubernetes_jobs_command_is_understood_and_its_counts_agree(commands):
  service, job = yaml.safe_load_all((ROOT / 'launch' / 'kubernetes.yaml').read_text())
  spec = job['spec']
  pod = spec['template']['spec']
  container = pod['containers'][0]
  args = container['args']
  name = job['metadata']['name']
  assert (
    service['spec']['selector'] == {'job-name': name}
    and pod['subdomain'] == service['metadata']['name']
  )
  assert any(arg.startswith(f'--coordinator={name}-0.{pod["subdomain"]}:') for arg in args)
  assert f'--processes={spec["completions"]}' in args and spec['parallelism'] == spec['completions']
  assert args[-1] == '--process=$(JOB_COMPLETION_INDEX)' and spec['completionMode'] == 'Indexed'
  assert {mount['name'] for mount in container['volumeMounts']} == {
    volume['name'] for volume in pod['volumes']
  }
  module = container['command'][-1].removeprefix('launch.')
  # All is well but this: no pod has that number.
  done = commands.run(module, *args[:-1], f'--process={spec["completions"]}')
  assert f'--process={spec["completions"]} is none of' in done.stderr


def test_the_command_that_the_slurm_file_gives_is_understood(commands):
  text = SBATCH.read_text().replace('\\\n#', '')
  stage, flags = re.search(r'#   sbatch launch/slurm\.sbatch (\w+) (.+)\n', text).groups()
  done = commands.run(stage, *flags.split(), '--coordinator=auto')
  assert 'finds no SLURM step' in done.stderr


@pytest.mark.parametrize(
  ('code', 'restarts', 'again'),
  [
    (0, '0', False),
    (2, '0', False),
    (TRY_AGAIN, '0', True),
    (137, '3', True),
    (TRY_AGAIN, '20', False),
  ],
)
def test_a_slurm_job_goes_back_into_the_queue_after_a_loss(tmp_path, code, restarts, again):
  for name, line in (('srun', f'echo srun "$@"; exit {code}'), ('scontrol', 'echo scontrol "$@"')):
    (tmp_path / name).write_text(f'#!/bin/sh\n{line}\n')
    (tmp_path / name).chmod(0o755)
  environment = os.environ | {
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'SLURM_JOB_ID': '7',
    'SLURM_CPUS_PER_TASK': '4',
    'SLURM_RESTART_COUNT': restarts,
  }
  done = subprocess.run(
    ['bash', SBATCH, 'segment', '--workdir=a b'],
    capture_output=True,
    text=True,
    env=environment,
    check=False,
  )
  ran, *then = done.stdout.splitlines()
  assert done.returncode == code and not done.stderr
  assert ran.endswith(
    '--cpus-per-task=4 --kill-on-bad-exit=0 launch/with_env python -m launch.segment '
    '--coordinator=auto --workdir=a b'
  )
  assert then == (['scontrol requeue 7'] if again else [])


def test_the_slurm_file_needs_a_stage():
  done = subprocess.run(['bash', SBATCH], capture_output=True, text=True, check=False)
  assert done.returncode and 'usage: sbatch launch/slurm.sbatch STAGE' in done.stderr
