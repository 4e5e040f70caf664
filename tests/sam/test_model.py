"""Segment Anything from files: a tiny model of random weights, since real ones are not ours to
ship.
"""

import json
import re
import shutil
import sys
import zipfile
from functools import partial
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from ahm_jax.errors import UserError  # noqa: E402
from ahm_jax.sam import model as sam  # noqa: E402
from tests.hostile_json import DAMAGES  # noqa: E402
from tests.sam.tiny_sam import (  # noqa: E402
  ENCODER,
  LAYERS,
  PATCH,
  SIDE,
  WIDTH,
  official_names,
  official_weights,
  tiny_model,
)

pytestmark = pytest.mark.usefixtures('one_torch_thread')

BOXES = [(10, 5, 60, 40), (0, 0, 89, 49), (30, 20, 35, 22)]
POINTS = [(45, 20), (3, 48)]


@pytest.fixture(scope='module')
def model():
  return tiny_model()


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
  path = tmp_path_factory.mktemp('sam') / 'folder'
  model.save_pretrained(path)
  return path


@pytest.fixture(scope='module')
def loaded(folder):
  return sam.load(str(folder))


@pytest.fixture
def copy(folder, tmp_path):
  """The folder, to spoil."""
  return shutil.copytree(folder, tmp_path / 'spoilt')


@pytest.fixture
def tiny_encoder(monkeypatch):
  """Official files of this width are known."""
  monkeypatch.setitem(sam._ENCODERS, WIDTH, ENCODER)


@pytest.fixture(scope='module')
def image():
  """90 x 50 pixels."""
  noise = np.random.default_rng(3).uniform(0, 255, (50, 90, 3))
  return ndimage.gaussian_filter(noise, (3, 3, 0)).astype(np.uint8)


def reference_logits(model, image, box=None, point=None):
  """One prompt by hand: 90 x 50 becomes 64 x 36 and is padded below.

  The mask of 64 x 64, cut and resized to 90 x 50.
  """
  resized = (
    np.asarray(Image.fromarray(image).resize((SIDE, 36), Image.Resampling.BILINEAR), np.float32)
    / 255
  )
  pixels = np.zeros((SIDE, SIDE, 3), np.float32)
  pixels[:36] = (resized - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
  shrink = np.float32([SIDE / 90, 36 / 50])
  if box:
    prompt = {'input_boxes': torch.from_numpy(np.float32([[box]]) * np.tile(shrink, 2))}
  else:
    prompt = {
      'input_points': torch.from_numpy(np.float32([[[point]]]) * shrink),
      'input_labels': torch.ones(1, 1, 1).long(),
    }
  with torch.inference_mode():
    out = model(
      pixel_values=torch.from_numpy(pixels.transpose(2, 0, 1)[None]),
      multimask_output=box is None,
      **prompt,
    )
    masks, scores = out.pred_masks[0], out.iou_scores[0, 0]
    wide = torch.nn.functional.interpolate(
      masks, (SIDE, SIDE), mode='bilinear', align_corners=False
    )[..., :36, :]
    shown = torch.nn.functional.interpolate(wide, (50, 90), mode='bilinear', align_corners=False)
  return shown[0, int(scores.argmax())].numpy()


@pytest.mark.parametrize('kind, prompts', [('box', BOXES), ('point', POINTS)])
def test_logits_are_those_of_the_models_own_path(model, loaded, image, kind, prompts):
  found = loaded.logits(image, kind, prompts)
  assert found.shape == (len(prompts), 50, 90) and found.dtype == np.float32
  for prompt, logits in zip(prompts, found, strict=True):
    expected = reference_logits(model, image, **{kind: prompt})
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-4)
  np.testing.assert_array_equal(loaded.masks('sam', image, kind, prompts), found > 0)


