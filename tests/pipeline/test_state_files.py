"""Every file that a run leaves, damaged in every way, in the hands of whatever reads it: it is
made again, or named in one line that says what to do; there is no traceback, and no other result.
"""

import collections
import copy
import functools
import json
import math
import operator
import os
import re

import numpy as np
import pytest

from ahm_jax.config import REPRODUCE, Config, to_dict
from ahm_jax.data.dataset import Dataset
from ahm_jax.errors import UserError
from ahm_jax.evaluation import per_image, results, stored
from ahm_jax.pipeline import cells
from ahm_jax.pipeline.cells import CellRun
from ahm_jax.pipeline.stages import PRETRAIN, SEGMENT, STAGES
from ahm_jax.runs import directory, metrics_log, provenance, snapshots
from ahm_jax.runtime.json_files import Damaged, write_json
from tests.data.tiny_split import make_split
from tests.hostile_json import DAMAGES, VALUES

CONFIG = Config()
DATA = Dataset(
  'toy', ('x', 'y'), {name: make_split([0, 1, -1]) for name in ('train', 'validation', 'test')}, ()
)
NAMES = ['i0', 'i1', 'i2']
IMAGES = {'dataset': 'toy', 'train': ['a'], 'validation': ['b'], 'run': '', 'digests': ['1', '2']}
SCORES = {'dice': 0.5, 'hd95': 3.5, 'images': 3, 'dice_by_class': {'cup': None, 'disc': 1.0}}
AGENT = dict.fromkeys(stored.AGENT_METRICS, 0.5)
EVALUATION = {'stage': 'segment', 'split': 'test', 'threshold': 0.5, **SCORES}
CELL = {'method': 'ahm', 'labels': 20, 'seed': 0, **SCORES, 'per_image': {'dice': [0.5, None, 1]}}
RESULTS = {
  'dataset': 'toy',
  'split': 'test',
  'config': {},
  'images': NAMES,
  'cells': [CELL],
  'pretrainings': [{'method': 'ahm', 'seed': 0, **AGENT}],
}
RUN = {'stage': 'segment', 'workdir': 'runs/a', 'config': {'data': to_dict(CONFIG)['data']}}
SUMMARY = {
  'name': 'toy',
  'splits': {'train': {'images': 3, 'masks': 2, 'labels': 1}},
  'class_names': ['x', 'y'],
  'trained_on': 3,
}

# What a file holds, its name, and who reads it in a folder.
READERS = {
  'run to be read': ('run.json', RUN, lambda home: directory.read(home, STAGES)),
  'run to be resumed': ('run.json', RUN, lambda home: directory.check(home, 'segment', CONFIG)),
  'summary': ('data.json', SUMMARY, directory.summary),
  'classes': ('classes.json', ['x', 'y'], directory.class_names),
  'images to be scored': (
    'images.json',
    {'own': IMAGES, 'origins': [IMAGES]},
    lambda home: provenance.check_scored(home, 'test', ['x']),
  ),
  'images of a start': (
    'images.json',
    {'own': IMAGES, 'origins': []},
    lambda home: provenance.check_start(home, DATA),
  ),
  'images of a grid': (
    'images.json',
    {'digest': provenance._digest(DATA), 'images': provenance._all_contents(DATA)},
    lambda home: provenance.check_grid(home, DATA),
  ),
  'evaluation': ('evaluation.json', EVALUATION, stored.evaluation),
  'results from elsewhere': (
    'results.json',
    RESULTS,
    lambda home: results.read([str(home / 'results.json')], CONFIG, 'toy', NAMES),
  ),
}
EACH = pytest.mark.parametrize('reader', READERS)


def refusal(read, home):
  """What is said, in one line; None where nothing is."""
  try:
    read(home)
  except UserError as error:
    said = str(error)
    assert '\n' not in said and '; ' in said
    return said.replace(str(home), '')


@EACH
def test_a_sound_file_is_read(tmp_path, reader):
  name, tree, read = READERS[reader]
  write_json(tmp_path / name, tree)
  assert refusal(read, tmp_path) is None


