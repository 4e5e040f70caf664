"""launch.export as a user types it: what was trained leaves, works elsewhere as it did here, and
comes back.

With -s, the largest differences, as the table in BUILD_NOTES.md has them.
"""

import dataclasses
import functools
import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig

import jax
import numpy as np
import pytest
from PIL import Image

from ahm_jax.config import from_config_dict
from ahm_jax.data.resize import squashed
from ahm_jax.data.sets import phantom
from ahm_jax.evaluation.masks import at_own_size
from ahm_jax.export import onnx_model, resizing
from ahm_jax.pipeline import stages, train
from ahm_jax.pipeline.evaluate import evaluate
from ahm_jax.pipeline.setup import open_run
from ahm_jax.pipeline.stages import CLASSIFY, PRETRAIN, SEGMENT, STAGES
from ahm_jax.runs.trained import load
from ahm_jax.runtime import parallel, trees
from ahm_jax.training.loop import fit
from ahm_jax.weights import files

# Height and width; two images of one size make a batch.
SIZES = (
  (61, 90),
  (140, 50),
  (61, 90),
  (32, 32),
)
NO_OUTPUT = 'holds a pretrain run; give the --workdir of a segment or classify run'
NEEDS = {
  'stablehlo': ('flatbuffers',),
  'onnx': ('jax2onnx', 'onnxruntime'),
  'safetensors': ('safetensors',),
}

# A classification by a VGG16 with batch normalisation, of images that are scaled as torchvision's.
NORMED = 'classify_normed'
TOLD = 'segment_told'  # A segmentation that tells diagnoses too.

# In the folder of an export, with nothing of ours on the path: python - IMAGES RESULTS.
DRIVER = """
import sys, pathlib
import numpy as np
from PIL import Image
from load import load
network, found, batches = load(), {}, {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
  with Image.open(path) as picture:
    pixels = np.asarray(picture.convert('RGB'))
  batches.setdefault(pixels.shape, {})[path.stem] = pixels
for batch in batches.values():
  result = network(np.stack(list(batch.values())))
  for index, name in enumerate(batch):
    found.update({f'{name} {key}': value[index] for key, value in result.items()})
np.savez(sys.argv[2], **found)
ours = {'ahm_jax', 'flax', 'orbax', 'absl', 'ml_collections'}
print(*sorted({name.partition('.')[0] for name in sys.modules} & ours))
"""


def installed(kind):
  for package in NEEDS.get(kind, ()):
    pytest.importorskip(package)


@pytest.fixture(scope='module')
def config(config_file):
  """As the config file has it, but for classifying whole images, as exports do."""
  config = from_config_dict(runpy.run_path(str(config_file))['get_config']())
  return dataclasses.replace(
    config,
    masking=dataclasses.replace(config.masking, strategy='uniform'),
    classify=dataclasses.replace(config.classify, input='image'),
  )


def normed(config, **fields):
  return dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, vgg_norm='batch', vgg_input='torchvision', **fields),
  )


def told(config):
  diagnosis = dataclasses.replace(config.segment.diagnosis, batch_size=4)
  return dataclasses.replace(
    config, segment=dataclasses.replace(config.segment, diagnosis=diagnosis)
  )


def fit_nothing(task, *arguments, **options):
  """The training loop, of steps that only count, from numbers of a network in use.

  Compiling gradients takes a minute.
  """
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    if 'opt_state' in name or leaf.dtype != np.float32:
      return np.zeros(leaf.shape, leaf.dtype)
    if 'scale' in name or 'var' in name:
      return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
    return generator.normal(0, spread, leaf.shape).astype(np.float32)

  state = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(task.init, jax.random.key(0)))

  def step(state, batch, _):
    return state._replace(step=state.step + 1), {'loss': 0.0 * batch.images.mean()}

  task = task._replace(
    init=lambda _: jax.tree.map(jax.numpy.asarray, state),
    step=step,
    evaluate=lambda state: {'score': float(state.step), task.shown: 0.0},
    snapshot=None,
  )
  return fit(task, *arguments, **options)


@pytest.fixture(scope='module')
def runs(config, tmp_path_factory):
  """The workdirs of a pre-training, and of a segmentation and two classifications, which are
  evaluated.
  """
  home = tmp_path_factory.mktemp('runs')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'all_devices', lambda: tuple(jax.local_devices()[:1]))
    patch.setattr(train, 'fit', fit_nothing)
    for stage in ('pretrain', 'segment', 'classify'):
      getattr(stages, stage)(config, home / stage)
    stages.classify(normed(config), home / NORMED)
    stages.segment(told(config), home / TOLD)
    for stage in ('segment', 'classify', NORMED, TOLD):
      evaluate(config, home / stage)
  return home