@pytest.fixture
def official(model, monkeypatch):
  """segment_anything's own predictor with the same weights.

  What it needs of torchvision is Pillow's.
  """
  functional = ModuleType('torchvision.transforms.functional')
  functional.to_pil_image = Image.fromarray
  functional.resize = lambda picture, size: picture.resize(size[::-1], Image.Resampling.BILINEAR)
  boxes = ModuleType('torchvision.ops.boxes')
  boxes.batched_nms = boxes.box_area = None  # Of its generator of masks, which is not used.
  for name in ('torchvision', 'torchvision.ops', 'torchvision.transforms'):
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
  for module in (functional, boxes):
    monkeypatch.setitem(sys.modules, module.__name__, module)
  segment_anything = pytest.importorskip('segment_anything')
  parts = segment_anything.modeling
  attention = {'depth': LAYERS, 'num_heads': 2, 'global_attn_indexes': [1], 'window_size': 14}
  encoder = parts.ImageEncoderViT(
    img_size=SIDE,
    patch_size=PATCH,
    embed_dim=WIDTH,
    norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    use_rel_pos=True,
    **attention,
  )
  grid = (SIDE // PATCH, SIDE // PATCH)
  decoder = parts.MaskDecoder(
    transformer_dim=256,
    transformer=parts.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048),
  )
  sam_model = parts.Sam(encoder, parts.PromptEncoder(256, grid, (SIDE, SIDE), 16), decoder)
  weights = {
    name: value
    for name, value in official_weights(model).items()
    if name not in ('pixel_mean', 'pixel_std')
  }
  sam_model.load_state_dict(weights, strict=True)
  return segment_anything.SamPredictor(sam_model.eval())


def test_logits_are_those_of_segment_anything(official, loaded, image):
  """Needs pip install segment-anything, which is no part of an extra.

  With -s, the largest differences.
  """
  official.set_image(image)
  for kind, prompts in (('box', BOXES), ('point', POINTS)):
    for prompt, logits in zip(prompts, loaded.logits(image, kind, prompts), strict=True):
      shown = (
        {'box': np.array(prompt)}
        if kind == 'box'
        else {'point_coords': np.array([prompt]), 'point_labels': np.ones(1)}
      )
      masks, scores, _ = official.predict(
        multimask_output=kind == 'point', return_logits=True, **shown
      )
      expected = masks[scores.argmax()]
      difference = np.abs(logits - expected).max()
      print(f'{kind}: {difference:.1e} of {expected.min():.1f} to {expected.max():.1f}')
      np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_prompts_matter(loaded, image):
  first, second, _ = loaded.logits(image, 'box', BOXES)
  assert abs(first - second).max() > 0.01


def test_medsam_sees_a_squashed_image_of_its_own_range(model, loaded, image):
  seen = np.asarray(
    Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32
  )
  seen = (seen - seen.min()) / (seen.max() - seen.min())
  boxes = np.float32([BOXES]) * np.float32([SIDE / 90, SIDE / 50, SIDE / 90, SIDE / 50])
  with torch.inference_mode():
    pixels = torch.from_numpy(seen.transpose(2, 0, 1)[None])
    low = (
      model(pixel_values=pixels, input_boxes=torch.from_numpy(boxes), multimask_output=False)
      .pred_masks[0]
      .sigmoid()
    )
    expected = torch.nn.functional.interpolate(low, (50, 90), mode='bilinear', align_corners=False)[
      :, 0
    ].numpy()
  found = loaded.medsam_probabilities(image, BOXES)
  assert expected.std() > 0.02
  np.testing.assert_allclose(found, expected, atol=1e-5)
  np.testing.assert_array_equal(loaded.masks('medsam', image, 'box', BOXES), found > 0.5)
  # Not what SAM makes of it.
  assert abs(found - 1 / (1 + np.exp(-loaded.logits(image, 'box', BOXES)))).max() > 0.01


def test_a_black_image_is_no_division_by_zero(loaded):
  assert np.isfinite(
    loaded.medsam_probabilities(np.zeros((20, 30, 3), np.uint8), [(1, 1, 5, 5)])
  ).all()


@pytest.mark.usefixtures('tiny_encoder')
def test_an_official_file_is_the_same_model(model, loaded, image, tmp_path):
  weights = official_weights(model)
  torch.save(weights, tmp_path / 'sam_vit_tiny.pth')
  official = sam.load(str(tmp_path / 'sam_vit_tiny.pth'))
  for kind, prompts in (('box', BOXES), ('point', POINTS)):
    np.testing.assert_allclose(
      official.logits(image, kind, prompts), loaded.logits(image, kind, prompts), atol=1e-5
    )


