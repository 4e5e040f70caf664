"""Text from files in messages: whatever it holds, a message stays one line, and sends nothing to a
terminal but letters.
"""

import io
import json
import struct
import types
import zipfile
from functools import partial

import numpy as np
import pytest

from ahm_jax.config import Config, DataConfig
from ahm_jax.data import manifest, prepare, sets
from ahm_jax.errors import UserError, printable
from ahm_jax.evaluation import per_image
from ahm_jax.export import card
from ahm_jax.models.unet import UNet
from ahm_jax.pipeline import setup, train
from ahm_jax.pipeline.stages import SEGMENT, STAGES
from ahm_jax.predict import folder as predictions
from ahm_jax.runs import checkpoint_folders, snapshots, trained
from ahm_jax.sam import claims
from ahm_jax.weights import loading
from tests.export.test_card import SOUND
from tests.pipeline.test_state_files import READERS

HOSTILE = 'a\nb\r\x1b[31m\x00\x9b\u202e\u2028\ud800'
NO_NUL = HOSTILE.replace('\0', '')


def check_line(text):
  assert text.isprintable(), ascii(text)


def check_said(read, capsys):
  """What is raised, and what is printed; returns how many lines that are."""
  lines = []
  try:
    read()
  except UserError as error:
    lines.append(str(error))
  for stream in capsys.readouterr():
    lines += stream.removesuffix('\n').split('\n') if stream else []
  for line in lines:
    check_line(line)
  return len(lines)


def with_hostile_texts(tree):
  """Trees in which one text, or one name of an object, is replaced."""
  if isinstance(tree, str):
    yield from (HOSTILE, NO_NUL)
  elif isinstance(tree, list):
    for place, item in enumerate(tree):
      for changed in with_hostile_texts(item):
        yield [*tree[:place], changed, *tree[place + 1 :]]
  elif isinstance(tree, dict):
    for name, item in tree.items():
      yield {NO_NUL if other == name else other: value for other, value in tree.items()}
      for changed in (NO_NUL, {NO_NUL: NO_NUL}, [NO_NUL] * 2, *with_hostile_texts(item)):
        yield {**tree, name: changed}


def test_an_error_is_one_line_and_stays_as_it_is_when_said_again():
  said = str(UserError(f'{HOSTILE} is wrong'))
  assert said == r'a\nb\r\x1b[31m\x00\x9b\u202e\u2028\ud800 is wrong'
  assert str(UserError(said)) == said == printable(said)
  assert str(UserError('Größe 3 µm: 色素')) == 'Größe 3 µm: 色素'
  assert str(UserError(ValueError('a\nb'))) == r'a\nb'


JSON = {
  **READERS,
  'export to be described': (
    trained.EXPORT,
    {**SOUND, 'config': {}},
    lambda home: card.data_and_scores(types.SimpleNamespace(path=home)),
  ),
  'export to be loaded': (
    trained.EXPORT,
    {**SOUND, 'config': {}},
    lambda home: trained.load(home, STAGES),
  ),
  'predictions': (
    'predict.json',
    {'made_by': {'--checkpoint': 'a', '--tile': 'b'}},
    lambda home: predictions.check(home, {'--checkpoint': 'a', '--tile': 'b'}),
  ),
  'Segment Anything': (
    'config.json',
    {'vision_config': {'hidden_size': 10**6, 'name': 'a'}},
    lambda home: say_of(claims.config, home / 'config.json'),
  ),
}


def say_of(read, *arguments):
  """As who calls `read` says it."""
  try:
    read(*arguments)
  except ValueError as error:
    raise UserError(error) from error


@pytest.mark.parametrize('reader', JSON)
def test_texts_of_json_files(tmp_path, capsys, reader):
  name, tree, read = JSON[reader]
  said = 0
  for changed in with_hostile_texts(tree):
    (tmp_path / name).write_text(json.dumps(changed))
    said += check_said(lambda: read(tmp_path), capsys)
  assert said