@pytest.fixture(scope='module')
def exports(commands, runs, tmp_path_factory):
  """exports(stage, kind): the folder of that export, which is made at its first use.

  Not to be changed.
  """
  home = tmp_path_factory.mktemp('exports')

  def find(stage, kind):
    installed(kind)
    out = home / f'{stage}_{kind}'
    if not out.exists():
      done = commands.run(
        'export',
        f'--checkpoint={runs}/{stage}',
        f'--format={kind}',
        f'--out={out}',
        '--licence=CC-BY-4.0',
      )
      assert done.returncode == 0, done.stderr
      step = json.loads((out / 'export.json').read_text())['step']
      said = f'step {step}: {kind} is in {out}; {out}/MODEL_CARD.md describes it\n'
      assert done.stdout.endswith(f'{stage.partition("_")[0]}, {said}')
    return out

  return find


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  """JPEG files of phantoms, of several sizes."""
  home = tmp_path_factory.mktemp('pictures')
  for number, (height, width) in enumerate(SIZES):
    pixels, _, _ = phantom.draw(phantom.generator(9, 'test', number), 96)
    Image.fromarray(pixels).resize((width, height)).save(home / f'image{number}.jpg')
  return home


def seen(pictures, side):
  """Names, and the images as networks see them, uint8 [B, S, S, 3]."""
  paths = sorted(pictures.iterdir())
  return [path.stem for path in paths], np.stack([squashed(pixels(path), side) for path in paths])


def pixels(path):
  with Image.open(path) as picture:
    return np.asarray(picture)


