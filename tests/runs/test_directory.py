import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ahm_jax.config import Config, from_config_dict
from ahm_jax.errors import UserError
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.runs.directory import FILE, alone, check_writable, claim, owned, read


def change(config, **parts):
  """The config with fields of its parts replaced: change(config, data={'labels': 5})."""
  for name, fields in parts.items():
    config = dataclasses.replace(
      config, **{name: dataclasses.replace(getattr(config, name), **fields)}
    )
  return config


def test_a_new_directory_holds_stage_and_config(tmp_path):
  claim(tmp_path / 'new' / 'run', 'segment', Config(seed=4))
  run = json.loads((tmp_path / 'new' / 'run' / FILE).read_text())
  assert run['stage'] == 'segment'
  assert from_config_dict(run['config']) == Config(seed=4)


def test_the_same_run_may_claim_again_with_what_does_not_matter_changed(tmp_path):
  claim(tmp_path, 'segment', Config())
  other = change(
    Config(),
    data={'prepared_dir': 'elsewhere', 'resident_share': 0.0},
    evaluate={'split': 'validation'},
    model={'recompute': True},
    profile={'steps': '1:2'},
    grid={'seeds': (0,)},
  )
  claim(tmp_path, 'segment', other)
  assert json.loads((tmp_path / FILE).read_text())['config']['data']['prepared_dir'] == 'elsewhere'


def test_the_data_folder_may_be_moved(tmp_path):
  old, new, third = (tmp_path / name for name in ('old', 'new', 'third'))
  old.mkdir()
  begun, moved = (change(Config(), data={'root': str(root)}) for root in (old, new))
  claim(tmp_path / 'run', 'pretrain', begun)
  with pytest.raises(UserError, match=r'config\.data\.root'):
    claim(tmp_path / 'run', 'pretrain', moved)
  old.rename(new)
  with pytest.raises(
    UserError, match=r'config\.data\.root'
  ):  # What it learns from is not written down.
    claim(tmp_path / 'run', 'pretrain', moved)
  (tmp_path / 'run' / 'images.json').touch()
  claim(tmp_path / 'run', 'pretrain', moved)
  with pytest.raises(UserError, match=r'config\.data\.root'):  # It is not gone.
    claim(tmp_path / 'run', 'pretrain', change(Config(), data={'root': str(third)}))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  (tmp_path / 'link').symlink_to(tmp_path / 'nowhere')
  check_writable(tmp_path / 'a' / 'b', 'out')
  monkeypatch.chdir(tmp_path)
  check_writable(Path('a/b'), 'out')
  for path, said in (
    (tmp_path / 'file', 'file'),
    (tmp_path / 'file' / 'a', 'file'),
    (tmp_path / 'link' / 'a', 'link'),
  ):
    with pytest.raises(
      UserError,
      match=f'^--out={path} cannot be made: {tmp_path / said} is not a folder; choose another$',
    ):
      check_writable(path, 'out')
  monkeypatch.setattr('os.access', lambda *_: False)  # Root may write anywhere.
  with pytest.raises(
    UserError,
    match=f'^--out={tmp_path}/a cannot be written: {tmp_path} is read-only for this user;',
  ):
    check_writable(tmp_path / 'a', 'out')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'link']


def test_another_stage_is_refused(tmp_path):
  claim(tmp_path, 'pretrain', Config())
  with pytest.raises(UserError, match='holds a pretrain run, not a segment run'):
    claim(tmp_path, 'segment', Config())


def test_another_config_is_refused_by_its_first_difference(tmp_path):
  claim(tmp_path, 'pretrain', Config())
  other = change(Config(), data={'image_size': 64}, masking={'mask_ratio': 0.4})
  with pytest.raises(UserError, match=r'config\.data\.image_size = 224, and this one has 64'):
    claim(tmp_path, 'pretrain', other)
  assert json.loads((tmp_path / FILE).read_text())['config']['data']['image_size'] == 224


def test_a_start_may_be_named_in_another_way(tmp_path, monkeypatch):
  """A grid's cells hold their start by its path: the grid may be given by another path, or be
  moved.
  """
  monkeypatch.chdir(tmp_path)
  begun = dataclasses.replace(Config(), init_from='grid/pretrain/ahm')
  claim('grid/segment/ahm', 'segment', begun)
  claim(
    tmp_path / 'grid/segment/ahm',
    'segment',
    dataclasses.replace(begun, init_from=str(tmp_path / 'grid/pretrain/ahm')),
  )
  (tmp_path / 'grid').rename(tmp_path / 'elsewhere')
  claim(
    'elsewhere/segment/ahm',
    'segment',
    dataclasses.replace(begun, init_from='elsewhere/pretrain/ahm'),
  )
  for other in ('elsewhere/pretrain/uniform', 'grid/pretrain/ahm', ''):
    with pytest.raises(UserError, match=r'config\.init_from'):
      claim('elsewhere/segment/ahm', 'segment', dataclasses.replace(begun, init_from=other))


