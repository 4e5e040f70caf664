"""Folders that were made to mislead: odd names, links that lead out, tables that are none.

And that nothing is unpickled.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ahm_jax
from ahm_jax.config import DataConfig
from ahm_jax.data import dataset
from ahm_jax.errors import UserError


def save(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(
    np.zeros((16, 16, 3), np.uint8) if path.parent.name == 'images' else np.eye(16, dtype=bool)
  ).save(path)
  return path


@pytest.fixture
def root(tmp_path):
  """Images a and b with masks, in a folder beside which there is another one."""
  for name in 'ab':
    save(tmp_path / 'set' / 'images' / f'{name}.png')
    save(tmp_path / 'set' / 'masks' / f'{name}.png')
  save(tmp_path / 'elsewhere' / 'images' / 'c.png')
  return tmp_path / 'set'


def load(root, **fields):
  config = DataConfig(
    name='folder', root=str(root), image_size=16, split_fractions=(1.0, 0.0, 0.0), **fields
  )
  return dataset.load(config, root.parent / 'work')


def refused(root, pattern):
  with pytest.raises(UserError) as caught:
    load(root)
  message = str(caught.value)
  assert re.search(pattern, message), message
  assert message.isprintable() and len(message) < 2000, message


# Names.


@pytest.mark.parametrize(
  'name', ['a\nb', 'a\rb', 'a\x1b[2Jb', 'a\tb', 'a\x7fb', 'a\u2028b', 'a\u202egnp.b', 'a\x85b']
)
def test_names_with_control_characters(root, name):
  save(root / 'images' / f'{name}.png')
  refused(
    root, r'images/a\\.*b\.png has control characters in its name, shown as \\x\.\.; rename it'
  )


def test_names_that_are_not_text(root):
  shutil.copy(root / 'images' / 'a.png', os.fsencode(root / 'images') + b'/x\xff.png')
  refused(root, r'images/x\\udcff\.png has control characters in its name')


@pytest.mark.parametrize(
  'name',
  ['naïve ß 漢字', 'a b', '=1+1', '<img src=x onerror=alert(1)>', "it's", 'a..b', '%n%s', '$(x)'],
)
def test_names_that_are_only_unusual_are_taken_as_they_are(root, name):
  save(root / 'images' / f'{name}.png')
  save(root / 'masks' / f'{name}.png')
  (root / 'labels.csv').write_text(f'image,label\na,=cmd\n"{name}",@x\n', encoding='utf-8')
  data = load(root)
  assert name in data.splits['train'].ids
  assert data.class_names == ('=cmd', '@x')
  assert not (root.parent / 'x').exists()


# Links.


def test_a_link_that_leads_out(root):
  (root / 'images' / 'c.png').symlink_to(root.parent / 'elsewhere' / 'images' / 'c.png')
  refused(root, r'images/c\.png is a link that leads out of the folder; put a copy in its place')


def test_a_link_that_leads_out_by_a_link_within(root):
  (root / 'inner').symlink_to(root.parent / 'elsewhere')
  (root / 'images' / 'c.png').symlink_to(Path('../inner/images/c.png'))
  refused(root, r'images/c\.png is a link that leads out')


@pytest.mark.parametrize('part', ['images', 'masks'])
def test_a_folder_that_is_a_link_out(root, part):
  shutil.rmtree(root / part)
  (root / part).symlink_to(root.parent / 'elsewhere' / 'images')
  refused(root, f'set: {part} is a link that leads out of the folder')


def test_a_table_that_is_a_link_out(root):
  (root.parent / 'secret.csv').write_text('image,label\na,secret\n')
  (root / 'labels.csv').symlink_to(root.parent / 'secret.csv')
  refused(root, r'set: labels\.csv is a link that leads out of the folder')


def test_links_to_nothing_and_in_a_ring(root):
  (root / 'images' / 'c.png').symlink_to(root / 'gone.png')
  (root / 'images' / 'd.png').symlink_to(root / 'images' / 'e.png')
  (root / 'images' / 'e.png').symlink_to(root / 'images' / 'd.png')
  refused(
    root,
    r'images/c\.png is a link to nothing; repair it or remove it; images/d\.png is a link to '
    r'nothing',
  )


def test_links_within_are_fine_and_the_folder_itself_may_be_one(root, tmp_path):
  save(root / 'store' / 'images' / 'x.png')
  (root / 'images' / 'c.png').symlink_to(Path('../store/images/x.png'))
  (root / 'images' / 'd.png').symlink_to(root / 'images' / 'a.png')
  (tmp_path / 'alias').symlink_to(root)
  assert (
    load(root).splits['train'].ids
    == load(tmp_path / 'alias').splits['train'].ids
    == ('a', 'b', 'c', 'd')
  )


def test_pipes_and_devices_are_left_alone(root):
  """Reading a pipe would wait for ever."""
  os.mkfifo(root / 'images' / 'c.png')
  (root / 'images' / 'd.png').symlink_to(root / 'images' / 'c.png')
  refused(root, r'images/d\.png is a link to what is not a file; remove it')
  (root / 'images' / 'd.png').unlink()
  assert load(root).splits['train'].ids == ('a', 'b')


# labels.csv.


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      b'image,label\na,x\0y\n',
      r'cannot be read as comma-separated UTF-8 text \(it holds NUL, as UTF-16 does\); save it '
      r'as such',
    ),
    (
      'image,label\na,x\n'.encode('utf-16-le'),
      r'cannot be read as comma-separated UTF-8 text \(it holds NUL',
    ),
    (
      'image,label\na,é\n'.encode('latin-1'),
      r'cannot be read as comma-separated UTF-8 text \(.*; save it as such',
    ),
    (
      b'image,label\na,' + b'x' * 200_000 + b'\n',
      r'cannot be read as .*field larger than field limit',
    ),
    (b'x' * 200_000, r'cannot be read as .*field larger than field limit'),
    (b'x' * 100_000 + b'\n', 'has no column image, only '),
    (b'y,' * 50_000 + b'\n', 'has no column image, only '),
    (
      b'image,label\na,' + b'x' * 2000 + b'\n',
      r"line 2: label 'x+\.\.\.' has control characters or over 1000 letters; correct it",
    ),
    (b'image,label\na,"x\ny"\n', r"line 3: label 'x\\ny' has control characters"),
    (b'image,group\na,\x1b[2J\n', r"line 2: group '\\x1b\[2J' has control characters"),
    (b'image,label,label\na,x,y\n', r"has the column 'label' twice; keep one of them"),
    (b'image,label\n' + b'q' * 900 + b',x\n', r"line 2 names 'q+\.\.\.', which is not in images/"),
    (b'image,split\na,' + b's' * 900 + b'\n', r"split of 'a' is 's+\.\.\.'; it may be train"),
    (b'image,label\n../b,x\n', r"'\.\./b' is not an image name; write the bare name"),
  ],
)
def test_tables_that_mislead(root, content, message):
  (root / 'labels.csv').write_bytes(content)
  refused(root, message)


def test_a_table_that_is_no_file_or_too_large(root):
  os.mkfifo(root / 'labels.csv')
  refused(root, r'labels\.csv: is not a file of at most 67108864 bytes')
  (root / 'labels.csv').unlink()
  (root / 'labels.csv').mkdir()
  refused(root, r'labels\.csv: is not a file of at most')
  (root / 'labels.csv').rmdir()
  with (root / 'labels.csv').open('wb') as file:
    file.truncate(2**26 + 1)
  refused(root, r'labels\.csv: is not a file of at most')


# Pickles.


def test_nothing_is_unpickled():
  """Unpickling runs what a file says.

  np.load does so for arrays of objects, unless it is told not to, and by default is.
  """
  package = Path(ahm_jax.__file__).parent
  sources = {
    path: path.read_text(encoding='utf-8')
    for path in [*package.rglob('*.py'), *package.parent.glob('launch/*.py')]
  }
  assert len(sources) > 40
  for path, text in sources.items():
    assert not re.search(
      r'^\s*(import|from) +(pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal)\b',
      text,
      re.M,
    ), path
    for call in re.finditer(r'\b(?:np|numpy|jnp)\.load\(', text):
      end = text.index(')', call.end())
      assert 'allow_pickle=False' in text[call.start() : end], (
        f'{path}: {text[call.start() : end + 1]}'
      )
    assert 'allow_pickle=True' not in text and 'read_pickle' not in text, path


def test_a_pickled_array_is_refused(tmp_path, capsys):
  from ahm_jax.runs import snapshots

  folder = tmp_path / 'snapshots'
  folder.mkdir()
  np.savez(folder / '0000000001.npz', policy=np.array([{'a': 1}], object))
  assert snapshots.read(tmp_path) == {}
  assert 'holds Python objects' in capsys.readouterr().err
