"""ISIC dermoscopy at a size that 2 cores can do: 64 px, base width 16.

  launch/with_env python -m launch.reproduce --config=configs/isic_cpu.py --config.data.root=DIR --workdir=runs/isic_cpu

DIR is laid out as configs/folder.py says. Expect Dice of 0.74 to 0.76 with 20 labels and 0.77 to 0.78 with 50, whatever the
pre-training (3 seeds, 211 test images; the intervals are in BUILD_NOTES.md), and an agent with a difficulty rank correlation of
0.50, a hardness ratio of 1.74 and a border lift of 1.30. About two and a quarter hours on 2 cores.
"""

from ahm_jax import config


def get_config():
  c = config.default()
  c.data.name = 'folder'
  c.data.image_size = 64
  c.model.unet_width = 16
  c.model.agent_trunk, c.model.agent_width = 'light', 16
  c.model.vgg_width, c.model.vgg_hidden = 16, 128
  c.masking.patch_size = 8
  c.masking.learning_rate = 1e-3

  c.pretrain.optimizer, c.pretrain.weight_decay, c.pretrain.clip = 'adamw', 1e-4, 1.0
  c.pretrain.schedule, c.pretrain.warmup, c.pretrain.learning_rate = 'cosine', 0.1, 1e-3
  c.pretrain.batch_size, c.pretrain.steps, c.pretrain.epochs = 32, 3000, None
  c.segment.optimizer, c.segment.weight_decay, c.segment.schedule, c.segment.warmup = 'adamw', 1e-4, 'cosine', 0.1
  c.segment.learning_rate, c.segment.batch_size, c.segment.steps, c.segment.epochs = 1e-3, 8, 400, None
  c.segment.patience = 0
  c.classifier.optimizer, c.classifier.schedule, c.classifier.warmup = 'adamw', 'cosine', 0.1
  c.classifier.learning_rate, c.classifier.batch_size, c.classifier.steps, c.classifier.epochs = 3e-4, 16, 300, None
  c.classifier.patience = 0

  c.grid.labels, c.grid.seeds = (20, 50), (0, 1, 2)
  return c