def test_each_official_name_has_its_place(model):
  weights = official_weights(model)
  found = sam.renamed(weights)
  assert set(found) == set(model.state_dict())
  assert {
    name.rpartition('.')[0]
    for name in sam.renamed({f'{key}.weight': 0 for key in official_names()})
  } == set(official_names().values())
  for name, value in model.state_dict().items():
    assert torch.equal(found[name], value), name


def test_a_preprocessor_of_the_folder_is_used(copy, image):
  plain = sam.load(str(copy)).logits(image, 'box', BOXES)
  settings = {
    'image_mean': [0, 0, 0],
    'image_std': [1, 1, 1],
    'pad_size': {'height': SIDE, 'width': SIDE},
  }
  (copy / 'preprocessor_config.json').write_text(
    json.dumps(settings | {'size': {'longest_edge': SIDE}})
  )
  assert abs(sam.load(str(copy)).logits(image, 'box', BOXES) - plain).max() > 0.01
  (copy / 'preprocessor_config.json').write_text('{}')  # Of 1024 pixels.
  with pytest.raises(UserError, match=r'preprocessor_config\.json is for images of another size'):
    sam.load(str(copy))


def refusal(path):
  """What load says, which is one line."""
  with pytest.raises(UserError) as caught:
    sam.load(str(path))
  line = str(caught.value)
  assert line.startswith(f'--sam_checkpoint={path}') and '\n' not in line and len(line) < 600
  return line


def test_a_path_that_is_not_there(tmp_path):
  assert refusal(tmp_path / 'none').endswith('there is no such file or folder')


def test_folders_that_are_no_sam(copy, tmp_path):
  (tmp_path / 'empty').mkdir()
  assert 'it has no config.json' in refusal(tmp_path / 'empty')
  config = json.loads((copy / 'config.json').read_text())
  (copy / 'config.json').write_text(json.dumps(config | {'model_type': 'vit'}))
  assert "model_type 'vit', not sam" in refusal(copy)
  (copy / 'config.json').write_text('{')
  assert 'it cannot be read' in refusal(copy)
  (copy / 'config.json').write_text('[]')
  assert 'model_type None' in refusal(copy)


def test_weights_that_are_missing_or_do_not_fit(copy):
  config = json.loads((copy / 'config.json').read_text())
  config['vision_config']['num_hidden_layers'] = 3
  (copy / 'config.json').write_text(json.dumps(config))
  assert re.search(r'missing keys, such as vision_encoder\.layers\.2\.', refusal(copy))
  config['vision_config']['num_hidden_layers'] = 1
  (copy / 'config.json').write_text(json.dumps(config))
  assert re.search(r'unexpected keys, such as vision_encoder\.layers\.1\.', refusal(copy))
  (copy / 'model.safetensors').write_bytes((copy / 'model.safetensors').read_bytes()[:1000])
  assert 'it cannot be read' in refusal(copy)
  (copy / 'model.safetensors').rename(copy / 'pytorch_model.bin')  # A pickle would be.
  assert 'it has no model.safetensors' in refusal(copy)


class Hostile:
  def __reduce__(self):
    return print, ('never to be run',)


@pytest.mark.usefixtures('tiny_encoder')
def test_files_that_are_no_sam(model, tmp_path, capsys):
  path = tmp_path / 'file.pth'
  for content in (b'', b'not a checkpoint', b'PK\x03\x04'):
    path.write_bytes(content)
    assert (
      ': it cannot be read as weights alone, and nothing else is unpickled; name a folder'
      in refusal(path)
    )
  torch.save({'image_encoder': Hostile()}, path)
  assert 'it cannot be read as weights alone' in refusal(path)
  assert 'never to be run' not in capsys.readouterr().out
  torch.save({'model': official_weights(model), 'epoch': 3}, path)
  assert 'something else than named weights' in refusal(path)
  torch.save(torch.nn.Linear(3, 4).state_dict(), path)
  assert 'not the names and sizes of ViT-B, ViT-L or ViT-H' in refusal(path)
  weights = official_weights(model)
  del weights['mask_decoder.iou_token.weight']
  torch.save(weights, path)
  assert 'it cannot be read' in refusal(path)