@pytest.mark.parametrize('damage', DAMAGES)
@EACH
def test_a_damaged_file_is_named_with_the_cure(tmp_path, reader, damage):
  name, _, read = READERS[reader]
  (tmp_path / name).write_bytes(DAMAGES[damage])
  said = refusal(read, tmp_path)
  assert said is not None and name in said and 'is damaged: ' in said
  assert len(said) < 400


GONE = object()
# Whatever else JSON may hold in place of a value, and nothing at all, by name.
OTHERS = {
  **{ascii(value): value for value in (*VALUES, 7, -3, 1e300, math.nan, -math.inf)},
  'gone': GONE,
}
ANY_TEXT = {"'text'"}
SHARE, AMOUNT = {'None', '0.5', 'gone'}, {'None', '0.5', 'gone', '7', str(10**30)}
OF_AGENT = {'None', '0.5'}  # Which a pre-training has all of.
# Digests are unknown in runs of old.
DIGESTS = {'[]', 'gone', "['a', 'a']"}
IMAGES_MAY = {
  **{name: ANY_TEXT for name in ('dataset', 'train.#', 'validation.#', 'run', 'digests.#')},
  'digests': DIGESTS,
}
SCORES_MAY = {
  'dice': SHARE,
  'hd95': AMOUNT,
  'images': {'7', 'gone'},
  'dice_by_class': {'gone'},
  'dice_by_class.cup': SHARE,
  'dice_by_class.disc': SHARE,
}


def within(place, table):
  return {f'{place}.{name}': values for name, values in table.items()}


# What is no damage, since it is optional, or since any other text or number might stand there: by
# reader and place, # for each item of a list. Nothing else is let pass.
MAY = {
  # Fields that a config lacks are those of a later version, and a run of old has no workdir.
  'run to be read': {'workdir': {"'text'", 'gone'}, 'config.data': {'gone'}},
  'run to be resumed': {'workdir': {"'text'", 'gone'}, 'config.data': {'gone'}},
  'summary': {
    'name': ANY_TEXT,
    'class_names': {'[]'},
    'class_names.#': {"'text'", 'gone'},
    'splits.train': {'gone'},
    **within('splits.train', {name: {'7'} for name in ('images', 'masks', 'labels')}),
    'trained_on': {'7'},
  },
  # That they are as many as the network has outputs is seen with its weights.
  'classes': {'#': {"'text'", 'gone'}},
  'images to be scored': {
    **within('own', IMAGES_MAY),
    'origins': {'[]'},
    'origins.#': {'gone'},
    **within('origins.#', IMAGES_MAY),
  },
  'images of a start': {**within('own', IMAGES_MAY), 'origins': {'[]'}},
  'images of a grid': {'images': {'gone'}, **within('images', {name: {'gone'} for name in NAMES})},
  'evaluation': {
    'stage': ANY_TEXT,
    'split': ANY_TEXT,
    'threshold': {'0.5'},
    **SCORES_MAY,
  },
  'results from elsewhere': {
    'cells': {'[]'},
    'cells.#': {'gone'},
    'cells.#.method': ANY_TEXT,
    'cells.#.labels': {'7'},
    'cells.#.seed': {'7'},
    **within('cells.#', SCORES_MAY),
    'cells.#.per_image.dice.#': {'None', '0.5'},
    'pretrainings': {'[]'},
    'pretrainings.#': {'gone'},
    'pretrainings.#.method': ANY_TEXT,
    'pretrainings.#.seed': {'7'},
    'pretrainings.#.difficulty_rank_correlation': OF_AGENT | {'-1'},
    'pretrainings.#.hardness_ratio': AMOUNT - {'gone'},
    'pretrainings.#.border_lift': AMOUNT - {'gone'},
    'pretrainings.#.mask_ratio': OF_AGENT,
  },
}
# What is sound by itself, and of another run than that in hand: the line names the folder.
OF_ANOTHER = ('holds a text run', 'holds a grid that began with other images')


def places(node, path=()):
  for key in list(node) if isinstance(node, dict) else range(len(node)):
    yield (*path, key)
    if isinstance(node[key], dict | list):
      yield from places(node[key], (*path, key))


