"""The embedded default: dermoscopy phantoms drawn from a seed, a grid that 2 cores finish in a few
minutes.

  launch/with_env python -m launch.reproduce --config=configs/phantom.py --workdir=runs/phantom

Expect Dice of about 0.78 from scratch, 0.81 after uniform and 0.80 after adaptive masks (20 labels,
3 seeds; intervals in BUILD_NOTES.md), and an agent with a difficulty rank correlation of about
0.65, a hardness ratio and a border lift of about 1.6. Five seeds show no gain of either.
phantom.py:baselines compares all strategies, phantom.py:ablations changes one thing of AHM at a
time; both without classification.
"""

from ahm_jax import config
from ahm_jax.errors import UserError
from configs.isic_cpu import BASELINES, CHANGES

OWN_CHANGES = ('restore_colour=True', 'warmup_by=share+hard_share=0.5', 'warmup=0.0')
VARIANTS = {
  '': (('scratch', 'uniform', 'ahm'), (0, 1, 2)),
  'baselines': (('scratch', 'uniform', *BASELINES, 'ahm'), (0, 1, 2, 3, 4)),
  'ablations': (
    (
      'scratch',
      'uniform',
      'untrained',
      'reinforce',
      *(f'ahm:{change}' for change in (*CHANGES, *OWN_CHANGES)),
      'ahm',
    ),
    (0, 1, 2, 3, 4),
  ),
}


def get_config(variant=''):
  if variant not in VARIANTS:
    raise UserError(
      f'configs/phantom.py has no variant {variant!r}; choose baselines, ablations, or none'
    )
  c = config.default()
  c.data.image_size = 64
  c.data.phantom.train, c.data.phantom.validation, c.data.phantom.test = 800, 60, 120
  c.model.unet_width = 8
  c.model.agent_trunk, c.model.agent_width = 'light', 16
  c.model.vgg_width, c.model.vgg_hidden = 8, 64
  c.masking.patch_size = 8
  c.masking.learning_rate = 1e-3

  c.pretrain.optimizer, c.pretrain.weight_decay = 'adamw', 1e-4
  c.pretrain.schedule, c.pretrain.warmup, c.pretrain.clip = 'cosine', 0.1, 1.0
  c.pretrain.learning_rate, c.pretrain.batch_size, c.pretrain.steps, c.pretrain.epochs = (
    2e-3,
    16,
    250,
    None,
  )
  c.segment.optimizer, c.segment.weight_decay, c.segment.schedule, c.segment.warmup = (
    'adamw',
    1e-4,
    'cosine',
    0.1,
  )
  c.segment.learning_rate, c.segment.batch_size, c.segment.steps, c.segment.epochs = (
    1e-3,
    8,
    150,
    None,
  )
  c.segment.patience = 0
  c.pretrain.eval_every, c.segment.eval_every, c.classifier.eval_every = 125, 30, 20
  c.classifier.optimizer, c.classifier.schedule, c.classifier.warmup = 'adamw', 'cosine', 0.1
  c.classifier.learning_rate, c.classifier.batch_size, c.classifier.steps, c.classifier.epochs = (
    5e-4,
    16,
    80,
    None,
  )
  c.classifier.patience = 0

  c.grid.labels, c.grid.classify = (20,), not variant
  c.grid.methods, c.grid.seeds = VARIANTS[variant]
  return c