def vision(**fields):
  return {'vision_config': fields}


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    (vision(num_hidden_layers=10**9), 'config.json has num_hidden_layers = 1e+09, more than 65536'),
    (vision(num_hidden_layers=60000), 'config.json has num_hidden_layers = 6e+04, and there are'),
    (vision(image_size=2**16), 'its config.json asks for '),
    (vision(hidden_size=2**16), 'its config.json asks for '),
    ({'mask_decoder_config': {'hidden_size': 2**15}}, 'its config.json asks for '),
    ({'mask_decoder_config': {'iou_head_depth': 10**4}}, 'config.json has iou_head_depth = 1e+04'),
    (vision(image_size=-(10**30)), 'config.json has image_size = -1e+30, more than 65536'),
    (vision(image_size='large'), ''),
    (vision(hidden_size=None), ''),
    ({'vision_config': [1]}, ''),
  ],
)
def test_a_config_that_asks_for_more_than_the_weights_hold(copy, change, said):
  config = json.loads((copy / 'config.json').read_text())
  for name, value in change.items():
    config[name] = config[name] | value if isinstance(value, dict) else value
  (copy / 'config.json').write_text(json.dumps(config))
  assert f'it cannot be read: {said}' in refusal(copy)


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize('name', ['config.json', 'preprocessor_config.json'])
def test_json_that_is_no_config_is_refused_in_a_line(copy, name, damage):
  (copy / name).write_bytes(damage)
  refusal(copy)


@pytest.mark.parametrize(
  'sizes',
  [
    {'size': {'longest_edge': 10**9}},
    {'pad_size': {'height': SIDE, 'width': 10**9}},
    {'size': {'longest_edge': 0}},
  ],
)
def test_a_preprocessor_that_would_enlarge_without_end(copy, sizes):
  fitting = {'pad_size': {'height': SIDE, 'width': SIDE}, 'size': {'longest_edge': SIDE}}
  (copy / 'preprocessor_config.json').write_text(json.dumps(fitting | sizes))
  refusal(copy)


def test_weights_that_claim_more_than_their_file(copy):
  path = copy / 'model.safetensors'
  content = path.read_bytes()
  length = int.from_bytes(content[:8], 'little')
  header = json.loads(content[8 : 8 + length])
  header['mask_decoder.iou_token.weight']['shape'] = [2**42, 1]
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + content[8 + length :])
  assert "'mask_decoder.iou_token.weight': its shape and its data_offsets do not" in refusal(copy)
  path.write_bytes((2**60).to_bytes(8, 'little') + content[8:])
  assert 'its header is not whole' in refusal(copy)


@pytest.mark.usefixtures('tiny_encoder')
def test_an_official_file_that_claims_more_than_it_holds(model, tmp_path):
  path, weights = tmp_path / 'file.pth', official_weights(model)
  name = 'image_encoder.pos_embed'
  wide = torch.zeros(1, 1, 1, WIDTH)

  torch.save(weights | {name: wide.expand(1, 10**6, 10**6, WIDTH)}, path)
  assert f'it cannot be read: {name} has fewer numbers than its shape says' in refusal(path)
  torch.save(weights | {name: weights[name].to_sparse()}, path)
  assert f'{name} is not a dense tensor' in refusal(path)
  token = 'mask_decoder.iou_token.weight'
  torch.save(weights | {token: torch.zeros(3, 7)}, path)
  assert f'{token} is 3x7, not ' in refusal(path)

  torch.save(weights, tmp_path / 'sound.pth')
  with (
    zipfile.ZipFile(tmp_path / 'sound.pth') as sound,
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
  ):
    for member in sound.namelist():
      archive.writestr(member, sound.read(member))
    archive.writestr('archive/data/bomb', bytes(2**27))
  assert 'it is an archive that inflates to 1.' in refusal(path)
  path.write_bytes((tmp_path / 'sound.pth').read_bytes()[:-100])
  assert 'it cannot be read as weights alone' in refusal(path)


@pytest.mark.parametrize('package', ['torch', 'transformers'])
def test_a_missing_package_is_named(folder, package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(
    UserError,
    match=rf'needs {package}: EXTRAS=sam launch/with_env \.\.\. installs it, or '
    r'pip install -e \.\[sam\]',
  ):
    sam.load(str(folder))
