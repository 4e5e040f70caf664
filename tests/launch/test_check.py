"""prepare_data --check as a user types it: what it prints and writes, how it ends, and that it
leaves the data alone.
"""

import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ahm_jax.report import data_page

CHECK = ('prepare_data', '--config=configs/folder.py:cpu', '--check')


def digests(root) -> dict:
  return {
    path.relative_to(root): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    for path in root.rglob('*')
    if path.is_file()
  }


def check(commands, root, workdir, *flags):
  return commands.run(*CHECK, f'--config.data.root={root}', f'--workdir={workdir}', *flags)


class Page(html.parser.HTMLParser):
  """Collects a page's tags, sources and text, and makes sure that every tag is closed in its
  turn.
  """

  VOID = ('meta', 'link', 'img', 'br')

  def __init__(self, text):
    super().__init__()
    self.open, self.sources, self.tags, self.text = [], [], [], ''
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.sources += [value for name, value in attributes if name in ('src', 'href')]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


@pytest.fixture
def sound(own_folder):
  """The tiny folder of images, of which many look alike, with pictures of their own."""
  for index, path in enumerate(sorted((own_folder / 'images').iterdir())):
    height, width = np.asarray(Image.open(path)).shape[:2]
    noise = np.random.default_rng(index).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
  return own_folder


def test_a_set_without_errors_ends_with_0_and_is_left_alone(commands, sound, tmp_path):
  before = digests(sound)
  done = check(commands, sound, tmp_path / 'run')
  assert done.returncode == 0, done.stdout + done.stderr
  assert digests(sound) == before
  assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == ['check.html', 'check.json']
  lines = done.stdout.splitlines()
  assert lines[0] == 'lesions: 21 images'
  assert lines[2].split() == ['split', 'images', 'masks', 'labels', 'groups', 'a', 'b']
  assert [line.split() for line in lines[3:6]] == [
    ['train', '12', '10', '11', '12', '6', '5'],
    ['validation', '4', '4', '4', '4', '2', '2'],
    ['test', '5', '5', '5', '4', '3', '2'],
  ]
  assert 'warning: classes have fewer than 5 images in a split (4)' in lines
  assert not any(line.startswith('error') for line in lines)
  assert lines[-1].startswith(str(tmp_path / 'run' / 'check.html'))


def test_planted_faults_are_all_told_and_end_with_3(commands, sound, tmp_path):
  images, masks = sound / 'images', sound / 'masks'
  original = Image.open(images / 'train01.jpg')
  original.save(images / 'test15.jpg', quality=40)
  original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / 'validation11.jpg')
  original.resize((80, 90)).save(images / 'test16.jpg')
  for name in (
    'train02.jpg',
    'train04.jpg',
    'train05.jpg',
    'train07.jpg',
    'train08.jpg',
    'maskless.jpg',
  ):
    (images / name).write_bytes(b'no image')
  for name in ('validation11', 'test15', 'test16'):
    (masks / f'{name}.png').unlink()
  before = digests(sound)
  done = check(commands, sound, tmp_path / 'run')
  assert done.returncode == 3, done.stdout + done.stderr
  assert digests(sound) == before
  assert 'error: files cannot be read (6)' in done.stdout and '  and 1 more' in done.stdout
  found = {
    finding['code']: finding
    for finding in json.loads((tmp_path / 'run' / 'check.json').read_text())['findings']
  }
  assert len(found['unreadable']['cases']) == 6
  pairs = [sorted(case['images']) for case in found['near_duplicate_across_splits']['cases']]
  for copy in ('test15', 'validation11', 'test16'):
    assert sorted(['train01', copy]) in pairs
  flat = {name for pair in pairs for name in pair}
  assert flat == {'train01', 'test15', 'test16', 'validation11'}
  flipped = [
    case['text']
    for case in found['near_duplicate_across_splits']['cases']
    if 'validation11' in case['text']
  ]
  assert len(flipped) == 3 and all('flipped left to right' in line for line in flipped)


