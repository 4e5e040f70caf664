r"""BUSI breast ultrasound at a size that 2 cores can do, with the recipe of configs/isic_cpu.py and
longer fine-tuning.

  launch/with_env python -m launch.reproduce --config=configs/busi_cpu.py --config.data.root=DIR \
    --workdir=runs/busi_cpu

DIR is laid out as configs/folder.py says. Images of normal breasts count in classification and in
false positives.

Reached on 111 test images, 5 seeds, mean Dice from scratch, after uniform and after adaptive hard
masks: 0.511, 0.518, 0.487 with 20 labels; 0.564, 0.559, 0.585 with 50; 0.632, 0.630, 0.632 with all
480. Over 20 and 50 labels together, over the images that both score, adaptive - scratch is -0.017
[-0.053, +0.019] and adaptive - uniform -0.003 [-0.036, +0.030]; with all, -0.006 [-0.035, +0.024]
and +0.001 [-0.028, +0.030]. No gain is shown. Balanced accuracy of the classification after it,
adaptive - scratch, over 20 and 50 labels: +0.043 [-0.067, +0.152].

The variants busi_cpu.py:baselines, all strategies, busi_cpu.py:ablations, one thing of AHM changed
at a time, and busi_cpu.py:few, unlabelled images used again while it segments, are not run. Tables:
BUILD_NOTES.md.
"""

from ahm_jax import config
from configs import isic_cpu


def get_config(variant=''):
  config.check_variant(__file__, variant, isic_cpu.VARIANTS)
  c = isic_cpu.get_config(variant)
  c.pretrain.steps = 1500
  c.segment.steps, c.segment.min_epochs = 3000, 40.0
  if not variant:
    c.grid.labels = (20, 50, 0)
  return c