def tree(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.fixture(scope='module')
def predicted(commands, runs, pictures, tmp_path_factory):
  """What launch.predict makes of the pictures, by the segmentation run itself."""
  out = tmp_path_factory.mktemp('predicted') / 'out'
  done = commands.run(
    'predict',
    f'--checkpoint={runs}/segment',
    f'--images={pictures}',
    f'--out={out}',
    '--probabilities',
  )
  assert done.returncode == 0, done.stderr
  return out


@pytest.fixture(scope='module')
def originals(runs):
  """originals(stage, images uint8 [4, S, S, 3]) -> probabilities, by the run's weights in JAX,
  and the logits.
  """

  @functools.cache
  def program(stage):
    trained = load(runs / stage, STAGES)

    def both(images):
      scaled = (images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
      return trained.probabilities(trained.variables, images), trained.network.apply(
        trained.variables, scaled, train=False
      )

    return (
      jax.jit(both).lower(jax.ShapeDtypeStruct((len(SIZES), *trained.shape), np.uint8)).compile()
    )

  return lambda stage, images: tuple(map(np.asarray, program(stage)(images)))


def test_an_orbax_export_predicts_to_the_byte(commands, exports, predicted, pictures, tmp_path):
  flags = (
    f'--checkpoint={exports("segment", "orbax")}',
    f'--images={pictures}',
    f'--out={tmp_path}/out',
    '--probabilities',
  )
  done = commands.run('predict', *flags)
  assert done.returncode == 0, done.stderr
  ours, theirs = tree(tmp_path / 'out'), tree(predicted)
  assert ours.keys() == theirs.keys() and len(
    [name for name in ours if name.startswith('masks/')]
  ) == len(SIZES)
  written = [name for name in ours if name.endswith(('.png', '.csv'))]
  differ = [name for name in written if ours[name] != theirs[name]]
  print(f'orbax, segment: {len(differ)} of {len(written)} files of launch.predict differ')
  assert not differ


def test_an_export_is_exported_again_with_its_scores(commands, exports, tmp_path):
  first, again = exports('segment', 'orbax'), tmp_path / 'again'
  done = commands.run('export', f'--checkpoint={first}', '--format=npz', f'--out={again}')
  assert done.returncode == 0, done.stderr
  direct = files.read(exports('segment', 'npz') / 'weights.npz')
  found = files.read(again / 'weights.npz')
  assert found.keys() == direct.keys() and all(
    np.array_equal(found[name], direct[name]) for name in found
  )
  ours, theirs = (json.loads((folder / 'export.json').read_text()) for folder in (again, first))
  assert (
    ours['scores'] == theirs['scores']
    and ours['data'] == theirs['data']
    and ours['digest'] == theirs['digest']
  )


def elsewhere(home, *command, **environment):
  """Runs Python in a folder with the packages that are installed, but without ours: -S leaves
  out editable ones.
  """
  packages = sysconfig.get_path('purelib')
  quick = ('JAX_DISABLE_MOST_OPTIMIZATIONS', 'XLA_FLAGS')
  inherited = {name: os.environ[name] for name in quick if name in os.environ}
  environment = {
    'PATH': '',
    'HOME': str(home),
    'PYTHONPATH': f'{home}:{packages}',
    'JAX_PLATFORMS': 'cpu',
    **inherited,
    **environment,
  }
  command = [sys.executable, '-S', '-W', 'error::UserWarning', *map(str, command)]
  return subprocess.run(
    command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=300
  )


def test_a_program_segments_without_us_as_predict_does(
  exports, predicted, originals, pictures, config, tmp_path
):
  """To 1e-4 where the program resizes as Pillow does.

  A value that is 1 off moves probabilities further.
  """
  home = shutil.copytree(exports('segment', 'stablehlo'), tmp_path / 'given')
  assert elsewhere(home, '-c', 'import ahm_jax').returncode == 1
  done = elsewhere(home, '-c', DRIVER, pictures, tmp_path / 'results.npz')
  assert (done.returncode, done.stdout) == (0, '\n'), done.stderr
  found, (_, images) = files.read(tmp_path / 'results.npz'), seen(pictures, config.data.image_size)
  loaded = [pixels(pictures / f'image{number}.jpg')[None] for number in range(len(SIZES))]
  resized = np.concatenate(
    [np.asarray(resizing.squashed(x, config.data.image_size)) for x in loaded]
  ).astype(np.uint8)
  networks = originals('segment', resized)[0]
  own, predict, other, same = [], [], 0, 0
  for number, size in enumerate(SIZES):
    mask, probabilities = found[f'image{number} mask'], found[f'image{number} probabilities']
    assert (
      mask.shape == probabilities.shape == size
      and mask.dtype == np.uint8
      and probabilities.std() > 1e-3
    )
    own.append(np.abs(probabilities - at_own_size(networks[number], size)).max())
    expected = pixels(predicted / f'probabilities/image{number}.png') / 65535
    predict.append(np.abs(probabilities - expected).max())
    if np.array_equal(resized[number], images[number]):
      assert predict[-1] <= 1e-4
      same += 1
    differ = (mask > 0) != (pixels(predicted / f'masks/image{number}.png') > 0)
    assert np.abs(expected[differ] - 0.5).max(initial=0) <= 1e-3
    other += int(differ.sum())
  print(
    f'stablehlo, segment: probabilities {max(own):.1e} off the network on its input, '
    f'{max(predict):.1e} off launch.predict; {other} pixels of the masks differ, '
    f'{same} of {len(SIZES)} inputs are the same'
  )
  assert same and np.max(own) <= 1e-5


@pytest.mark.parametrize('stage', ['classify', NORMED])
def test_a_program_classifies_without_us(exports, originals, pictures, config, tmp_path, stage):
  done = elsewhere(exports(stage, 'stablehlo'), '-c', DRIVER, pictures, tmp_path / 'results.npz')
  assert (done.returncode, done.stdout) == (0, '\n'), done.stderr
  found, (names, images) = (
    files.read(tmp_path / 'results.npz'),
    seen(pictures, config.data.image_size),
  )
  expected, _ = originals(stage, images)
  probabilities = np.stack([found[f'{name} probabilities'] for name in names])
  print(f'stablehlo, {stage}: probabilities {np.abs(probabilities - expected).max():.1e}')
  np.testing.assert_allclose(probabilities, expected, atol=1e-3)
  np.testing.assert_array_equal(
    [found[f'{name} class'] for name in names], probabilities.argmax(-1)
  )


def test_a_segmentation_tells_its_diagnoses_in_every_format(
  exports, runs, pictures, config, tmp_path
):
  names, images = seen(pictures, config.data.image_size)
  original = load(runs / TOLD, STAGES)
  p, diagnoses = jax.jit(original.outputs)(original.variables, images)
  assert original.diagnoses and np.std(diagnoses) > 1e-3
  again = load(exports(TOLD, 'orbax'), STAGES)
  assert again.class_names == original.class_names and again.digest == original.digest
  home = exports(TOLD, 'stablehlo')
  done = elsewhere(home, '-c', DRIVER, pictures, tmp_path / 'results.npz')
  assert (done.returncode, done.stdout) == (0, '\n'), done.stderr
  found = files.read(tmp_path / 'results.npz')
  told_there = np.stack([found[f'{name} class_probabilities'] for name in names])
  np.testing.assert_allclose(told_there, diagnoses, atol=1e-3)
  assert [found[f'{name} class'] for name in names] == told_there.argmax(-1).tolist()
  card = (home / 'MODEL_CARD.md').read_text()
  assert f'says: lesion; of the image as a whole: {", ".join(original.class_names)}' in card
  assert '| accuracy |' in card and '| dice |' in card
  weights = files.read(exports(TOLD, 'npz') / 'weights.npz')
  assert not [name for name in weights if 'diagnosis' in name] and 'outc.conv.weight' in weights
  assert 'those layers are left out' in (exports(TOLD, 'npz') / 'MODEL_CARD.md').read_text()
  ours = onnx_model.run(exports(TOLD, 'onnx') / 'model.onnx', images)
  for one, other in zip(ours, (p, diagnoses), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_load_py_is_a_command_and_says_in_a_line_what_is_wrong(commands, exports, runs, tmp_path):
  home = exports('segment', 'stablehlo')
  np.save(
    tmp_path / 'images.npy', np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
  )
  done = elsewhere(home, 'load.py', tmp_path / 'images.npy', tmp_path / 'results')
  assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
  with np.load(tmp_path / 'results', allow_pickle=False) as found:
    assert {name: found[name].shape for name in found} == {
      'mask': (2, 40, 30),
      'probabilities': (2, 40, 30),
    }
  again = elsewhere(home, 'load.py', tmp_path / 'images.npy', tmp_path / 'results')
  assert (again.returncode, again.stderr.count('\n')) == (
    2,
    1,
  ) and 'a file that is not there yet' in again.stderr

  flags = (
    f'--checkpoint={runs}/segment',
    '--format=stablehlo',
    f'--out={tmp_path}/cuda',
    '--platforms=cuda',
  )
  assert commands.run('export', *flags).returncode == 0
  assert '- platforms: cuda\n' in (tmp_path / 'cuda/MODEL_CARD.md').read_text()
  done = elsewhere(tmp_path / 'cuda', 'load.py', tmp_path / 'images.npy', tmp_path / 'other.npz')
  line = (
    'error: this program is for cuda, and not for cpu; set JAX_PLATFORMS, or export it for that\n'
  )
  assert (done.returncode, done.stdout, done.stderr) == (2, '', line)
  done = elsewhere(
    home, 'load.py', tmp_path / 'images.npy', tmp_path / 'other.npz', JAX_PLATFORMS='cuda'
  )
  assert done.returncode == 2
  assert (
    'JAX does not find the device that JAX_PLATFORMS names; unset it'
    in done.stderr.splitlines()[-1]
  )
  assert not (tmp_path / 'other.npz').exists()


@pytest.mark.parametrize('stage', ['segment', 'classify', NORMED])
def test_onnxruntime_computes_what_jax_does(exports, originals, pictures, config, stage):
  home = exports(stage, 'onnx')
  _, images = seen(pictures, config.data.image_size)
  expected, _ = originals(stage, images)
  (found,) = onnx_model.run(home / 'model.onnx', images)
  difference = float(np.abs(found - expected).max())
  print(f'onnx, {stage}: probabilities {difference:.1e}')
  assert found.shape == expected.shape and difference <= 1e-4
  np.testing.assert_allclose(
    onnx_model.run(home / 'model.onnx', images[:1])[0], expected[:1], atol=1e-4
  )
  assert '- difference: at most ' in (home / 'MODEL_CARD.md').read_text()


@pytest.mark.parametrize('kind', ['npz', 'safetensors'])
@pytest.mark.parametrize('stage', ['segment', 'classify', NORMED])
def test_pytorch_takes_the_weights(
  torch_networks, exports, originals, pictures, config, stage, kind
):
  weights = files.read(exports(stage, kind) / f'weights.{kind}')
  model, (_, images) = config.model, seen(pictures, config.data.image_size)
  network = (
    torch_networks.UNet(width=model.unet_width)
    if stage == 'segment'
    else torch_networks.VGG16(
      2, width=model.vgg_width, hidden=model.vgg_hidden, pooled=1, norm=stage == NORMED
    )
  )
  theirs = torch_networks.put(network, weights)
  _, expected = originals(stage, images)
  said = '(value / 255 - 0.5) / 0.25'
  if stage == NORMED:
    said = '(value / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)'
  card = (exports(stage, kind) / 'MODEL_CARD.md').read_text()
  assert f'- takes: images scaled as {said}' in card
  scaled = eval(said, {'value': images})
  found = torch_networks.apply(theirs, scaled.astype(np.float32))
  print(f'{kind}, {stage}: logits {np.abs(found - expected).max():.1e}')
  assert found.shape == expected.shape and expected.std() > 1e-3
  np.testing.assert_allclose(found, expected, atol=1e-4)


def planned(stage, config, workdir):
  """The plan of a run, which is not begun."""
  return stage.plan(open_run(stage, config, workdir))


def first_state(plan, part=lambda state: state):
  """A part of the state that a training begins with; what it does not need is not compiled."""
  return jax.tree.map(np.asarray, jax.jit(lambda key: part(plan.task.init(key)))(jax.random.key(0)))


def equal(one, other):
  one, other = trees.flatten(one), trees.flatten(other)
  return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('kind', ['npz', 'safetensors'])
def test_weights_come_back_by_init_from_and_vgg_weights(exports, runs, config, tmp_path, kind):
  weights = exports('segment', kind) / f'weights.{kind}'
  plan = planned(SEGMENT, dataclasses.replace(config, init_from=str(weights)), tmp_path / 'run')
  state, trained = first_state(plan), load(runs / 'segment', STAGES)
  assert equal(state.params, trained.variables['params']) and equal(
    state.batch_stats, trained.variables['batch_stats']
  )
  assert plan.imported['at_random'] == {} and len(plan.imported['taken']) == 100

  weights = exports('classify', kind) / f'weights.{kind}'
  model = dataclasses.replace(config.model, vgg_weights=str(weights))
  plan = planned(CLASSIFY, dataclasses.replace(config, model=model), tmp_path / 'run')
  assert equal(first_state(plan).params, load(runs / 'classify', STAGES).variables['params'])
  assert plan.imported['at_random'] == {} and len(plan.imported['taken']) == 32


def test_weights_with_batch_norm_come_back_with_their_statistics(exports, runs, config, tmp_path):
  weights, trained = exports(NORMED, 'npz') / 'weights.npz', load(runs / NORMED, STAGES).variables
  plan = planned(CLASSIFY, normed(config, vgg_weights=str(weights)), tmp_path / 'run')
  state = first_state(plan)
  assert equal(state.params, trained['params']) and equal(state.batch_stats, trained['batch_stats'])
  assert (
    plan.imported['at_random'] == {}
    and plan.imported['unused'] == []
    and len(plan.imported['taken']) == 5 * 13 + 6
  )
  whole = load(exports(NORMED, 'orbax'), STAGES)
  assert whole.config.model.vgg_norm == 'batch' and equal(whole.variables, trained)
  assert trees.flatten(trained['batch_stats'])['trunk/conv5_3/norm/mean'].any()


def test_an_agents_trunk_starts_from_an_exported_vgg16(exports, runs, config, tmp_path, capsys):
  weights = exports('classify', 'npz') / 'weights.npz'
  model = dataclasses.replace(config.model, agent_trunk='vgg16', vgg_weights=str(weights))
  config = dataclasses.replace(config, model=model)
  planned(PRETRAIN, config, tmp_path / 'run')
  assert (
    'config.model.vgg_weights is not used: uniform masks without a VGG16' in capsys.readouterr().out
  )
  plan = planned(
    PRETRAIN,
    dataclasses.replace(config, masking=dataclasses.replace(config.masking, strategy='ahm')),
    tmp_path / 'run',
  )
  trunk = first_state(plan, lambda state: state.extra.params['trunk'])
  whole = load(runs / 'classify', STAGES).variables['params']['trunk']
  assert len(trunk) == 7 and equal(trunk, {name: whole[name] for name in trunk})


def test_a_pretrained_unet_is_started_from_as_from_its_run(exports, runs, config, tmp_path):
  states = []
  for origin in (runs / 'pretrain', exports('pretrain', 'orbax')):
    plan = planned(SEGMENT, dataclasses.replace(config, init_from=str(origin)), tmp_path / 'run')
    states.append(first_state(plan, lambda state: state.params))
  assert equal(states[0], states[1])
  assert equal(
    states[0]['encoder5'], load(runs / 'pretrain', STAGES).variables['params']['encoder5']
  )


def test_a_training_says_and_writes_down_what_it_took(
  exports, config, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(train, 'fit', fit_nothing)
  weights, run = exports('segment', 'npz') / 'weights.npz', tmp_path / 'run'
  stages.segment(dataclasses.replace(config, init_from=str(weights)), run)
  assert f'{weights}: 100 arrays loaded, 122,093 parameters\n' in capsys.readouterr().out
  report = json.loads((run / 'imported.json').read_text())
  assert report['file'] == str(weights) and len(report['taken']) == 100 and report['unused'] == []


def test_the_card_says_what_it_is(exports):
  home = exports('segment', 'npz')
  card = (home / 'MODEL_CARD.md').read_text()
  told = json.loads((home / 'export.json').read_text())
  for text in (
    '# Model card: segment\n',
    '**It is not a medical device.**',
    '- Licence: CC-BY-4.0. ',
    '- sees: RGB images, resized to 32 x 32 pixels\n',
    '- says: lesion\n',
    '- width: 4\n',
    f'- weights: SHA-256 `{told["digest"]}`, of step {told["step"]}\n',
    '- files: `weights.npz`, by the names and layouts of milesial/Pytorch-UNet\n',
    '- train: 12 images, 10 with a mask, 11 with a label\n',
    '- test: 5 images, 5 with a mask, 5 with a label\n',
    '- Trained on 6 images, ',
    "On the test split, at the images' own size, by launch.evaluate:\n",
    f'- jax {jax.__version__}\n',
    f'SHA-256 `{told["config_digest"]}`',
    '"unet_width": 4',
  ):
    assert text in card, text
  (row,) = [line for line in card.splitlines() if line.startswith('| dice |')]
  value, interval = (cell.strip() for cell in row.split('|')[2:4])
  low, high = map(float, interval.split(' to '))
  assert low <= float(value) <= high and float(value) == round(told['scores']['values']['dice'], 4)

  card = (exports('classify', 'npz') / 'MODEL_CARD.md').read_text()
  assert (
    '- says: a, b\n' in card
    and '| accuracy |' in card
    and 'torchvision.models.vgg16, with AdaptiveAvgPool2d(1)' in card
  )
  assert '- normalisation: none\n' in card
  card = (exports(NORMED, 'npz') / 'MODEL_CARD.md').read_text()
  assert (
    '- normalisation: batch\n' in card
    and 'torchvision.models.vgg16_bn, with AdaptiveAvgPool2d(1)' in card
  )
  card = (exports('pretrain', 'orbax') / 'MODEL_CARD.md').read_text()
  assert 'There are none: launch.evaluate was not run before the export.' in card
  assert (
    'it says nothing of an image until it is trained further' in card
    and '3 channels of the reconstructed image' in card
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (
      ('--format=tflite',),
      "--format is 'tflite'; it may be orbax, stablehlo, onnx, safetensors, npz",
    ),
    (
      ('--checkpoint={runs}/nowhere',),
      'there is no such folder; give the workdir of a pretrain or segment or classify run',
    ),
    (('--checkpoint={runs}',), 'holds no run; give the --workdir of'),
    (('--checkpoint={runs}/pretrain', '--format=stablehlo'), NO_OUTPUT),
    (('--checkpoint={runs}/pretrain', '--format=onnx'), NO_OUTPUT),
    (
      ('--checkpoint={npz}',),
      'is an export in the format npz; give one of --format=orbax, or the workdir of a run',
    ),
    (
      ('--checkpoint={wide}',),
      'is 4 in its weights but 8 by its config; give a folder whose weights and config belong',
    ),
    (
      ('--out={runs}/segment',),
      'is there already, and nothing is written over; choose a folder that is empty or not there',
    ),
    (('--out={runs}/segment/run.json',), 'is there already, and nothing is written over'),
    (
      ('--format=stablehlo', '--platforms=tpu'),
      "--platforms has 'tpu', which there is no export for; choose among cpu, cuda",
    ),
    (('--format=stablehlo', '--platforms='), 'choose among cpu, cuda'),
    (('--checkpoint=',), '--checkpoint is empty; see --help'),
    (('--out=',), '--out is empty; see --help'),
  ],
)
def test_wrong_input_ends_with_one_line_and_writes_nothing(
  commands, exports, runs, tmp_path, flags, message
):
  for kind in ('stablehlo', 'onnx'):
    if f'--format={kind}' in flags:
      installed(kind)
  wide = tmp_path / 'wide'
  if '{wide}' in flags[0]:
    shutil.copytree(runs / 'segment', wide)
    (wide / 'run.json').write_text(
      (wide / 'run.json').read_text().replace('"unet_width": 4', '"unet_width": 8')
    )
  before = tree(runs)
  flags = [flag.format(runs=runs, wide=wide, npz=exports('segment', 'npz')) for flag in flags]
  done = commands.run(
    'export', f'--checkpoint={runs}/segment', '--format=npz', f'--out={tmp_path}/out', *flags
  )
  assert (done.returncode, done.stdout) == (2, ''), done.stderr
  assert message in done.stderr and done.stderr.count('\n') == 1
  assert tree(runs) == before and {path.name for path in tmp_path.iterdir()} <= {'wide'}


@pytest.mark.parametrize(
  ('stage', 'flags', 'message'),
  [
    (
      'segment',
      ('--config.init_from={npz}', '--config.model.unet_width=8'),
      'inc.double_conv.0.weight is 4x3x3x3, not 8x3x3x3',
    ),
    ('segment', ('--config.init_from={vgg}',), 'inc.double_conv.0.weight is missing'),
    (
      'segment',
      ('--config.init_from=unet.pth',),
      'unet.pth is neither .safetensors nor .npz; convert it, in Python with PyTorch',
    ),
    (
      'segment',
      ('--config.init_from={segment}',),
      'is an export of a segment run; give one of a pretrain run',
    ),
    ('classify', ('--config.model.vgg_weights={npz}',), 'features.0.weight is missing'),
    (
      'classify',
      ('--config.model.vgg_weights={vgg}', '--config.model.vgg_width=8'),
      'features.0.weight is 4x3x3x3, not 8x3x3x3',
    ),
    (
      'classify',
      ('--config.model.vgg_weights={vgg}', '--config.model.vgg_norm=batch'),
      'is a VGG16 without batch normalisation, and nothing is loaded; give '
      "--config.model.vgg_norm=''",
    ),
    (
      'classify',
      ('--config.model.vgg_weights={normed}', '--config.model.vgg_norm=batch'),
      'is a VGG16 that we exported, trained on images scaled as (value / 255 - (0.485, 0.456, '
      '0.406)) / (0.229, 0.224, 0.225), RGB, and nothing is loaded; give '
      '--config.model.vgg_input=torchvision\n',
    ),
    (
      'reproduce',
      ('--config.model.vgg_weights={normed}', '--config.model.vgg_norm='),
      'is a VGG16 with batch normalisation, and nothing is loaded; give '
      '--config.model.vgg_norm=batch',
    ),
    (
      'classify',
      ('--config.model.vgg_weights=vgg16.h5',),
      'vgg16.h5 is neither .safetensors nor .npz; convert it, in Python with',
    ),
    ('classify', ('--config.model.vgg_weights=nowhere.npz',), 'nowhere.npz: there is no such file'),
  ],
)
def test_weights_that_do_not_fit_begin_nothing(
  commands, exports, config_file, tmp_path, stage, flags, message
):
  homes = {'npz': 'segment', 'vgg': 'classify', 'normed': NORMED}
  places = {name: exports(stage, 'npz') / 'weights.npz' for name, stage in homes.items()}
  flags = [flag.format(**places, segment=exports('segment', 'orbax')) for flag in flags]
  base = (f'--config={config_file}', f'--workdir={tmp_path}/run', '--config.classify.input=image')
  done = commands.run(stage, *base, *flags)
  assert done.returncode == 2, done.stderr
  assert message in done.stderr and done.stderr.count('\n') == 1
  assert not (tmp_path / 'run').exists()


def test_help_and_missing_flags(commands):
  done = commands.run('export', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  assert (
    '\n  python -m launch.export --checkpoint=' in done.stdout
    and max(map(len, done.stdout.splitlines())) <= 100
  )
  done = commands.run('export', '--checkpoint=x', '--format=npz')
  assert (done.returncode, done.stderr) == (2, 'error: --out is missing; see --help\n')
