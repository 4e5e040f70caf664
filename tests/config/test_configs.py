"""What the files in configs/ hold."""

import dataclasses

import pytest

from ahm_jax.config import SCRATCH, default, from_config_dict, with_method
from ahm_jax.errors import UserError
from ahm_jax.pipeline.grid import check_methods
from configs import busi_cpu, folder, isic, isic2018, isic_cpu, phantom, phantom_mri, smoke

VARIANTS = [
  (smoke, ('',)),
  (phantom_mri, ('',)),
  (phantom, ('', 'baselines', 'ablations')),
  *((module, ('', 'baselines', 'ablations', 'few')) for module in (isic_cpu, busi_cpu)),
  (folder, ('', 'few', 'cpu', 'cpu_few', 'paper')),
  (isic2018, ('', 'cpu', 'paper')),
  (isic, ('', 'paper')),
]


@pytest.mark.parametrize(
  ('module', 'variant'), [(module, variant) for module, names in VARIANTS for variant in names]
)
def test_every_variant_is_a_config(module, variant):
  tree = module.get_config(variant) if variant else module.get_config()
  tree.data.root = '/somewhere'
  c = from_config_dict(tree)
  assert len(set(c.grid.methods)) == len(c.grid.methods)
  check_methods(c)
  for method in c.grid.methods:
    named = c.grid.variants.get(method, {'strategy': method.partition(':')[0]})
    if named['strategy'] != SCRATCH:
      assert with_method(c, method).masking.strategy == named['strategy']


@pytest.mark.parametrize(
  ('module', 'variant', 'using'),
  [
    (isic_cpu, 'few', {'uniform_consistency', 'ahm_consistency', 'scratch_consistency'}),
    (busi_cpu, 'few', {'uniform_consistency', 'ahm_consistency', 'scratch_consistency'}),
    (folder, 'few', {'scratch', 'uniform', 'ahm'}),
    (folder, 'cpu_few', {'scratch', 'uniform', 'ahm'}),
    (folder, 'cpu', set()),
  ],
)
def test_which_methods_use_unlabelled_images(module, variant, using):
  tree = module.get_config(variant)
  tree.data.root = '/somewhere'
  c = from_config_dict(tree)
  recipes = {method: with_method(c, method).segment for method in c.grid.methods}
  assert {name for name, recipe in recipes.items() if recipe.unlabelled.batch_size} == using
  assert all(recipes[name].unlabelled.agreement == 0.9 for name in using)


def test_a_control_differs_in_the_unlabelled_images_alone():
  tree = isic_cpu.get_config('few')
  tree.data.root = '/somewhere'
  control, recipe = (
    with_method(from_config_dict(tree), name).segment
    for name in ('scratch_control', 'scratch_consistency')
  )
  assert dataclasses.replace(recipe, unlabelled=control.unlabelled) == control != recipe
  tree.grid.variants.scratch_control.segment.augment.zoom_out = 0.9
  assert with_method(from_config_dict(tree), 'scratch_consistency').segment == recipe


@pytest.mark.parametrize('module', [module for module, names in VARIANTS if len(names) > 1])
def test_a_variant_that_is_not_there_is_refused_by_the_file_that_was_asked(module):
  name = module.__name__.replace('.', '/')
  others = ', '.join(filter(None, module.VARIANTS if module is not busi_cpu else isic_cpu.VARIANTS))
  with pytest.raises(
    UserError, match=f"^{name}.py has no variant 'gpu'; choose one of {others}, or"
  ):
    module.get_config('gpu')


def test_the_paper_variant_is_the_defaults():
  ours = default().to_dict()
  ours['data']['name'], ours['grid']['labels'] = 'folder', (20, 50, 100)
  assert isic.get_config('paper').to_dict() == ours


def test_the_defaults_are_the_published_hyper_parameters():
  """Pre-training Adam 2e-4, batch 12.

  Segmentation Adam 3e-4, less 10 % every 3 epochs, batch 4; 224 px; the agent a VGG16.
  """
  paper = isic.get_config('paper')
  assert (paper.pretrain.optimizer, paper.pretrain.learning_rate, paper.pretrain.batch_size) == (
    'adam',
    2e-4,
    12,
  )
  segment = paper.segment
  assert (segment.optimizer, segment.learning_rate, segment.batch_size) == ('adam', 3e-4, 4)
  assert (segment.schedule, segment.decay_rate, segment.decay_epochs) == ('staircase', 0.9, 3.0)
  assert (paper.data.image_size, paper.model.agent_trunk) == (224, 'vgg16')