@EACH
def test_a_wrong_value_is_refused_in_a_line_that_names_the_file(tmp_path, reader):
  """Every value of every file by everything else that JSON may hold, and by nothing."""
  name, tree, read = READERS[reader]
  passed = collections.defaultdict(set)
  for *nodes, last in places(tree):
    if nodes[:1] == ['config'] and len(nodes) > 1:  # See tests/config/test_paths.py.
      continue
    for other, value in OTHERS.items():
      parent = functools.reduce(operator.getitem, nodes, changed := copy.deepcopy(tree))
      if value is GONE:
        del parent[last]
      else:
        parent[last] = value
      (tmp_path / name).write_text(json.dumps(changed))
      if (said := refusal(read, tmp_path)) is None:
        where = ('#' if isinstance(key, int) else key for key in (*nodes, last))
        passed['.'.join(where)].add(other)
      else:
        assert name in said or any(words in said for words in OF_ANOTHER), said
  assert passed == MAY[reader]


@pytest.mark.parametrize('kind', ['folder', 'no permission', 'I/O error'])
@EACH
def test_what_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch, reader, kind):
  name, tree, read = READERS[reader]
  if kind == 'folder':
    (tmp_path / name).mkdir()
  else:
    write_json(tmp_path / name, tree)
    number = 13 if kind == 'no permission' else 5

    def refuse(*_, **__):
      raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'open', refuse)
  said = refusal(read, tmp_path)
  assert said is not None and name in said and 'damaged' not in said
  assert re.search(r'must be a file|is no file|Permission denied|Input/output error', said)


@pytest.mark.parametrize(
  ('change', 'place'),
  [
    ({'dice': 7}, r"cells\[0\]\['dice'\] is 7"),
    ({'iou': -0.5}, r"cells\[0\]\['iou'\] is -0.5"),
    ({'dice_by_class': {'cup': 3}}, r"cells\[0\]\['dice_by_class'\]"),
    ({'per_image': {'dice': [7, 0, 0]}}, r"cells\[0\]\.per_image\['dice'\]\[0\] is 7"),
    ({'per_image': {'dice': [0.5]}}, r'cells\[0\] has not one Dice for each image'),
    ({'per_image': {}}, r'cells\[0\] has not one Dice for each image'),
    ({'labels': -1}, r'cells\[0\]\.labels is -1'),
  ],
)
def test_scores_from_elsewhere_are_held_against_their_range(tmp_path, change, place):
  write_json(tmp_path / 'results.json', RESULTS | {'cells': [CELL | change]})
  with pytest.raises(UserError, match=rf'results\.json.* is damaged: {place}.*; leave it out'):
    results.read([str(tmp_path / 'results.json')], CONFIG, 'toy', NAMES)
  text = json.dumps(RESULTS).replace('"hd95": 3.5', '"hd95": Infinity')
  (tmp_path / 'results.json').write_text(text)
  with pytest.raises(UserError, match=r'is damaged: it holds Infinity; leave it out'):
    results.read([str(tmp_path / 'results.json')], CONFIG, 'toy', NAMES)


# What is made again.

ROW = {'dice': 0.5, 'tp': 3, 'hd95': 2.0, 'probability_x': 1.0}
TABLES = {
  'gone': None,
  'empty': b'',
  'head alone': b'image,dice\r\n',
  'half': b'image,dice\r\ni0,0.5\r\ni1,',
  'cut within a row': b'image,dice,iou\r\ni0,0.5,0.5\r\ni1,0.5',
  'fewer rows': b'image,dice\r\ni0,0.5\r\n',
  'other images': b'image,dice\r\ni0,1\r\ni1,1\r\nx,1\r\n',
  'an image twice': b'image,dice\r\ni0,1\r\ni1,1\r\ni2,1\r\ni2,1\r\n',
  'a longer row': b'image,dice\r\ni0,1\r\ni1,1,5\r\ni2,1\r\n',
  'no name': b'dice\r\n1\r\n1\r\n1\r\n',
  'no Dice': b'image,iou\r\ni0,1\r\ni1,1\r\ni2,1\r\n',
  'Dice of 7': b'image,dice\r\ni0,7\r\ni1,1\r\ni2,1\r\n',
  'infinite distance': b'image,dice,hd95\r\ni0,1,inf\r\ni1,1,1\r\ni2,1,1\r\n',
  'negative count': b'image,dice,tp\r\ni0,1,-4\r\ni1,1,1\r\ni2,1,1\r\n',
  'a million digits': b'image,dice,tp\r\ni0,1,' + b'9' * 10**6 + b'\r\n',
  'text': b'image,dice\r\ni0,high\r\ni1,1\r\ni2,1\r\n',
  'NUL': b'image,dice\r\ni0,1\r\ni1,1\r\ni2,1\r\n' + b'\0' * 512,
  'zeros': b'\0' * 4096,
  'Latin-1': b'image,dice\r\n\xe9,1\r\n',
  'UTF-16': 'image,dice\r\ni0,1\r\n'.encode('utf-16'),
  'open quote': b'image,dice\r\n"i0,1\r\ni1,1\r\ni2,1\r\n',
}


