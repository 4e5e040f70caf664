"""From a folder of real files to a folder of real files, in this process."""

import csv
import json
import re
import shutil
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import ClassifyConfig, Config
from ahm_jax.errors import UserError
from ahm_jax.evaluation.masks import at_own_size
from ahm_jax.pipeline.stages import CLASSIFY
from ahm_jax.predict import run, stream, writing
from ahm_jax.predict.listing import list_images
from ahm_jax.predict.options import Options
from ahm_jax.predict.output import Output
from ahm_jax.predict.run import predict
from ahm_jax.runs.trained import Trained

NAMES = ['a.png', 'b.png', 'c.bmp', 'd.webp', 'e.tif', 'sub/a.png', 'sub/f.jpg']
HALF = Options(threshold=0.5)


def table(out):
  with (out / 'predictions.csv').open(newline='') as file:
    return {row['image']: row for row in csv.DictReader(file)}


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def files(out):
  """Every file but predict.json, by name."""
  found = {
    path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*') if path.is_file()
  }
  return {name: data for name, data in found.items() if name not in ('predict.json', '.lock')}


def by_hand(segmenter, path):
  """Probabilities at the size the network sees, of an image read by Pillow."""
  with Image.open(path) as image:
    small = np.asarray(image.convert('RGB').resize((16, 16), Image.Resampling.BICUBIC))
    size = image.size[::-1]
  return np.asarray(segmenter.probabilities(segmenter.variables, small[None]))[0], size


def middle(segmenter, root):
  """A threshold that some pixels of every image reach and some do not."""
  return float(np.median(by_hand(segmenter, root / 'b.png')[0]))


@pytest.mark.parametrize('batch_size', [3, 8])
def test_masks_are_the_thresholded_probabilities_at_the_images_own_size(
  segmenter, images, tmp_path, batch_size
):
  threshold = middle(segmenter, images)
  counts = predict(
    segmenter,
    images,
    tmp_path / 'out',
    Options(threshold, probabilities=True),
    batch_size=batch_size,
  )
  rows = table(tmp_path / 'out')
  assert counts == (7, 0) and list(rows) == NAMES
  for name in NAMES[:-1]:  # Of JPEG, decoders may give smaller images.
    found, size = by_hand(segmenter, images / name)
    own = at_own_size(found, size)
    mask = pixels(tmp_path / 'out' / rows[name]['mask'])
    assert mask.dtype == np.uint8 and mask.shape == size == (
      int(rows[name]['height']),
      int(rows[name]['width']),
    )
    sure = np.abs(own - threshold) > 1e-5
    np.testing.assert_array_equal(mask[sure], np.where(own >= threshold, 255, 0)[sure])
    written = pixels(tmp_path / 'out/probabilities' / rows[name]['mask'].removeprefix('masks/'))
    np.testing.assert_allclose(written / 65535, own, atol=2e-5)
    assert int(rows[name]['area_px']) == (mask > 0).sum()
    assert rows[name]['status'] == 'ok'
  assert 0 < int(rows['b.png']['area_px']) < 39 * 38
  assert rows['sub/f.jpg']['mask'] == 'masks/sub/f.png' and pixels(
    tmp_path / 'out/masks/sub/f.png'
  ).shape == (23, 84)


def test_several_classes_are_their_indices(make_segmenter, images, tmp_path):
  segmenter = make_segmenter(('spot', 'ring'))
  options = Options(0.5, probabilities=True, overlays=True)
  predict(segmenter, images, tmp_path / 'out', options)
  row = table(tmp_path / 'out')['b.png']
  found, size = by_hand(segmenter, images / 'b.png')
  own = np.stack([at_own_size(np.ascontiguousarray(found[..., k]), size) for k in range(3)], -1)
  mask = pixels(tmp_path / 'out/masks/b.png')
  assert mask.shape == size and (mask == own.argmax(-1)).mean() > 0.99
  for k, name in enumerate(('spot', 'ring'), 1):
    assert int(row[f'area_px_{name}']) == (mask == k).sum()
    written = pixels(tmp_path / f'out/probabilities/{name}/b.png') / 65535
    np.testing.assert_allclose(written, own[..., k], atol=2e-5)
  assert pixels(tmp_path / 'out/overlays/b.jpg').shape == (*size, 3)


