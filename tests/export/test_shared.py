"""What leaves in an export is text and nothing else, and tells nothing of this machine."""

import dataclasses
import functools
import json
import re

import jax
import jax.export
import numpy as np
import pytest

from ahm_jax.config import (
  Config,
  DataConfig,
  GridConfig,
  ModelConfig,
  from_config_dict,
  paths,
  to_dict,
  tree,
)
from ahm_jax.export import card, shared
from ahm_jax.pipeline.stages import CLASSIFY, SEGMENT
from ahm_jax.runs.trained import EXPORT, Trained

HOSTILE = (
  *('a | b', 'a\nb', '\r\n# Heading', '`code`', '```\nfence', '<script>alert(1)</script>'),
  *(
    '<img src=x onerror=y>',
    '[link](javascript:alert(1))',
    '![i](http://x/y.png)',
    '[a]: http://x',
  ),
  *('**bold**', '__init__', '_a_', '~~gone~~', '&lt;b&gt;', '$x$', '\\', '\\|', '\u2028# a', '\0'),
  *('\u202egnp', '\x1b[31m', '\ud800', 'a\u0085b', '<!-- ', '\t', '   - a'),
)
SOUND = ('CC-BY-4.0', 'basal_cell', 'naevus, melanoma', 'Größe 3-5 mm', 'x (y)', 'a/b', '色素')
PATHS = {
  'data.root': '/home/alice/lesions',
  'data.prepared_dir': '/scratch/alice/prepared',
  'init_from': '/home/alice/runs/pretrain_50',
  'model.vgg_weights': '~alice/vgg16.npz',
  'grid.results': '/home/alice/other/results.json',
}


def unescaped(line):
  return re.sub(r'\\(.)', r'\1', line)


@pytest.mark.parametrize('text', HOSTILE, ids=ascii)
def test_of_a_text_nothing_is_a_mark(text):
  line = shared.plain(text)
  assert not re.search(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800]', line)
  bare = re.sub(r'\\.', '', line)
  assert not re.search(r'[\\`*\[\]<>|&~$]', bare) and not re.search(r'\b_|_\b', bare.strip('_'))
  line.encode()


@pytest.mark.parametrize('text', SOUND)
def test_what_is_plain_stays_as_it_is(text):
  assert shared.plain(text) == text


def test_what_is_escaped_is_read_as_it_was():
  assert unescaped(shared.plain('a|b `c` <d> [e](f) __g__ h\\i')) == 'a|b `c` <d> [e](f) __g__ h\\i'


def private(stage, path, **data):
  config = Config(
    init_from=PATHS['init_from'],
    data=DataConfig(
      name='folder',
      root=PATHS['data.root'],
      prepared_dir=PATHS['data.prepared_dir'],
      image_size=32,
      **data,
    ),
    model=ModelConfig(
      unet_width=2, vgg_width=2, vgg_hidden=8, vgg_weights=PATHS['model.vgg_weights']
    ),
    grid=GridConfig(results=(PATHS['grid.results'],)),
  )
  variables = {'params': {'a': np.ones(3, np.float32)}}
  return Trained(path, stage, config, 7, variables, tuple(HOSTILE) if stage is CLASSIFY else ())


@pytest.mark.parametrize('stage', [SEGMENT, CLASSIFY])
def test_a_card_of_hostile_texts_has_the_lines_of_a_plain_one(tmp_path, stage):
  trained = private(stage, tmp_path / 'alice')
  known = [
    {
      'data': {
        'name': text,
        'splits': {text: {'images': 1, 'masks': 1, 'labels': 1}},
        'trained_on': 1,
      },
      'scores': {'split': text, 'values': {text: 0.5}, 'intervals': {text: [0.1, 0.9]}},
    }
    for text in ('plain', '\n'.join(HOSTILE))
  ]
  facts = {'format': 'npz', 'versions': {'python': '3'}, 'notes': {'files': '`weights.npz`'}}
  cards = [
    card.text(trained, facts | {'licence': licence}, held)
    for licence, held in zip(('plain', '\n'.join(HOSTILE)), known, strict=True)
  ]
  one, other = (text.split('\n') for text in cards)
  assert len(one) == len(other)
  start = re.compile(r'- [^:]*:|\| |#+ |```|')
  for ours, theirs in zip(one, other, strict=True):
    if ours != theirs:
      assert start.match(ours)[0][:2] == start.match(theirs)[0][:2]
    bare = re.sub(r'\\.', '', theirs)
    assert '<' not in bare and (bare.count('|') in (0, 4) or ours == theirs)


@pytest.mark.parametrize('stage', [SEGMENT, CLASSIFY])
def test_no_path_of_this_machine_leaves(tmp_path, stage):
  trained = private(stage, tmp_path / 'alice')
  home = tmp_path / 'out'
  home.mkdir()
  card.write(trained, home, {'format': 'orbax', 'licence': 'é', 'versions': {}, 'notes': {}})
  for name in (card.CARD, EXPORT):
    text = (home / name).read_text(encoding='utf-8')
    assert 'alice' not in text and str(tmp_path) not in text
    assert 'vgg16.npz' in text and 'pretrain_50' in text
  if stage is CLASSIFY:
    line = '- started from: vgg16.npz, of images scaled as (value / 255 - 0.5) / 0.25\n'
    assert line in (home / card.CARD).read_text()
  config = shared.without_paths(trained.config)
  told = json.loads((home / EXPORT).read_text())
  assert told['config']['data']['root'] == config.data.root == ''
  assert dataclasses.replace(config.model, vgg_weights='') == dataclasses.replace(
    trained.config.model, vgg_weights=''
  )


def test_no_field_keeps_a_folder():
  hidden = '/home/alice/name'
  given = [leaf.name for leaf in tree.leaves(Config()) if paths.local in leaf.notes]
  assert {'segment.unlabelled.teacher', 'data.labelled_from', 'data.root'} <= {*given}
  told = to_dict(Config())
  for name in given:
    *sections, last = name.split('.')
    functools.reduce(dict.__getitem__, sections, told)[last] = hidden
  told['grid'] |= {
    'results': (hidden,),
    'methods': (f'scratch:segment.unlabelled.teacher={hidden}',),
    'variants': {'scratch_b': {'strategy': 'scratch', 'init_from': hidden}},
  }
  config = from_config_dict(told)
  assert str(config).count('alice') == len(given) + 3
  assert 'alice' not in str(shared.without_paths(config))
  assert shared.without_paths(config).segment.unlabelled.teacher == 'name'
  assert shared.without_paths(Config()) == Config()


def test_a_program_names_its_source_files_without_their_folders():
  def program(x):
    return jax.numpy.sin(x) * 2

  shape = jax.ShapeDtypeStruct((3,), np.float32)
  before = jax.config.jax_hlo_source_file_canonicalization_regex
  with shared.without_source_folders():
    told = jax.export.export(jax.jit(program))(shape).serialize()
  folder = __file__.rpartition('/')[0].encode()
  assert folder not in told and b'site-packages' not in told and b'test_shared.py' in told
  assert jax.config.jax_hlo_source_file_canonicalization_regex == before
  assert folder in jax.export.export(jax.jit(lambda x: program(x)))(shape).serialize()