def finished_run(home, stage=SEGMENT):
  write_json(home / 'evaluation.json', EVALUATION | AGENT)
  per_image.write(home / 'per_image.csv', [{'image': name, 'group': 0, **ROW} for name in NAMES])
  return CellRun(stage, CONFIG, home)


@pytest.mark.parametrize('damage', TABLES)
def test_a_cell_whose_table_is_damaged_is_scored_again(tmp_path, damage):
  run, path = finished_run(tmp_path), tmp_path / 'per_image.csv'
  assert cells.is_finished(run, DATA)
  path.unlink() if TABLES[damage] is None else path.write_bytes(TABLES[damage])
  said = cells.unfinished(run, DATA)
  assert said.startswith(str(path)) and said.endswith('; score the run again')
  assert '\n' not in said and len(said) < 300
  assert cells.unfinished(run._replace(stage=PRETRAIN), DATA) is None  # Which has no table.


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_cell_whose_scores_are_damaged_is_scored_again(tmp_path, damage):
  run = finished_run(tmp_path)
  (tmp_path / 'evaluation.json').write_bytes(DAMAGES[damage])
  assert 'evaluation.json is damaged: ' in cells.unfinished(run, DATA)
  (tmp_path / 'evaluation.json').unlink()
  assert cells.unfinished(run, DATA) == ''


@pytest.mark.parametrize(
  'change',
  [
    *({'dice': value} for value in (7, -0.5, 'text', [0.5], {'cup': 0.5})),
    *({'images': value} for value in (-1, 0.5, None, '3')),
    *({'dice_by_class': value} for value in (0.5, None, {'cup': 7}, {'cup': {'x': 0.5}})),
    *({'hd95_mm': -1}, {'threshold': 2}, {'threshold': None}, {'split': 3}, {'stage': None}),
  ],
  ids=ascii,
)
def test_a_cell_whose_scores_are_wrong_is_scored_again(tmp_path, change):
  run = finished_run(tmp_path)
  write_json(tmp_path / 'evaluation.json', EVALUATION | AGENT | change)
  said = cells.unfinished(run, DATA)
  assert re.search(rf'/evaluation\.json is damaged: .*{next(iter(change))}.* is ', said)


def test_a_pre_training_without_all_its_scores_is_scored_again(tmp_path):
  run = finished_run(tmp_path, PRETRAIN)
  write_json(tmp_path / 'evaluation.json', EVALUATION)
  assert 'difficulty_rank_correlation is missing' in cells.unfinished(run, DATA)


def test_a_cell_whose_scores_cannot_be_read_is_not_scored_again(tmp_path, monkeypatch):
  run = finished_run(tmp_path)
  monkeypatch.setattr(os, 'open', lambda *_, **__: (_ for _ in ()).throw(OSError(5, 'EIO')))
  with pytest.raises(UserError, match=r'evaluation\.json cannot be read') as caught:
    cells.unfinished(run, DATA)
  assert not isinstance(caught.value, Damaged)


