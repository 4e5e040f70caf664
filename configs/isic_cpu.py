r"""ISIC dermoscopy at a size that 2 cores can do: 64 px, base width 16.

  launch/with_env python -m launch.reproduce --config=configs/isic_cpu.py --config.data.root=DIR \
    --workdir=runs/isic_cpu

DIR is laid out as configs/folder.py says.

Reached on 211 test images, over 20 and 50 labels together, 10 seeds: mean Dice from scratch 0.785,
after uniform masks 0.794, after adaptive hard masks 0.799. Adaptive masks gain +0.013
[+0.003, +0.023] over scratch; over uniform masks +0.004 [-0.005, +0.013], so no gain is shown. With
all labels, 5 seeds: 0.839, 0.840, 0.840, adaptive - scratch +0.001 [-0.011, +0.013]. Balanced
accuracy of the classification after it, adaptive - scratch, 7 seeds: -0.002 [-0.028, +0.023].

Variants; each can be run in the --workdir of another, since what they share is computed once:
- isic_cpu.py:baselines compares all strategies at 20 and 50 labels. Run with 3 seeds: over both
  numbers of labels none of eight differs from adaptive masks, the highest, HPM, by +0.003
  [-0.022, +0.027].
- isic_cpu.py:ablations changes one thing of AHM at a time. Not run.
- isic_cpu.py:few has methods that use the unlabelled images again while they segment. Not run on
  test yet.

Tables and commands: BUILD_NOTES.md.
"""

from ahm_jax import config
from configs import isic

BASELINES = (
  *('blockwise', 'saliency', 'untrained', 'reinforce'),
  *('anatomask', 'hpm', 'adamae', 'adios'),
)
CHANGES = (
  *('entropy_weight=0.0', 'budget=none', 'budget=tile', 'model.agent_trunk=vgg16'),
  *('workers=1', 'workers=8', 'rounds=2', 'rounds=3'),
  *('mask_ratio=0.4', 'mask_ratio=0.75', 'mask_ratio=0.9'),
  *('patch_size=4', 'patch_size=16', 'patch_size=32'),
  *('polarity=easy', 'reward=rank', 'reward=progress', 'reward_within=image'),
)
OWN_CHANGES = ('restore_colour=False', 'warmup_by=logits+hard_share=1.0')
# 'reinforce' has no critic.
ABLATIONS = ('untrained', 'reinforce', *(f'ahm:{change}' for change in (*CHANGES, *OWN_CHANGES)))
FEW = (
  *('scratch', 'uniform', 'ahm', 'scratch_control'),
  *('scratch_consistency', 'uniform_consistency', 'ahm_consistency'),
)
VARIANTS = {
  '': (('scratch', 'uniform', 'ahm'), (10, 20, 50, 100, 0), (0, 1, 2, 3, 4)),
  'baselines': (('scratch', 'uniform', *BASELINES, 'ahm'), (20, 50), (0, 1, 2, 3, 4)),
  'ablations': (('uniform', *ABLATIONS, 'ahm'), (20,), (0, 1, 2)),
  'few': (FEW, (20, 50), tuple(range(10))),
}


def get_config(variant=''):
  config.check_variant(__file__, variant, VARIANTS)
  c = config.default()
  c.data.name = 'folder'
  c.data.image_size = 64
  c.model.unet_width = 16
  c.model.agent_trunk, c.model.agent_width = 'light', 16
  c.model.vgg_width, c.model.vgg_hidden = 8, 128
  c.masking.patch_size = 8
  isic.best(c)
  isic.with_consistency(c)
  c.pretrain.update(batch_size=16, steps=3000, epochs=None)

  c.grid.methods, c.grid.labels, c.grid.seeds = VARIANTS[variant]
  if variant == 'few':
    c.grid.baselines = ('scratch', 'scratch_control', 'scratch_consistency', 'uniform_consistency')
  return c
