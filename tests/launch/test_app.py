"""Help, flags and config files; what is refused before any data is looked at."""

import re

import pytest

from ahm_jax.api.command import listing
from tests.launch.conftest import ROOT

STAGES = ('prepare_data', 'pretrain', 'segment', 'classify', 'evaluate', 'reproduce', 'profile')


def test_training_starts_without_what_only_reports_need(commands):
  """SciPy's distributions alone take half as long to import as all the rest."""
  done = commands.run_python(
    '-c', 'import sys, launch.segment; print("scipy.stats" in sys.modules)'
  )
  assert done.stdout == 'False\n', done.stderr


def test_a_wrong_command_is_refused_with_one_line_and_exit_code_2(commands, tmp_path):
  done = commands.run_python(
    *('-m', 'launch.pretrain'),
    '--config=configs/phantom.py',
    f'--workdir={tmp_path / "run"}',
    '--config.data.image_size=100',
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr == (
    'error: config.data.image_size is 100, not a multiple of 16 (the U-Net halves it four times); '
    'the nearest is 96\n'
  )
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('stage', STAGES)
def test_help_says_what_the_command_does_and_takes(commands, stage):
  done = commands.run(stage, '--help')
  assert (done.returncode, done.stderr) == (0, '')
  assert f'\n  python -m launch.{stage} --config=' in done.stdout
  assert ('\n  --coordinator=HOST:PORT ' in done.stdout) == (
    stage in ('pretrain', 'segment', 'classify')
  )
  assert '\n  --workdir=DIR ' in done.stdout and 'Exit codes: 0 done; 2 wrong input' in done.stdout
  assert max(map(len, done.stdout.splitlines())) <= 130


def test_the_folder_of_scripts_lists_them(commands):
  done = commands.run_python('-m', 'launch')
  assert (done.returncode, done.stderr) == (0, '')
  assert done.stdout == listing() + '\n'
  done = commands.run_python('-m', 'launch', 'segment', '--help')
  assert (done.returncode, done.stderr) == (
    0,
    '',
  ) and '\n  ahm segment --config=phantom' in done.stdout


def test_benchmark_has_flags_of_its_own(commands, tmp_path):
  done = commands.run('benchmark', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  assert '\n  python -m launch.benchmark --out=' in done.stdout and '--only=NAME' in done.stdout
  for flags, message in (
    ((), '--out is missing'),
    ((f'--out={tmp_path / "no" / "b.json"}',), 'there is no folder'),
    ((f'--out={tmp_path}',), 'is a folder; name a file to write'),
    (
      (f'--out={tmp_path / "b.json"}', '--only=unet_train,unets'),
      "--only names 'unets'; the workloads are unet_train,",
    ),
  ):
    done = commands.run('benchmark', *flags)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1
  assert not list(tmp_path.iterdir())


PRETRAIN = ('pretrain', '--config=configs/phantom.py')
REFUSED = [
  (('pretrain', '--config=gs://bucket/phantom.py'), "--config is 'gs://bucket/phantom.py', a URL"),
  ((*PRETRAIN, '--config.data.root=gs://bucket/a'), "config.data.root is 'gs://bucket/a', a URL"),
  (('pretrain',), '--config is missing'),
  (('pretrain', '--config.seed=1', '--config=configs/phantom.py'), 'put --config=FILE first'),
  (
    ('pretrain', '--config=configs/nowhere.py'),
    '--config=configs/nowhere.py: there is no such file',
  ),
  (
    ('pretrain', '--config=phantm'),
    '--config=phantm: there is no such config; did you mean phantom, phantom_mri?',
  ),
  (('pretrain', '--config', 'phantm'), '--config=phantm: there is no such config'),
  (('pretrain', '--config=configs'), '--config=configs is a folder; give a config file, or one of'),
  (('pretrain', '--config='), '--config is empty'),
  (('pretrain', '--config=isic_cpu:gpu'), "configs/isic_cpu.py has no variant 'gpu'"),
  (('pretrain', '--config=smoke:cpu'), 'has no variants'),
  (('pretrain', '--config=phantom', '--config.data.image_size=100'), 'the nearest is 96'),
  (('pretrain', '--config', 'isic_cpu:few', '--config.seed=-1'), 'config.seed is -1'),
  (('pretrain', '--config=configs/folder.py:gpu'), "configs/folder.py has no variant 'gpu'"),
  (('pretrain', '--config=configs/smoke.py:cpu'), 'has no variants'),
  (('pretrain', '--config=configs/folder.py'), '--config.data.root=DIR'),
  (
    ('pretrain', '--config=configs/isic2018.py'),
    'holds the official archives: --config.data.root=DIR',
  ),
  (('pretrain', '--config=configs/isic2018.py:gpu'), "configs/isic2018.py has no variant 'gpu'"),
  (
    ('pretrain', '--config=configs/isic2018.py:cpu', '--config.data.root=/nowhere'),
    'Task1_Test_GroundTruth.zip; download from',
  ),
  (
    ('pretrain', '--config=configs/folder.py:cpu', '--config.data.root=/nowhere'),
    'there is no folder images/',
  ),
  (
    (*PRETRAIN, '--config.masking.mask_ration=0.5'),
    'mask_ration is not a field of the config. Did you mean "mask_ratio"',
  ),
  ((*PRETRAIN, '--config.zzz=1'), 'zzz is not a field of the config\n'),
  ((*PRETRAIN, '--config.maskin.mask_ratio=0.5'), 'Did you mean "masking"'),
  ((*PRETRAIN, '--config.pretrain.steps=many'), 'steps'),
  ((*PRETRAIN, '--conifg.seed=1'), 'conifg'),
  ((*PRETRAIN, 'seed=1'), "argument 'seed=1' is not a flag"),
  ((*PRETRAIN, '--config.masking.strategy=reinforced'), 'did you mean reinforce?'),
  ((*PRETRAIN, '--config.masking.patch_size=5'), 'config.masking.patch_size is 5'),
  (
    (*PRETRAIN, '--config.masking.patch_size=32', '--config.data.image_size=48'),
    'config.data.image_size is 48, not a multiple of 32 (config.masking.patch_size); '
    'the nearest is 64',
  ),
  ((*PRETRAIN, '--config.masking.mask_ratio=0'), 'config.masking.mask_ratio is 0'),
  ((*PRETRAIN, '--config.masking.mask_ratio=1'), 'config.masking.mask_ratio is 1'),
  ((*PRETRAIN, '--config.pretrain.steps=0'), 'steps is 0; it must be at least 1'),
  (
    ('reproduce', '--config=configs/phantom.py', '--config.grid.methods=("scratch","imagenet")'),
    "config.grid.methods holds 'imagenet': 'imagenet' is no masking strategy",
  ),
  ((*PRETRAIN, '--processes=2'), '--processes and --process need --coordinator=HOST:PORT'),
  (
    (*PRETRAIN, '--coordinator=node1', '--processes=2', '--process=0'),
    '--coordinator=node1 is no address; give HOST:PORT',
  ),
  (
    (*PRETRAIN, '--coordinator=node1:70000', '--processes=2', '--process=0'),
    '--coordinator=node1:70000 is no address',
  ),
  (
    (*PRETRAIN, '--coordinator=node1:7000', '--processes=2'),
    'needs --processes=N and --process=I, of 0 to N - 1',
  ),
  (
    (*PRETRAIN, '--coordinator=node1:7000', '--processes=2', '--process=2'),
    '--process=2 is none of --processes=2',
  ),
  ((*PRETRAIN, '--coordinator=node1:7000', '--processes=2', '--process=two'), 'process'),
  (
    (*PRETRAIN, '--coordinator=auto', '--process=0'),
    '--coordinator=auto finds --processes and --process by itself',
  ),
  (
    (*PRETRAIN, '--coordinator=auto'),
    '--coordinator=auto finds no SLURM step, Open MPI or Kubernetes job here',
  ),
  (
    ('reproduce', '--config=configs/phantom.py', '--coordinator=auto'),
    'start launch.reproduce on each with the same --workdir',
  ),
  (('evaluate', '--config=configs/phantom.py', '--coordinator=auto'), 'leave out --coordinator'),
  (
    ('classify', '--config=configs/phantom.py'),
    '--config.init_from=DIR of a segment run, or --config.classify.input=image',
  ),
]


@pytest.mark.parametrize(
  ('command', 'message'), REFUSED, ids=[' '.join(command) for command, _ in REFUSED]
)
def test_a_command_is_refused_before_anything_is_written(commands, command, message, tmp_path):
  done = commands.run(*command, f'--workdir={tmp_path / "run"}')
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
  assert message in done.stderr
  assert not (tmp_path / 'run' / 'run.json').exists()


@pytest.mark.parametrize(
  ('stage', 'flag'),
  [
    *((stage, 'workdir') for stage in STAGES),
    ('evaluate', 'sam_checkpoint'),
    *(('export', flag) for flag in ('checkpoint', 'out')),
    *(('predict', flag) for flag in ('checkpoint', 'images', 'out', 'classifier')),
    ('benchmark', 'out'),
  ],
)
def test_every_flag_that_is_a_path_refuses_urls(commands, stage, flag):
  done = commands.run(stage, f'--{flag}=gs://bucket/a')
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith(f"error: flag --{flag}=gs://bucket/a: is 'gs://bucket/a', a URL; ")
  assert done.stderr.count('\n') == 1
  assert not (ROOT / 'gs:').exists()


def test_no_flag_that_is_a_path_is_forgotten():
  texts = set()
  for path in (ROOT / 'launch').glob('*.py'):
    texts |= set(re.findall(r"DEFINE_string\(\s*'(\w+)'", path.read_text(encoding='utf-8')))
  assert texts == {'format', 'licence', 'coordinator'}


def test_a_missing_workdir_is_refused(commands):
  done = commands.run(*PRETRAIN)
  assert (done.returncode, done.stderr) == (2, 'error: --workdir is missing; see --help\n')
  done = commands.run(*PRETRAIN, '--workdir=')
  assert (done.returncode, done.stderr) == (2, 'error: --workdir is empty; see --help\n')


@pytest.mark.parametrize('command', ['pretrain', 'prepare_data'])
def test_a_workdir_that_cannot_be_made_is_refused(commands, command, tmp_path):
  (tmp_path / 'file').write_text('mine')
  done = commands.run(
    command, '--config=configs/smoke.py', f'--workdir={tmp_path / "file" / "run"}'
  )
  said = (
    f'error: --workdir={tmp_path / "file" / "run"} cannot be made: {tmp_path / "file"} is not a '
    'folder; choose another\n'
  )
  assert (done.returncode, done.stderr) == (2, said)