def test_the_file_for_programs_holds_every_image(commands, sound, tmp_path):
  check(commands, sound, tmp_path)
  held = json.loads((tmp_path / 'check.json').read_text())
  assert held['format'] == 1 and held['dataset'] == 'lesions' and len(held['images']) == 21
  row = next(row for row in held['images'] if row['name'] == 'test14')
  assert (row['split'], row['width'], row['height'], row['group']) == ('test', 68, 54, 'patient14')
  assert (
    row['sha256']
    == hashlib.sha256(next((sound / 'images').glob('test14.*')).read_bytes()).hexdigest()
  )
  assert row['coverage'] == [pytest.approx(np.pi * 0.3 * 0.25, abs=0.02)]
  assert re.fullmatch('[0-9a-f]{16}', row['perceptual_hash'])


def test_the_page_needs_nothing_else_and_names_are_escaped(commands, sound, tmp_path):
  evil = '<img src=x onerror=alert(1)>&"'
  for folder, suffix in (('images', '.png'), ('masks', '.png')):
    (sound / folder / f'train00{suffix}').rename(sound / folder / f'{evil}{suffix}')
  table = (
    (sound / 'labels.csv').read_text().replace('train00,', '"' + evil.replace('"', '""') + '",')
  )
  (sound / 'labels.csv').write_text(table.replace(',b,', ',<b>bold</b>,'))
  done = check(commands, sound, tmp_path)
  assert done.returncode == 0, done.stdout + done.stderr
  text = (tmp_path / 'check.html').read_text()
  page = Page(text)
  assert '<img src=x' not in text and '<b>' not in text and 'script' not in page.tags
  assert evil in page.text and '<b>bold</b>' in page.text
  assert all(source.startswith('data:') for source in page.sources)
  assert page.tags.count('img') >= 21
  assert not re.search('https?:', re.sub('data:[^"]*', '', text))


@pytest.mark.parametrize('name', ['a\x1b[31mred', 'two\nlines', 'caf\udce9'])
def test_names_that_are_no_text_are_escaped(commands, sound, tmp_path, name):
  for folder in ('images', 'masks'):
    (sound / folder / 'train00.png').rename(sound / folder / f'{name}.png')
  done = check(commands, sound, tmp_path)
  assert done.returncode == 3, done.stdout + done.stderr  # Its row has lost its image.
  assert '\x1b' not in done.stdout
  assert "labels.csv line 2 names 'train00', which is not in images/" in done.stdout
  Page((tmp_path / 'check.html').read_text())


def test_wrong_usage_ends_with_2(commands, sound, tmp_path):
  for root, workdir, message in (
    (tmp_path / 'nowhere', tmp_path / 'run', 'there is no folder images/'),
    (sound, sound, 'lies in the data folder'),
    (sound, sound / 'images', 'lies in the data folder'),
  ):
    done = check(commands, root, workdir)
    assert (
      (done.returncode, done.stdout) == (2, '')
      and message in done.stderr
      and done.stderr.count('\n') == 1
    )
  assert (
    commands.run(
      'segment', '--config=configs/smoke.py', '--check', f'--workdir={tmp_path}'
    ).returncode
    == 2
  )
  assert not (tmp_path / 'run').exists() and not (sound / 'check.json').exists()


def test_help_says_it(commands):
  text = ' '.join(commands.run('prepare_data', '--help').stdout.split())
  assert '--check ' in text and 'Exit code 3 where one of the findings is an error' in text


def test_phantoms_are_checked_too(commands, tmp_path):
  done = commands.run(
    'prepare_data', '--config=configs/smoke.py', f'--workdir={tmp_path}', '--check'
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.startswith('phantom: 104 images\n')


def test_a_process_of_its_own_ends_with_the_code(commands, sound, tmp_path):
  (sound / 'images' / 'train01.jpg').write_bytes(b'')
  done = commands.run(*CHECK, f'--config.data.root={sound}', f'--workdir={tmp_path / "run"}')
  assert done.returncode == 3
  assert 'images/train01.jpg is damaged or not an image' in done.stdout
  assert 'Traceback' not in done.stderr


def test_thumbnails_show_the_outline():
  mask = np.zeros((200, 100), np.uint8)
  mask[50:150, 25:75] = 1
  picture = np.asarray(
    Image.open(io.BytesIO(data_page.thumbnail(np.full((200, 100, 1), 90, np.uint8), mask)))
  )
  assert picture.shape == (112, 56, 3)
  assert (
    np.abs(picture[56, 28].astype(int) - 90).max() < 12
    and np.abs(picture[4, 4].astype(int) - 90).max() < 6
  )
  assert picture[56, 14, 2] > picture[56, 14, 0] + 60  # Cyan, blurred by JPEG.