@pytest.mark.parametrize('flips', [False, True])
def test_a_segmenter_tells_its_diagnoses_too(make_segmenter, images, tmp_path, capsys, flips):
  names = ('benign', 'malignant', 'other')
  segmenter = make_segmenter(diagnoses=names)
  predict(segmenter, images, tmp_path / 'out', Options(0.5, flips=flips))
  rows = table(tmp_path / 'out')
  with Image.open(images / 'b.png') as picture:
    small = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))[None]
  poses = [(), (1,), (2,), (1, 2)] if flips else [()]
  expected = np.mean(
    [segmenter.outputs(segmenter.variables, np.flip(small, axes))[1][0] for axes in poses], 0
  )
  row = rows['b.png']
  found = [float(row[f'class_probability_{name}']) for name in names]
  np.testing.assert_allclose(found, expected, atol=2e-6)
  assert expected.std() > 1e-3 and row['class'] == names[int(expected.argmax())]
  assert float(row['class_probability']) == max(found)
  plain = make_segmenter()
  assert len(plain.outputs(plain.variables, small)) == 1 and not plain.diagnoses
  capsys.readouterr()
  predict(segmenter, images, tmp_path / 'tiled', Options(0.5, tile=16))
  assert 'no diagnosis is told: --tile' in capsys.readouterr().err
  assert 'class_probability' not in table(tmp_path / 'tiled')['b.png']


def test_windows_and_flips(segmenter, images, tmp_path):
  """An image of one window is as without.

  Larger ones are the blended windows' own; flips average four passes.
  """
  predict(segmenter, images, tmp_path / 'plain', Options(0.5, probabilities=True))
  predict(segmenter, images, tmp_path / 'large', Options(0.5, probabilities=True, tile=1000))
  for name in NAMES[:-1]:
    place = f'probabilities/{name.rpartition(".")[0]}.png'
    np.testing.assert_array_equal(
      pixels(tmp_path / 'large' / place), pixels(tmp_path / 'plain' / place)
    )
  predict(segmenter, images, tmp_path / 'tiled', Options(0.5, probabilities=True, tile=16))
  image = pixels(images / 'b.png')
  corner = np.asarray(segmenter.probabilities(segmenter.variables, image[None, :16, :16]))[0]
  written = pixels(tmp_path / 'tiled/probabilities/b.png') / 65535
  np.testing.assert_allclose(written[0, 0], corner[0, 0], atol=2e-5)  # No other window covers it.
  predict(segmenter, images, tmp_path / 'flipped', Options(0.5, probabilities=True, flips=True))
  found, size = by_hand(segmenter, images / 'b.png')
  with Image.open(images / 'b.png') as picture:
    small = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))[None]
  poses = [found]
  for axes in ((1,), (2,), (1, 2)):
    poses.append(
      np.flip(np.asarray(segmenter.probabilities(segmenter.variables, np.flip(small, axes))), axes)[
        0
      ]
    )
  written = pixels(tmp_path / 'flipped/probabilities/b.png') / 65535
  np.testing.assert_allclose(
    written, at_own_size(np.mean(poses, 0, dtype=np.float32), size), atol=2e-5
  )


def test_overlays_show_the_border(tmp_path):
  mask = np.zeros((80, 120), bool)
  mask[20:60, 30:90] = True
  writing.write_overlay(tmp_path / 'overlay', np.full((40, 60, 3), 128, np.uint8), mask)
  shown = pixels(tmp_path / 'overlay').astype(int)
  assert shown.shape == (40, 60, 3)
  assert np.abs(shown[20, 30] - 128).max() < 20 and np.abs(shown[2, 2] - 128).max() < 20
  for row, column in ((10, 30), (29, 30), (20, 15), (20, 44)):
    assert shown[row, column, 0] > shown[row, column, 2] + 80  # Orange.


