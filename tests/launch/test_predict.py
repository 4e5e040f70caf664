"""launch.predict as a user types it, on a trained run and real files."""

import csv
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.runtime import signals

ROOT = Path(__file__).parents[2]
MANY = 80


@pytest.fixture(scope='module')
def trained(commands, config_file, study, tmp_path_factory):
  """The workdirs of a segmentation and of a classification on it, with batch normalisation.

  Both are evaluated.
  """
  home = tmp_path_factory.mktemp('trained')
  shutil.copytree(study.run('segment/scratch/labels6/seed0').workdir, home / 'segment')
  flags = (f'--config.init_from={home}/segment', '--config.model.vgg_norm=batch')
  for command in ('classify', 'evaluate'):
    commands.succeed(command, f'--config={config_file}', f'--workdir={home}/classify', *flags)
  return home


@pytest.fixture(scope='module')
def many(tmp_path_factory):
  """Images that take a few seconds; one file under many names."""
  root = tmp_path_factory.mktemp('many') / 'images'
  root.mkdir()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)).save(
    root / '000.png'
  )
  for number in range(1, MANY):
    os.link(root / '000.png', root / f'{number:03d}.png')
  return root


def rows(path):
  with path.open(newline='') as file:
    return {row['image']: row for row in csv.DictReader(file)}


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def files(out):
  return {
    path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*') if path.is_file()
  }


def test_masks_are_those_that_evaluate_scores_and_diagnoses_too(
  commands, trained, folder, tmp_path
):
  flags = (f'--images={folder}/images', f'--out={tmp_path}/out', f'--classifier={trained}/classify')
  done = commands.succeed('predict', f'--checkpoint={trained}/segment', *flags)
  assert done.stdout.startswith('images with a mask: 21; ') and 'images/s' in done.stderr
  table = rows(tmp_path / 'out/predictions.csv')
  names = {name.partition('.')[0]: name for name in table}
  assert len(table) == 21
  scores = rows(trained / 'segment/per_image.csv')
  assert len(scores) == 5
  for name, score in scores.items():
    found, truth = (
      pixels(tmp_path / f'out/masks/{name}.png'),
      pixels(folder / 'masks' / f'{name}.png') > 0,
    )
    assert set(np.unique(found)) <= {0, 255} and found.shape == truth.shape
    mask = found > 0
    counts = [int((mask & truth).sum()), int((mask & ~truth).sum()), int((truth & ~mask).sum())]
    assert counts == [int(score[key]) for key in ('tp', 'fp', 'fn')]
    assert int(table[names[name]]['area_px']) == mask.sum()
  for name, score in rows(trained / 'classify/per_image.csv').items():
    row = table[names[name]]
    assert row['class'] == score['predicted']
    for label in 'ab':
      assert float(row[f'class_probability_{label}']) == pytest.approx(
        float(score[f'probability_{label}']), abs=1e-4
      )
  again = commands.succeed('predict', f'--checkpoint={trained}/segment', *flags)
  assert again.stdout == done.stdout


FROM_PYTHON = """
import json, sys
import numpy as np
import ahm_jax
segment, classify, out, *images = sys.argv[1:]
results = ahm_jax.load(segment, classify).predict(images)
np.savez(out, *(result.mask for result in results))
print(json.dumps([dict(result.measured) for result in results]))
"""


def test_from_python_it_is_the_same(commands, trained, folder, tmp_path):
  flags = (f'--images={folder}/images', f'--out={tmp_path}/out', f'--classifier={trained}/classify')
  commands.succeed('predict', f'--checkpoint={trained}/segment', *flags)
  table = rows(tmp_path / 'out/predictions.csv')
  places = (trained / 'segment', trained / 'classify', tmp_path / 'masks.npz')
  names = [folder / 'images' / name for name in table]
  done = commands.run_python('-c', FROM_PYTHON, *map(str, (*places, *names)))
  assert done.returncode == 0, done.stderr
  masks = np.load(tmp_path / 'masks.npz')
  told = json.loads(done.stdout.splitlines()[-1])
  assert len(told) == len(table) == 21
  for number, (row, measured) in enumerate(zip(table.values(), told, strict=True)):
    written = pixels(tmp_path / 'out' / row['mask'])
    assert (masks[f'arr_{number}'] * np.uint8(255)).tobytes() == written.tobytes()
    for name, value in measured.items():
      assert row[name] == ('' if value is None else str(value))
  assert {'confidence', 'area_px', 'class_probability_a'} <= set(told[0])


def start(commands, trained, many, out, *flags):
  command = (
    'predict',
    f'--checkpoint={trained}/segment',
    f'--images={many}',
    f'--out={out}',
    '--batch_size=2',
    *flags,
  )
  return commands.start(*command)


def wait_for_rows(out, process, count):
  deadline = time.monotonic() + 200
  path = out / 'predictions.csv'
  while not (path.exists() and path.read_bytes().count(b'\n') > count):
    assert time.monotonic() < deadline and process.poll() is None, process.communicate()
    time.sleep(0.02)


