"""launch.evaluate --comparator as a user types it, with a tiny model of random weights."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('torch')
pytest.importorskip('transformers')

from ahm_jax.config import Config, DataConfig, EvaluateConfig, MaskingConfig, ModelConfig
from ahm_jax.data import dataset
from ahm_jax.evaluation.masks import predicted_mask
from ahm_jax.models.build import segmentation_unet
from ahm_jax.models.layers import init_variables
from ahm_jax.pipeline import lesions
from ahm_jax.pipeline.evaluate import compare, evaluate
from ahm_jax.pipeline.stages import SEGMENT
from ahm_jax.runs import directory
from ahm_jax.runs.checkpoints import Checkpoints, Progress
from ahm_jax.runs.trained import load
from ahm_jax.runtime import parallel
from ahm_jax.sam import model as sam
from ahm_jax.sam.compare import Options
from ahm_jax.sam.prompts import prompts
from ahm_jax.task import TrainState
from tests.sam.tiny_sam import tiny_model

pytestmark = pytest.mark.usefixtures('one_torch_thread')


@pytest.fixture(scope='module')
def commands(commands):
  commands.preload('torch', 'transformers.models.sam.modeling_sam')
  return commands


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  path = tmp_path_factory.mktemp('sam') / 'tiny'
  tiny_model().save_pretrained(path)
  return path


@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
  """The workdir of a segmentation, whose weights are random, that was evaluated.

  Not to be changed.
  """
  home = tmp_path_factory.mktemp('trained')
  config = Config(
    data=DataConfig(
      name='folder', root=str(folder), image_size=16, prepared_dir=str(home / 'data')
    ),
    model=ModelConfig(unet_width=2),
    masking=MaskingConfig(patch_size=8),
    evaluate=EvaluateConfig(batch_size=4, bootstrap_samples=100),
  )
  workdir = home / 'segment'
  unet, rng = segmentation_unet(config.model, 0), np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: init_variables(unet, jax.random.key(0), (1, 16, 16, 3)))
  drawn = jax.tree.map(
    lambda leaf: jnp.float32(rng.uniform(0.1, 1, leaf.shape) * rng.choice([-1, 1], leaf.shape)),
    shapes,
  )
  statistics = jax.tree.map(jnp.abs, drawn['batch_stats'])  # A variance is above 0.
  state = TrainState(jnp.array(1, jnp.int32), drawn['params'], statistics, (), ())
  directory.claim(workdir, 'segment', config)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(parallel.replicate(state, jax.local_devices()[:1]), Progress().after(1, 0.5))
  evaluate(config, workdir)
  return workdir


@pytest.fixture
def run(trained, tmp_path):
  """A copy of it."""
  return shutil.copytree(trained, tmp_path / 'run')


def counts(path):
  with path.open(newline='') as file:
    return {
      row['image']: [int(row[key]) for key in ('tp', 'fp', 'fn')] for row in csv.DictReader(file)
    }


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image)


def by_hand(found, truth):
  return [int((found & truth).sum()), int((found & ~truth).sum()), int((truth & ~found).sum())]


def evaluate_flags(config_file, workdir, weights, **flags):
  return [
    f'--config={config_file}',
    f'--workdir={workdir}',
    f'--sam_checkpoint={weights}',
    *(f'--{name}={value}' for name, value in flags.items()),
  ]


def test_boxes_from_the_truth_beside_our_unet(commands, config_file, folder, run, weights):
  before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
  options = {'comparator': 'sam', 'sam_prompt': 'box', 'sam_prompt_from': 'truth', 'sam_margin': 2}
  done = commands.succeed('evaluate', *evaluate_flags(config_file, run, weights, **options))
  new = {path.name for path in run.iterdir() if path.is_file()} - set(before)
  assert new == {'evaluation_sam_box_truth.json', 'per_image_sam_box_truth.csv'}
  assert all((run / name).read_bytes() == data for name, data in before.items())

  model = sam.load(str(weights))
  found = counts(run / 'per_image_sam_box_truth.csv')
  assert list(found) == list(counts(run / 'per_image.csv')) and len(found) == 5
  for name, row in found.items():
    truth = pixels(folder / f'masks/{name}.png') > 0
    image = pixels(next((folder / 'images').glob(f'{name}.*')))
    rows, columns = np.nonzero(truth)
    bottom, right = np.subtract(truth.shape, 1)
    box = (
      max(columns.min() - 2, 0),
      max(rows.min() - 2, 0),
      min(columns.max() + 2, right),
      min(rows.max() + 2, bottom),
    )
    logits = model.logits(image, 'box', [tuple(map(int, box))])[0]
    assert 0 < (logits > 0).mean() < 1
    assert row == by_hand(logits > 0, truth)

  scores = json.loads((run / 'evaluation_sam_box_truth.json').read_text())
  own = json.loads((run / 'evaluation.json').read_text())
  assert scores['split'] == own['split'] == 'test'
  for key in ('dice', 'iou', 'hd95', 'precision', 'recall', 'pooled_dice', 'images', 'missed'):
    assert scores['unet'][key] == pytest.approx(own[key])
  assert scores['difference']['dice'] == pytest.approx(scores['dice'] - own['dice'])
  ours, theirs = (
    line for line in done.stdout.splitlines() if line.startswith(('our U-Net', 'Segment Anything'))
  )
  assert f' {own["dice"]:.3f} [' in ours
  assert (
    theirs.startswith('Segment Anything, box + 2 px from truth')
    and f' {scores["dice"]:.3f} [' in theirs
  )


@pytest.mark.parametrize('comparator, prompt', [('sam', 'point'), ('medsam', 'box')])
def test_prompts_from_our_unet(run, weights, folder, comparator, prompt):
  segmenter = load(run, (SEGMENT,))
  result = compare(Options(comparator, str(weights), prompt), segmenter.config, run)
  model, split = sam.load(str(weights)), dataset.load(segmenter.config.data, run).splits['test']
  probabilities = lesions.probabilities(segmenter, split.images)
  found = counts(run / f'per_image_{comparator}_{prompt}_unet.csv')
  prompted = 0
  for name, probability in zip(split.ids, probabilities, strict=True):
    truth = pixels(folder / f'masks/{name}.png') > 0
    image = pixels(next((folder / 'images').glob(f'{name}.*')))
    drawn = prompts(predicted_mask(probability, truth.shape, 0.5), prompt)
    prompted += len(drawn)
    masks = (
      model.masks(comparator, image, prompt, drawn) if drawn else np.zeros((1, *truth.shape), bool)
    )
    assert found[name] == by_hand(masks.any(0), truth)
  assert prompted and result['comparator']['prompt_from'] == 'unet'


@pytest.mark.parametrize(
  'flags, said',
  [
    (
      {'sam_prompt': 'box'},
      'error: --sam_checkpoint goes with --comparator=sam or --comparator=medsam only',
    ),
    (
      {'comparator': 'sam', 'sam_prompt': 'ring'},
      'error: flag --sam_prompt=ring: value should be one of <box|point>',
    ),
    (
      {'comparator': 'sam', 'sam_prompt_from': 'me'},
      'error: flag --sam_prompt_from=me: value should be one of <unet|truth>',
    ),
    ({'comparator': 'vit'}, 'error: flag --comparator=vit: value should be one of <sam|medsam>'),
    (
      {'comparator': 'sam', 'sam_margin': -1},
      'error: flag --sam_margin=-1: -1 is not a non-negative integer',
    ),
    (
      {'comparator': 'sam', 'sam_margin': 1, 'sam_prompt': 'point'},
      'error: --sam_margin widens boxes',
    ),
    ({'comparator': 'medsam', 'sam_prompt': 'point'}, 'error: MedSAM was trained with boxes only'),
    ({'comparator': 'sam', 'sam_checkpoint': ''}, 'error: --comparator=sam needs --sam_checkpoint'),
    (
      {'comparator': 'sam', 'sam_checkpoint': '/none'},
      'error: --sam_checkpoint=/none: there is no such file or folder',
    ),
    (
      {'comparator': 'sam', 'sam_checkpoint': '.'},
      'error: --sam_checkpoint=. is no SAM or MedSAM checkpoint: it has no config',
    ),
    (
      {'comparator': 'sam', 'sam_checkpoint': 'README.md'},
      'error: --sam_checkpoint=README.md is no SAM or MedSAM checkpoint: it cannot be read as '
      'weights alone, and nothing else',
    ),
  ],
)
def test_wrong_flags(commands, config_file, trained, weights, flags, said):
  before = sorted(trained.rglob('*'))
  done = commands.run('evaluate', *evaluate_flags(config_file, trained, weights, **flags))
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr.startswith(said) and done.stderr.count('\n') == 1
  assert sorted(trained.rglob('*')) == before


@pytest.mark.parametrize('stage', ['pretrain', 'classify'])
def test_runs_of_other_stages(commands, config_file, trained, weights, tmp_path, stage):
  (tmp_path / 'other').mkdir()
  held = json.loads((trained / 'run.json').read_text())
  (tmp_path / 'other/run.json').write_text(json.dumps(held | {'stage': stage}))
  done = commands.run(
    'evaluate', *evaluate_flags(config_file, tmp_path / 'other', weights, comparator='sam')
  )
  assert done.returncode == 2
  assert (
    done.stderr
    == f'error: {tmp_path}/other holds a {stage} run; give the --workdir of a segment run\n'
  )


def test_help_says_how(commands):
  done = commands.run('evaluate', '--help')
  assert done.returncode == 0
  for flag in (
    '--comparator=',
    '--sam_checkpoint=',
    '--sam_prompt=',
    '--sam_prompt_from=',
    '--sam_margin=',
  ):
    assert f'\n  {flag}' in done.stdout
