"""What a folder holds that is to be predicted, and what is said of the rest."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ahm_jax.errors import UserError
from ahm_jax.predict import listing
from ahm_jax.predict.listing import Listing, cases_of, list_images, look_alikes, stem


def draw(path, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.zeros((4, 5), np.uint8)).save(path, **options)


def write_dicom(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(bytes(128) + b'DICM' + bytes(200))


def link(path, target):
  path.symlink_to(target)


def linked_folder(path):
  draw(path.parent.parent / 'elsewhere/b.png')
  path.symlink_to(path.parent.parent / 'elsewhere')


def open_socket(path):
  with socket.socket(socket.AF_UNIX) as own:
    own.bind(str(path))


IMAGE, OTHER, HIDDEN = 'image', 'other', 'hidden'


@pytest.mark.parametrize(
  ('name', 'make', 'kind'),
  [
    ('B.PNG', draw, IMAGE),
    ('deep/er/b.tif', draw, IMAGE),
    ('b.png/c.png', draw, IMAGE),  # Folders may be called as they like.
    ('IM0001', write_dicom, IMAGE),
    ('1.2.840.113619.2.55', write_dicom, IMAGE),
    ('scan.IMA', write_dicom, IMAGE),
    ('scan.dcm', write_dicom, IMAGE),
    ('scan.gif', write_dicom, IMAGE),  # Whatever it is called.
    ('sub/00000001', write_dicom, IMAGE),
    ('pipe.png', os.mkfifo, IMAGE),  # Has a row that says so, as has a link to nothing.
    ('b.png', lambda path: link(path, 'nothing'), IMAGE),
    ('b.png', lambda path: link(path, 'a.png'), IMAGE),
    ('pipe', os.mkfifo, OTHER),
    ('socket', open_socket, OTHER),
    ('broken', lambda path: link(path, 'nothing'), OTHER),
    ('x.gif', draw, OTHER),
    ('x.heic', lambda path: path.write_bytes(b'    ftypheic'), OTHER),
    ('notes.txt', lambda path: path.write_text('notes'), OTHER),
    ('README', lambda path: path.write_text('x' * 500), OTHER),
    ('empty', lambda path: path.touch(), OTHER),
    ('images.zip', lambda path: path.write_bytes(b'PK'), OTHER),
    ('.DS_Store', lambda path: path.touch(), HIDDEN),
    ('.cache/b.png', draw, HIDDEN),
  ],
)
def test_every_file_is_an_image_or_named_as_passed_over(tmp_path, name, make, kind):
  root = tmp_path / 'new'
  draw(root / 'a.png')
  make(root / name)
  found = list_images(root)
  assert (name in found.images, name in found.passed_over) == (kind == IMAGE, kind == OTHER)
  assert 'a.png' in found.images and len(found.images) + len(found.passed_over) <= 2


def test_a_file_of_any_name_is_opened_once_to_list_it(tmp_path, monkeypatch):
  for name in ('IM0001', 'IM0002', 'sub/scan.gif'):
    write_dicom(tmp_path / name)
  (tmp_path / 'notes.txt').write_text('x' * 500)
  opened = []
  before = Path.open
  monkeypatch.setattr(
    Path, 'open', lambda self, *args, **named: opened.append(self) or before(self, *args, **named)
  )
  assert list_images(tmp_path) == Listing(['IM0001', 'IM0002', 'sub/scan.gif'], ['notes.txt'])
  assert len(opened) == len(set(opened)) == 4


def test_links_to_folders_are_named(tmp_path):
  draw(tmp_path / 'new/a.png')
  linked_folder(tmp_path / 'new/linked')
  assert list_images(tmp_path / 'new') == Listing(['a.png'], ['linked/ (a link)'])


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
  (tmp_path / 'x.gif').touch()
  with pytest.raises(UserError, match=r'holds no image; .* or DICOM of any name; it holds 1 \(x'):
    list_images(tmp_path)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path, monkeypatch):
  draw(tmp_path / 'a.png')
  draw(tmp_path / 'sub/b.png')
  scan = os.scandir

  def refused(path):
    if str(path).endswith('sub'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(listing.os, 'scandir', refused)
  with pytest.raises(UserError, match=r'sub cannot be listed \(Permission denied\); make it'):
    list_images(tmp_path)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('sub.dir/a.png', 'sub.dir/a'),
    ('scan.nii.gz', 'scan'),
    ('IM0001', 'IM0001'),
    ('sub.dir/IM0001', 'sub.dir/IM0001'),
    ('1.2.840.7', '1.2.840.7'),
    ('a.b.png', 'a.b'),
  ],
)
def test_what_is_made_is_called_as_its_image(name, expected):
  assert stem(name) == expected


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (['a.png', 'b.png'], None),
    (['A.png', 'a.jpg'], ('A.png', 'a.jpg')),
    (['sub/a.png', 'Sub/a.png'], ('sub/a.png', 'Sub/a.png')),
    (['\u00e4.png', 'a\u0308.png'], ('\u00e4.png', 'a\u0308.png')),
  ],
)
def test_names_that_some_file_systems_take_for_one(names, expected):
  assert look_alikes(names) == expected


def test_cases_of_several_modalities(tmp_path):
  names = ['b.nii.gz', 'P2.5_0000.png', 'sub/P1_0001.tif', 'sub/P1_0000.png', 'P2.5_0001.png']
  found = cases_of(tmp_path, names, ('t1', 't2'))
  assert {name: [file.name for file in case.files] for name, case in found.items()} == {
    'P2.5': ['P2.5_0000.png', 'P2.5_0001.png'],
    'b.nii.gz': ['b.nii.gz'],
    'sub/P1': ['P1_0000.png', 'P1_0001.tif'],
  }
  assert list(found) == sorted(found)
  assert found['sub/P1'].first == tmp_path / 'sub/P1_0000.png'


@pytest.mark.parametrize(
  ('names', 'said'),
  [
    (['a_0000.png', 'a_0002.png'], 'a_0002.png is numbered 0002'),
    (['a_0000.png', 'a.tif'], r'a\.tif and .*a_0000\.png are of one case'),
    (['a_0000.png', 'a.png_0000.png'], 'would have the same mask'),
    (['a.png_0000.tif', 'a.png'], 'would have the same mask'),
  ],
)
def test_cases_that_are_refused(tmp_path, names, said):
  with pytest.raises(UserError, match=said) as error:
    cases_of(tmp_path, names, ('t1', 't2'))
  assert '\n' not in str(error.value)
