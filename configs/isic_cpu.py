"""ISIC dermoscopy at a size that 2 cores can do: 64 px, base width 16. Its variants are the tables
of BUILD_NOTES.md.

  launch/with_env python -m launch.reproduce --config=configs/isic_cpu.py --config.data.root=DIR
  --workdir=runs/isic_cpu

DIR is laid out as configs/folder.py says. Without a variant: no pre-training, uniform and adaptive
masks at 10 to all labels; isic_cpu.py:baselines compares all strategies at 20 and 50,
isic_cpu.py:ablations changes one thing of AHM at a time. A variant can go on in the --workdir of
another: what they share is computed once.
"""

from ahm_jax import config
from ahm_jax.errors import UserError
from configs import isic

BASELINES = (
  'blockwise',
  'saliency',
  'untrained',
  'reinforce',
  'anatomask',
  'hpm',
  'adamae',
  'adios',
)
CHANGES = (
  *('entropy_weight=0.0', 'budget=none', 'budget=tile', 'model.agent_trunk=vgg16'),
  *('workers=1', 'workers=8', 'rounds=2', 'rounds=3'),
  *(
    'mask_ratio=0.4',
    'mask_ratio=0.75',
    'mask_ratio=0.9',
    'patch_size=4',
    'patch_size=16',
    'patch_size=32',
  ),
  *('polarity=easy', 'reward=rank', 'reward=progress', 'reward_within=image'),
)
OWN_CHANGES = ('restore_colour=False', 'warmup_by=logits+hard_share=1.0')
ABLATIONS = (
  'untrained',
  'reinforce',
  *(f'ahm:{change}' for change in (*CHANGES, *OWN_CHANGES)),
)  # reinforce: no critic.
VARIANTS = {
  '': (('scratch', 'uniform', 'ahm'), (10, 20, 50, 100, 0), (0, 1, 2, 3, 4)),
  'baselines': (('scratch', 'uniform', *BASELINES, 'ahm'), (20, 50), (0, 1, 2, 3, 4)),
  'ablations': (('uniform', *ABLATIONS, 'ahm'), (20,), (0, 1, 2)),
}


def get_config(variant=''):
  if variant not in VARIANTS:
    raise UserError(
      f'configs/isic_cpu.py has no variant {variant!r}; choose one of {", ".join(filter(None, VARIANTS))}'
    )
  c = config.default()
  c.data.name = 'folder'
  c.data.image_size = 64
  c.model.unet_width = 16
  c.model.agent_trunk, c.model.agent_width = 'light', 16
  c.model.vgg_width, c.model.vgg_hidden = 8, 128
  c.masking.patch_size = 8
  isic.best(c)
  c.pretrain.batch_size, c.pretrain.steps, c.pretrain.epochs = 16, 3000, None

  c.grid.methods, c.grid.labels, c.grid.seeds = VARIANTS[variant]
  return c