TABLES = {
  'column': f'image,{NO_NUL}\na,b\n',
  'columns': f'"{NO_NUL}","{NO_NUL}"\na,b\n',
  'image': f'image,label\n"{NO_NUL}",b\n',
  'label': f'image,label\na,"{NO_NUL}"\n',
  'split': f'image,split\na,"{NO_NUL}"\n',
  'NUL': f'image,{HOSTILE}\na,b\n',
}


@pytest.mark.parametrize('text', TABLES.values(), ids=TABLES)
def test_cells_of_tables(tmp_path, capsys, text):
  data = text.encode(errors='replace')
  (tmp_path / 'images').mkdir()
  (tmp_path / 'images' / 'a.png').touch()
  (tmp_path / 'labels.csv').write_bytes(data)
  (tmp_path / 'per_image.csv').write_bytes(data)
  for column in ('dice', NO_NUL):
    assert check_said(partial(per_image.read, tmp_path / 'per_image.csv', [column]), capsys)
  config = DataConfig(name='folder', root=str(tmp_path))
  assert check_said(lambda: sets.find(config).list_usable(config), capsys)


def safetensors(header):
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text


def npz(name):
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as file:
    file.writestr(name, b'no array')
  return stream.getvalue()


SOUND_ARRAY = {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]}
WEIGHTS = {
  'safetensors: name': ('a.safetensors', safetensors({HOSTILE: SOUND_ARRAY})),
  'safetensors: name of what is wrong': ('a.safetensors', safetensors({HOSTILE: 3})),
  'safetensors: type': ('a.safetensors', safetensors({'a': {**SOUND_ARRAY, 'dtype': HOSTILE}})),
  'npz: name': ('a.npz', npz('a\n\x1b[31m\u202e')),
}


@pytest.mark.parametrize('kind', WEIGHTS)
def test_names_of_weights(tmp_path, capsys, kind):
  name, data = WEIGHTS[kind]
  (tmp_path / name).write_bytes(data)
  assert check_said(lambda: loading.unet(tmp_path / name, UNet(width=2), (1, 16, 16, 3)), capsys)


def test_what_is_printed_of_data_and_of_weights(tmp_path, capsys, monkeypatch):
  data = types.SimpleNamespace(notes=[HOSTILE], splits={}, name='toy', class_names=())
  monkeypatch.setattr(setup.datasets, 'load', lambda *_: data)
  assert check_said(lambda: setup.load_data(Config(), tmp_path), capsys)
  report = {'file': HOSTILE, 'parameters': 3, 'taken': [HOSTILE]}
  report |= {'at_random': {HOSTILE: HOSTILE}, 'unused': [HOSTILE]}
  plan = setup.Plan(None, None, np.arange(3), 1, imported=report)
  run = setup.Run(SEGMENT, Config(), tmp_path, data, setup.Start())
  monkeypatch.setattr(train.provenance, 'begin', lambda *_: None)
  monkeypatch.setattr(setup.Plan, 'images', lambda *_: None)
  train.begin(run, plan)
  said = capsys.readouterr().out
  for line in said.splitlines():
    check_line(line)
  assert said.count('\n') == 3


def test_what_is_left_out_and_made_again(tmp_path, capsys):
  (tmp_path / 'snapshots').mkdir()
  (tmp_path / 'snapshots' / 'a\x1b[31m.npz').write_bytes(npz('a\n\x1b[31m\u202e'))
  assert check_said(lambda: snapshots.read(tmp_path), capsys)
  (tmp_path / manifest.FILE).write_text(json.dumps({HOSTILE: {'bytes': 1, 'crc32': 1}}))
  assert check_said(lambda: prepare._remove(tmp_path, manifest.fault(tmp_path)), capsys)
  checkpoint = tmp_path / 'run' / 'checkpoints' / '4'
  checkpoint.mkdir(parents=True)
  assert check_said(lambda: checkpoint_folders.set_aside(tmp_path / 'run', 4, NO_NUL), capsys)
