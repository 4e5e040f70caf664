"""ISIC dermoscopy at the size and with the recipe of the report this project answers to (224 px, base width 64; a GPU's work).

  launch/with_env python -m launch.reproduce --config=configs/isic.py --config.data.root=DIR --workdir=runs/isic

DIR is laid out as configs/folder.py says. The report had one seed, no test set and private images: Dice 0.6000 from scratch,
0.6345 with AHM. Not run here yet: no GPU was at hand.
"""

from ahm_jax import config


def get_config():
  c = config.default()
  c.data.name = 'folder'
  c.grid.labels = (20, 50, 100)
  return c