def test_overlays_are_no_larger_than_a_screen(segmenter, images, tmp_path):
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 2048, 3), np.uint8))
  picture.save(images / 'sub/f.jpg')
  predict(segmenter, images, tmp_path / 'out', Options(0.5, overlays=True))
  assert pixels(tmp_path / 'out/overlays/sub/f.jpg').shape == (150, 1024, 3)
  assert pixels(tmp_path / 'out/overlays/b.jpg').shape == (38, 39, 3)
  assert pixels(tmp_path / 'out/masks/sub/f.png').shape == (300, 2048)


# What is wrong with an image.


def spoil(images):
  (images / 'b.png').write_bytes((images / 'b.png').read_bytes()[:200])
  (images / 'g.dcm').write_bytes(b'no DICOM')
  shutil.copy(images / 'a.png', images / 'two\nlines.png')
  (images / 'outside.png').symlink_to('/etc/hostname')


def test_bad_files_have_a_row_and_the_others_a_mask(segmenter, images, tmp_path, capsys):
  spoil(images)
  counts = predict(segmenter, images, tmp_path / 'out', HALF)
  rows = table(tmp_path / 'out')
  assert counts == (6, 4) and len(rows) == 10
  assert rows['b.png']['status'] == 'images/b.png is damaged or not an image; replace it'
  assert (
    'is damaged' in rows['g.dcm']['status']
    and 'leads out of the folder' in rows['outside.png']['status']
  )
  assert 'control characters' in rows['two\\nlines.png']['status']
  for row in rows.values():
    assert (row['status'] == 'ok') == bool(row['mask']) == bool(row['width'])
  said = capsys.readouterr().err
  assert said.count('no mask for ') == 4 and 'no mask for b.png: images/b.png is damaged' in said
  assert len((tmp_path / 'out/predictions.csv').read_text().splitlines()) == 11


@pytest.mark.usefixtures('placed')
def test_an_image_that_was_fixed_is_tried_again(segmenter, images, tmp_path):
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  options = Options(0.48, probabilities=True)
  predict(segmenter, images, whole, options, batch_size=3)
  good = (images / 'b.png').read_bytes()
  (images / 'b.png').write_bytes(good[:200])
  assert predict(segmenter, images, out, options, batch_size=3) == (6, 1)
  assert predict(segmenter, images, out, options, batch_size=3) == (6, 1)
  (images / 'b.png').write_bytes(good)
  assert predict(segmenter, images, out, options, batch_size=3) == (7, 0)
  ours, theirs = files(out), files(whole)
  assert ours.pop('made.txt') != theirs.pop('made.txt')  # It says when an image was written.
  assert ours == theirs


class Lightness(nn.Module):
  """A classifier whose probability of 'light' is the mean of what it sees."""

  def __call__(self, x, train):
    assert not train
    light = x.mean((1, 2, 3)) * 0.25 + 0.5  # As it was before it was normalised.
    return jnp.log(jnp.stack([1 - light, light], -1))


@pytest.fixture
def lightness():
  stage = CLASSIFY._replace(network=lambda *_: Lightness())
  config = Config(classify=ClassifyConfig(input='image'))
  return Trained(Path('classifier'), stage, config, 1, {'params': {}}, ('dark', 'light'))


def test_a_bad_file_leaves_the_diagnoses_of_others_theirs(segmenter, lightness, images, tmp_path):
  predict(segmenter, images, tmp_path / 'whole', HALF, lightness, batch_size=3)
  (images / 'b.png').write_bytes(b'nothing')
  assert predict(segmenter, images, tmp_path / 'out', HALF, lightness, batch_size=3) == (6, 1)
  whole, found = (table(tmp_path / name) for name in ('whole', 'out'))
  assert len({row['class_probability_light'] for row in whole.values()}) == 7
  del whole['b.png'], found['b.png']
  assert found == whole


