r"""Your own images: a folder of images, with masks and labels for some of them.

  DIR/images/NAME.jpg   (or .png, .bmp, .tif, .webp), of any size
  DIR/masks/NAME.png    one channel, 0 and 255 or 0 and 1, of the image's size
  DIR/labels.csv        columns image,label,split,group; of them only image is required

An image without a mask, or without a row in labels.csv, serves pre-training only (one with a label but no mask
serves classification too); the run says how many there are. Without labels.csv, every image with a mask serves segmentation.
split is train, validation or test, and the images of one group (a patient, near-duplicates) share it. Without that column the
groups are dealt to the splits from config.data.split_seed, in the shares config.data.split_fractions. Then:

  launch/with_env python -m launch.prepare_data --config=configs/folder.py --config.data.root=DIR --workdir=runs/mine
  launch/with_env python -m launch.pretrain --config=configs/folder.py --config.data.root=DIR --workdir=runs/mine_ahm
  launch/with_env python -m launch.segment --config=configs/folder.py --config.data.root=DIR --workdir=runs/mine_50 \
    --config.init_from=runs/mine_ahm --config.data.labels=50
  launch/with_env python -m launch.reproduce --config=configs/folder.py --config.data.root=DIR --workdir=runs/mine_grid

prepare_data checks every file, and can be left out: the others prepare what they need. reproduce runs the whole comparison of
scratch, uniform and ahm, at the numbers of labels in config.grid.labels. The sizes are a GPU's work, 224 px and base width 64;
on 2 cores use the variant --config=configs/folder.py:cpu, 64 px and base width 16.
"""

from ahm_jax.errors import UserError
from configs import isic, isic_cpu

VARIANTS = {'': isic.get_config, 'cpu': isic_cpu.get_config}


def get_config(variant=''):
  if variant not in VARIANTS:
    raise UserError(f'configs/folder.py has no variant {variant!r}; use configs/folder.py or configs/folder.py:cpu')
  return VARIANTS[variant]()