def test_it_resumes_where_it_was_stopped(commands, trained, many, tmp_path):
  """Once by SIGTERM, once by kill -9.

  What was done is not touched again, and all ends as in one go.
  """
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  process = start(commands, trained, many, whole)
  assert process.wait(200) == 0, process.communicate()
  process.communicate()
  first = start(commands, trained, many, out)
  wait_for_rows(out, first, 10)
  first.send_signal(signal.SIGTERM)
  _, err = first.communicate(timeout=60)
  assert first.returncode == 75 and err.endswith(f'\n{signals.LINE}\n')
  assert 'Traceback' not in err
  done = rows(out / 'predictions.csv')
  assert 10 <= len(done) < MANY and len(list((out / 'masks').iterdir())) < MANY
  times = {row['mask']: (out / row['mask']).stat().st_mtime_ns for row in done.values()}
  second = start(commands, trained, many, out)
  wait_for_rows(out, second, len(done) + 10)
  second.send_signal(signal.SIGSTOP)
  other = start(commands, trained, many, out)
  _, err = other.communicate(timeout=60)
  assert other.returncode == 2 and 'is at work in' in err and err.count('\n') == 1
  second.kill()
  second.communicate()
  assert len(rows(out / 'predictions.csv')) < MANY
  third = start(commands, trained, many, out)
  assert third.wait(200) == 0, third.communicate()
  third.communicate()
  assert times == {name: (out / name).stat().st_mtime_ns for name in times}
  ours, theirs = files(out), files(whole)
  assert ours.keys() == theirs.keys() and len(ours) == MANY + 4
  assert all(ours[name] == theirs[name] for name in ours if name != '.lock')


def test_a_full_disk_is_said_in_one_line(commands, trained, folder, tmp_path):
  """Here by a limit on the size of files, which Python tells as it tells a full disk."""
  flags = [
    f'--checkpoint={trained}/segment',
    f'--images={folder}/images',
    f'--out={tmp_path}/out',
    '--probabilities',
  ]
  limit = (1500, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
  script = (
    'import resource, runpy, sys\n'
    f'resource.setrlimit(resource.RLIMIT_FSIZE, {limit})\n'
    f'sys.argv = ["launch/predict.py", *{flags}]\n'
    'runpy.run_module("launch.predict", run_name="__main__", alter_sys=True)\n'
  )
  done = commands.run_python('-c', script, JAX_ENABLE_COMPILATION_CACHE='false')
  assert done.returncode == 2, done.stderr
  *others, last = done.stderr.splitlines()
  told = f'error: file too large in {tmp_path}/out; make room and run the same command again; '
  assert last == f'{told}it resumes'
  assert all('images/s' in line for line in others)
  commands.succeed('predict', *flags)
  assert len(rows(tmp_path / 'out/predictions.csv')) == 21


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ('--checkpoint={trained}/classify',),
      'holds a classify run; give the --workdir of a segment run',
    ),
    (('--checkpoint={folder}',), 'holds no run; give the --workdir of a segment run'),
    (('--checkpoint={trained}/nowhere',), 'there is no such folder'),
    (
      ('--checkpoint={wide}',),
      'in its weights but 8 by its config; give a folder whose weights and config belong together',
    ),
    (
      ('--classifier={trained}/segment',),
      'holds a segment run; give the --workdir of a classify run',
    ),
    (
      ('--classifier={deep}',),
      'by its config; give a folder whose weights and config belong together',
    ),
    (('--classifier={trained}/classify', '--tile=64'), 'leave out one of them'),
    (('--images={trained}/segment',), 'holds no image'),
    (('--images={folder}',), 'masks are no images'),
    (('--images={folder}/nowhere',), 'there is no such folder'),
    (('--out={trained}/segment',), 'holds other files, and nothing is written over'),
    (('--out={folder}/images/out',), 'lie in each other'),
    (('--threshold=1',), '--threshold is 1.0; it must be strictly between 0 and 1'),
    (('--tile=8',), '--tile is 8; it must be 0, or at least 16'),
    (('--overlap=1',), '--overlap is 1.0; it must be between 0 and 0.9'),
    (('--batch_size=0',), '--batch_size is 0; it must be at least 1'),
    (('--images=',), '--images is empty; see --help'),
  ],
)
def test_wrong_input_ends_with_one_line_and_writes_nothing(
  commands, trained, folder, tmp_path, flags, message
):
  for name, stage, width in (('wide', 'segment', 'unet_width'), ('deep', 'classify', 'vgg_width')):
    if f'{{{name}}}' in flags[0]:
      run = shutil.copytree(trained / stage, tmp_path / name) / 'run.json'
      run.write_text(run.read_text().replace(f'"{width}": 4', f'"{width}": 8'))
  before = files(trained), files(folder)
  flags = [
    flag.format(trained=trained, folder=folder, wide=tmp_path / 'wide', deep=tmp_path / 'deep')
    for flag in flags
  ]
  base = (f'--checkpoint={trained}/segment', f'--images={folder}/images', f'--out={tmp_path}/out')
  done = commands.run('predict', *base, *flags)
  assert (done.returncode, done.stdout) == (2, ''), done.stderr
  assert message in done.stderr and done.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists() and (files(trained), files(folder)) == before


def test_help_and_missing_flags(commands):
  done = commands.run('predict', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  assert (
    '\n  python -m launch.predict --checkpoint=' in done.stdout
    and '\n  --tile=PIXELS ' in done.stdout
  )
  assert max(map(len, done.stdout.splitlines())) <= 100
  done = commands.run('predict', '--images=x')
  assert (done.returncode, done.stderr) == (2, 'error: --checkpoint is missing; see --help\n')
