"""BUSI breast ultrasound at a size that 2 cores can do, with the recipe of configs/isic_cpu.py and
longer fine-tuning.

  launch/with_env python -m launch.reproduce --config=configs/busi_cpu.py --config.data.root=DIR
  --workdir=runs/busi_cpu

DIR is laid out as configs/folder.py says. Images of normal breasts count in classification and in
false positives. The variant busi_cpu.py:baselines compares all strategies.
"""

from configs import isic_cpu


def get_config(variant=''):
  c = isic_cpu.get_config(variant)
  c.pretrain.steps = 1500
  c.segment.steps, c.segment.min_epochs = 3000, 40.0
  if not variant:
    c.grid.labels = (20, 50, 0)
  return c