LINES = [{'step': step, 'loss': step / 2, 'lr': None} for step in (2, 4, 6, 8)]
WRONG_LINES = {
  **DAMAGES,
  'no step': b'{"loss": 1}',
  **{
    f'step {value}': f'{{"step": {value}}}'.encode()
    for value in ('"2"', '-1', '0.5', 'true', 'null', '[2]', '1e30', '9223372036854775808')
  },
  **{
    f'loss {value}': f'{{"step": 2, "loss": {value}}}'.encode()
    for value in ('"1"', 'true', 'NaN', '-Infinity', '1e999', '[1]', '{"a": 1}')
  },
}


@pytest.mark.parametrize('damage', WRONG_LINES)
def test_damaged_lines_of_the_metrics_are_left_out_and_the_others_kept(tmp_path, capsys, damage):
  data = WRONG_LINES[damage]
  path = tmp_path / metrics_log.FILE
  first, second, third, last = (json.dumps(line).encode() + b'\n' for line in LINES)
  path.write_bytes(first + data.replace(b'\n', b'') + b'\n' + second + third + last)
  assert metrics_log.read(tmp_path) == LINES
  with metrics_log.open_at(path, 6) as file:
    file.write('next\n')
  assert path.read_bytes() == first + second + third + b'next\n'
  assert capsys.readouterr().err == f'{path}: damaged lines, left out: 1\n' * 2


@pytest.mark.parametrize('tail', [b'{"step": 8, "lo', b'\0' * 100, b'\xff', b'{"step": 8}'])
def test_the_half_written_last_line_goes_without_a_word(tmp_path, capsys, tail):
  path = tmp_path / metrics_log.FILE
  whole = b''.join(json.dumps(line).encode() + b'\n' for line in LINES[:3])
  path.write_bytes(whole + tail)
  metrics_log.open_at(path, 6).close()
  assert path.read_bytes() == whole and not capsys.readouterr().err


def test_metrics_that_are_gone_begin_anew(tmp_path):
  assert metrics_log.read(tmp_path) == []
  metrics_log.open_at(tmp_path / metrics_log.FILE, 4).close()
  assert (tmp_path / metrics_log.FILE).read_bytes() == b''


SNAPSHOTS = {
  'empty': lambda _: b'',
  'zeros': lambda _: b'\0' * 500,
  'text': lambda _: b'no archive',
  'pickle': lambda _: b'\x80\x04N.',
  'half': lambda data: data[: len(data) // 2],
  'nearly whole': lambda data: data[:-10],
  'one bit': lambda data: data[:70] + bytes([data[70] ^ 1]) + data[71:],
}


@pytest.mark.parametrize('damage', SNAPSHOTS)
def test_a_damaged_snapshot_is_left_out(tmp_path, capsys, damage):
  for step in (1, 2, 3):
    snapshots.write(tmp_path, step, {'policy': np.full((2, 4, 4), step / 4, np.float32)})
  path = tmp_path / 'snapshots' / '2.npz'
  path.write_bytes(SNAPSHOTS[damage](path.read_bytes()))
  (tmp_path / 'snapshots' / 'mine.npz').write_bytes(b'')
  back = snapshots.read(tmp_path)
  assert list(back) == [1, 3] and (back[3]['policy'] == 0.75).all()
  said = capsys.readouterr().err
  assert f'{path} is damaged, and left out (' in said and said.count('\n') == 2


@pytest.mark.parametrize('name', ['-1', '1_0', '01', ' 1', '1.5', '\u0663', 'mine'])
def test_a_snapshot_of_no_step_is_left_out(tmp_path, capsys, name):
  snapshots.write(tmp_path, 1, {'policy': np.zeros((2, 4, 4), np.float32)})
  path = tmp_path / 'snapshots' / f'{name}.npz'
  path.write_bytes(path.with_name('1.npz').read_bytes())
  assert list(snapshots.read(tmp_path)) == [1]
  assert f'{path} is damaged, and left out (' in capsys.readouterr().err


def test_a_grid_is_not_claimed_where_its_file_is_damaged(tmp_path):
  directory.claim(tmp_path, REPRODUCE, CONFIG)
  (tmp_path / 'run.json').write_bytes(b'\0' * 100)
  with pytest.raises(UserError, match=r'run\.json is damaged: .*; restore it, or choose another'):
    directory.claim(tmp_path, REPRODUCE, CONFIG)
  assert (tmp_path / 'run.json').read_bytes() == b'\0' * 100