def test_a_run_that_was_moved_with_its_start_finds_it(tmp_path):
  old, new = tmp_path / 'old', tmp_path / 'new'
  (old / 'segment').mkdir(parents=True)
  config = Config(init_from=str(old / 'segment'))
  claim(old / 'classify', 'classify', config)
  assert read(old / 'classify', (CLASSIFY,)) == (CLASSIFY, config)
  old.rename(new)
  assert read(new / 'classify', (CLASSIFY,))[1].init_from == str(new / 'segment')
  (new / 'segment').rmdir()
  assert read(new / 'classify', (CLASSIFY,)) == (CLASSIFY, config)


def test_a_stage_does_not_mind_what_only_other_stages_look_at(tmp_path):
  other = change(Config(), data={'labels': 5}, segment={'learning_rate': 0.5})
  claim(tmp_path / 'pretrain', 'pretrain', Config())
  claim(tmp_path / 'pretrain', 'pretrain', other)
  claim(tmp_path / 'segment', 'segment', Config())
  with pytest.raises(UserError, match=r'config\.data\.labels'):
    claim(tmp_path / 'segment', 'segment', other)


def test_a_run_from_before_a_field_was_there_has_its_default(tmp_path):
  """The VGG16 of such a run has no norm."""
  claim(tmp_path, 'classify', Config())
  run = json.loads((tmp_path / FILE).read_text())
  del run['config']['model']['vgg_norm']
  (tmp_path / FILE).write_text(json.dumps(run))
  assert read(tmp_path, (CLASSIFY,)) == (CLASSIFY, Config())
  with pytest.raises(UserError, match=r"config\.model\.vgg_norm = '', and this one has 'batch'"):
    claim(tmp_path, 'classify', change(Config(), model={'vgg_norm': 'batch'}))
  claim(tmp_path, 'classify', Config())


def test_what_the_classifier_is_matters_to_it_alone(tmp_path):
  other = change(
    Config(), model={'vgg_norm': 'batch', 'vgg_width': 8, 'vgg_hidden': 64}, classifier={'steps': 7}
  )
  for stage in ('pretrain', 'segment'):
    claim(tmp_path / stage, stage, Config())
    claim(tmp_path / stage, stage, other)
  for stage in ('classify', 'reproduce'):
    claim(tmp_path / stage, stage, Config())
    with pytest.raises(UserError, match=r'config\.model\.vgg_'):
      claim(tmp_path / stage, stage, other)


def test_a_grid_that_has_not_classified_yet_is_free_to_choose_how(tmp_path):
  other = change(Config(), model={'vgg_norm': 'batch'}, classifier={'steps': 7})
  claim(tmp_path, 'reproduce', change(Config(), grid={'classify': False}))
  with pytest.raises(UserError, match=r'config\.model\.unet_width'):
    claim(tmp_path, 'reproduce', change(other, model={'unet_width': 3}))
  claim(tmp_path, 'reproduce', other)
  with pytest.raises(UserError, match=r'config\.model\.vgg_norm'):
    claim(tmp_path, 'reproduce', Config())


def test_classes_of_masks_are_part_of_every_run_but_a_pre_training(tmp_path):
  folder = {'name': 'folder', 'root': 'mine'}
  one, other = (
    change(Config(), data=folder | {'mask_classes': names})
    for names in (('disc', 'cup'), ('cup', 'disc'))
  )
  claim(tmp_path / 'pretrain', 'pretrain', one)
  claim(tmp_path / 'pretrain', 'pretrain', other)
  for stage in ('segment', 'classify', 'reproduce'):
    claim(tmp_path / stage, stage, one)
    with pytest.raises(
      UserError,
      match=r"config\.data\.mask_classes = \['disc', 'cup'\], and this one has \['cup', 'disc'\]",
    ):
      claim(tmp_path / stage, stage, other)


def test_a_run_file_that_cannot_be_read_is_refused(tmp_path):
  (tmp_path / FILE).write_text('{')
  with pytest.raises(UserError, match=r'run\.json is damaged: it is no JSON .*; restore it, or'):
    claim(tmp_path, 'pretrain', Config())


ASKS = """
import sys
from ahm_jax.runs.directory import alone
with alone(sys.argv[1]) as own:
  print(own)
"""


def in_another_process(workdir):
  return subprocess.run(
    [sys.executable, '-c', ASKS, workdir], check=True, capture_output=True, text=True
  ).stdout.strip()


def test_a_directory_is_had_alone(tmp_path):
  workdir = tmp_path / 'new'
  with alone(workdir) as first, alone(workdir / '..' / 'new') as again:
    assert first and again  # One process may ask twice.
    assert in_another_process(workdir) == 'False'
    assert in_another_process(tmp_path / 'other') == 'True'
  assert in_another_process(workdir) == 'True'


def test_who_has_a_directory_is_said(tmp_path):
  held = (
    'import sys, time; from ahm_jax.runs.directory import owned\n'
    "with owned(sys.argv[1]): print('held', flush=True); input()"
  )
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
  with subprocess.Popen([sys.executable, '-c', held, tmp_path], **pipes) as other:
    assert other.stdout.readline() == 'held\n'
    with (
      pytest.raises(UserError, match=f'process {other.pid} on .* is at work in {tmp_path}; wait'),
      owned(tmp_path),
    ):
      pass
    other.kill()
  with owned(tmp_path):
    pass