def test_cells_that_a_spreadsheet_would_run_are_escaped(segmenter, images, tmp_path):
  (images / 'a.png').rename(images / '=cmd().png')
  predict(segmenter, images, tmp_path / 'out', HALF)
  assert predict(segmenter, images, tmp_path / 'out', HALF) == (7, 0)
  assert list(table(tmp_path / 'out')) == ["'=cmd().png", *NAMES[1:]]
  assert (tmp_path / 'out/masks/=cmd().png').exists()


def test_volumes_have_a_mask_a_slice(make_segmenter, images, tmp_path):
  nibabel = pytest.importorskip('nibabel')
  volume = np.random.default_rng(0).integers(0, 1000, (20, 24, 5)).astype(np.int16)
  nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 2.0, 3.0, 1.0])), images / 'scan.nii.gz')
  out = tmp_path / 'out'
  predict(make_segmenter(channels=1), images, out, Options(0.0001), batch_size=3)
  with (out / 'predictions.csv').open() as file:
    rows = [row for row in csv.DictReader(file) if row['image'] == 'scan.nii.gz']
  assert [row['slice'] for row in rows] == list('01234')
  assert [row['mask'] for row in rows] == [f'masks/scan_s000{i}.png' for i in range(5)]
  assert {(row['width'], row['height'], row['area_px'], row['area_mm2']) for row in rows} == {
    ('24', '20', '480', '480.0')
  }
  assert pixels(out / 'masks/scan_s0003.png').shape == (20, 24)


def test_a_name_that_is_too_long_for_its_masks_has_one_row(make_segmenter, images, tmp_path):
  nibabel = pytest.importorskip('nibabel')
  name = 'x' * 251 + '.nii'
  nibabel.save(nibabel.Nifti1Image(np.zeros((20, 24, 3), np.int16), np.eye(4)), images / name)
  found = predict(make_segmenter(channels=1), images, tmp_path / 'out', HALF, batch_size=3)
  rows = table(tmp_path / 'out')
  assert found == (7, 1) and list(rows) == [*NAMES, name]
  assert rows[name]['status'] == f'{name} has too long a name for its mask; rename it'
  assert (tmp_path / 'out/predictions.csv').read_text().count(name) == 2


# What was there before.


def interrupt_after(monkeypatch, count):
  """Ctrl-C after so many images have their rows."""
  append, seen = Output.append, []

  def wrapped(self, rows, files):
    append(self, rows, files)
    seen.append(rows[0]['image'])
    if len(seen) == count:
      raise KeyboardInterrupt

  monkeypatch.setattr(Output, 'append', wrapped)


@pytest.fixture
def placed(monkeypatch):
  """A network whose output depends on the place in the batch, far more than rounding makes it."""
  forward = stream.forward

  def wrapped(segmenter, flips):
    rows = forward(segmenter, flips)
    return lambda variables, batch: (
      rows(variables, batch) * np.linspace(0.9, 1, len(batch), dtype=np.float32)[:, None, None]
    )

  monkeypatch.setattr(stream, 'forward', wrapped)


@pytest.mark.usefixtures('placed')
@pytest.mark.parametrize('tile', [0, 16])
def test_an_interrupted_run_resumes_and_ends_alike(segmenter, images, tmp_path, monkeypatch, tile):
  options = Options(middle(segmenter, images) * 0.95, probabilities=True, overlays=True, tile=tile)
  whole, out = tmp_path / 'whole', tmp_path / 'out'
  predict(segmenter, images, whole, options, batch_size=2)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 3)
    predict(segmenter, images, out, options, batch_size=2)
  assert list(table(out)) == NAMES[:3]
  looked_at = []
  read = run.read
  monkeypatch.setattr(
    run, 'read', lambda root, name, **how: looked_at.append(name) or read(root, name, **how)
  )
  assert predict(segmenter, images, out, options, batch_size=2) == (7, 0)
  assert sorted(looked_at) == NAMES[2:]  # The third shares a batch with the fourth.
  assert files(out) == files(whole)


@pytest.mark.parametrize('cut', [1, 30, 90])
def test_a_row_that_is_half_written_is_written_again(segmenter, images, tmp_path, cut):
  predict(segmenter, images, tmp_path / 'out', HALF)
  path = tmp_path / 'out/predictions.csv'
  data = path.read_bytes()
  path.write_bytes(data[:-cut])
  (tmp_path / 'out/.predicting').mkdir()
  (tmp_path / 'out/.predicting/left').write_bytes(b'half')
  assert predict(segmenter, images, tmp_path / 'out', HALF) == (7, 0)
  assert path.read_bytes() == data and not (tmp_path / 'out/.predicting').exists()


def test_a_mask_that_was_removed_is_made_again(segmenter, images, tmp_path):
  predict(segmenter, images, tmp_path / 'out', HALF)
  before = files(tmp_path / 'out')
  (tmp_path / 'out/masks/c.png').unlink()
  predict(segmenter, images, tmp_path / 'out', HALF)
  assert files(tmp_path / 'out') == before


def test_predictions_of_another_kind_are_not_written_over(
  segmenter, make_segmenter, images, tmp_path
):
  out = tmp_path / 'out'
  predict(segmenter, images, out, HALF)
  before = files(out)
  for other, options, flag in (
    (make_segmenter(seed=1), HALF, '--checkpoint'),
    (segmenter, Options(0.4), '--threshold'),
    (segmenter, Options(0.5, flips=True), '--flips'),
    (segmenter, Options(0.5, tile=64), '--tile'),
  ):
    with pytest.raises(
      UserError, match=f'holds predictions with {flag}=.*choose another --out, or give the same$'
    ):
      predict(other, images, out, options)
  assert files(out) == before
  held = json.loads((out / 'predict.json').read_text())
  assert held['made_by']['--checkpoint'] == segmenter.digest and 'jax' in held['versions']


def test_places_that_are_refused(segmenter, images, tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full/mine.txt').write_text('mine')
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'none/deep').mkdir(parents=True)
  for root, out, message in (
    (images, tmp_path / 'full', 'holds other files, and nothing is written over'),
    (images, tmp_path / 'file', 'is not a folder'),
    (images, images / 'out', 'lie in each other'),
    (images / 'sub', images, 'lie in each other'),
    (tmp_path / 'none', tmp_path / 'out', 'holds no image; it should hold files that end in .png'),
    (tmp_path / 'nowhere', tmp_path / 'out', 'there is no such folder'),
  ):
    with pytest.raises(UserError, match=re.escape(message)) as refusal:
      predict(segmenter, root, out, HALF)
    assert '\n' not in str(refusal.value)
  assert not (tmp_path / 'out').exists() and not (images / 'out').exists()
  assert files(tmp_path / 'full') == {'mine.txt': b'mine'}


@pytest.mark.parametrize(
  ('folder', 'message'),
  [
    ('masks', 'is a link, and nothing is written through links'),
    ('masks/sub', 'is a link that leads out of --out'),
  ],
)
def test_masks_never_leave_the_folder(segmenter, images, tmp_path, folder, message):
  """A link that someone has laid where masks of a folder would go."""
  predict(segmenter, images, tmp_path / 'out', HALF)
  (tmp_path / 'out' / folder).rename(tmp_path / 'elsewhere')
  before = files(tmp_path / 'elsewhere')
  (tmp_path / 'out' / folder).symlink_to(tmp_path / 'elsewhere')
  (images / 'sub/a.png').write_bytes((images / 'a.png').read_bytes())
  with pytest.raises(UserError, match=message):
    predict(segmenter, images, tmp_path / 'out', HALF)
  assert files(tmp_path / 'elsewhere') == before


def test_names_that_would_share_a_mask_are_refused(images):
  shutil.copy(images / 'a.png', images / 'a.bmp')
  with pytest.raises(
    UserError, match=r'a\.bmp and a\.png would have the same mask; rename one of them'
  ):
    list_images(images)
  (images / 'a.bmp').unlink()
  (images / 'scan.nii').touch()
  shutil.copy(images / 'a.png', images / 'scan_s0001.png')
  with pytest.raises(
    UserError, match=r'scan_s0001\.png and a slice of scan\.nii would have the same mask'
  ):
    list_images(images)


def test_a_folder_with_masks_beside_its_images_is_refused(images):
  (images / 'images').mkdir()
  (images / 'masks').mkdir()
  with pytest.raises(UserError, match='masks are no images; give '):
    list_images(images)


def test_cases_of_several_modalities(make_segmenter, tmp_path):
  """In either layout; one that lacks a modality has a row that says so, and gets its mask when it
  has it.
  """
  intensity = ('percentile', 'window/127.5/255')
  segmenter = make_segmenter(modalities=('t1', 't2'), intensity=intensity)
  rng, root = np.random.default_rng(0), tmp_path / 'images'
  (root / 'sub').mkdir(parents=True)
  planes = {name: rng.integers(0, 200, (2, 16, 16)).astype(np.uint8) for name in 'abc'}
  planes['a'][0][:8] = 0  # Air.
  for k in range(2):
    Image.fromarray(planes['a'][k]).save(root / f'a_{k:04d}.png')
  pages = [Image.fromarray(plane) for plane in planes['b']]
  pages[0].save(root / 'sub/b.tif', save_all=True, append_images=pages[1:])
  Image.fromarray(planes['c'][0]).save(root / 'c_0000.png')
  options = Options(0.5, probabilities=True, overlays=True)
  assert predict(segmenter, root, tmp_path / 'out', options) == (2, 1)
  rows = table(tmp_path / 'out')
  assert list(rows) == ['a', 'c', 'sub/b.tif']
  assert 'lacks t2; add c_0001' in rows['c']['status']
  assert rows['sub/b.tif']['pages'] == ''
  for name, place in (('a', 'a.png'), ('b', 'sub/b.png')):
    first = planes[name][0]
    low, high = np.percentile(first[first > 0], (0.5, 99.5))
    share = np.clip((first.astype(float) - low) / (high - low), 0, 1)
    seen = np.stack([np.floor(share * 255 + 0.5), planes[name][1]], -1).astype(np.uint8)
    expected = np.asarray(segmenter.probabilities(segmenter.variables, seen[None]))[0]
    found = pixels(tmp_path / 'out/probabilities' / place) / 65535
    np.testing.assert_allclose(found, expected, atol=2e-5)
    shown = pixels(tmp_path / 'out/overlays' / place.replace('.png', '.jpg'))
    assert shown.shape == (16, 16, 3)
  made = json.loads((tmp_path / 'out/predict.json').read_text())['made_by']
  assert made['config.data.modalities'] == ['t1', 't2']
  before = files(tmp_path / 'out')['masks/a.png']
  Image.fromarray(planes['c'][1]).save(root / 'c_0001.png')
  assert predict(segmenter, root, tmp_path / 'out', options) == (3, 0)
  assert table(tmp_path / 'out')['c']['status'] == 'ok'
  assert files(tmp_path / 'out')['masks/a.png'] == before


def test_a_network_of_modality_dropout_takes_cases_that_lack_one(make_segmenter, tmp_path):
  names = ('t1', 't2', 'flair')
  segmenter = make_segmenter(
    modalities=names, intensity=('window/127.5/255',), modality_dropout=0.3
  )
  root = tmp_path / 'images'
  root.mkdir()
  planes = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
  for name, present in (('a', (0, 1, 2)), ('b', (1,))):
    for k in present:
      Image.fromarray(planes[k]).save(root / f'{name}_{k:04d}.png')
  assert predict(segmenter, root, tmp_path / 'out', Options(0.5, probabilities=True)) == (2, 0)
  rows = table(tmp_path / 'out')
  assert [(row['status'], row['lacking']) for row in rows.values()] == [
    ('ok', ''),
    ('ok', 't1 flair'),
  ]
  seen = np.stack(
    [np.full((16, 16), 128, np.uint8), planes[1], np.full((16, 16), 128, np.uint8)], -1
  )
  expected = np.asarray(segmenter.probabilities(segmenter.variables, seen[None]))[0]
  np.testing.assert_allclose(
    pixels(tmp_path / 'out/probabilities/b.png') / 65535, expected, atol=2e-5
  )
