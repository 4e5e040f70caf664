r"""ISIC 2018 from the official archives: lesion masks and splits of task 1, and where they are
there the diagnoses of task 3.

  DIR/ISIC2018_Task1-2_{Training,Validation,Test}_Input.zip
  DIR/ISIC2018_Task1_{Training,Validation,Test}_GroundTruth.zip
  DIR/ISIC2018_Task3_{Training,Validation,Test}_{Input,GroundTruth}.zip   any of the three, or none
  DIR/ISIC2018_Task3_Training_LesionGroupings.csv   if wanted: images of one lesion are one group

Download them from challenge.isic-archive.com (2018), and leave them as they are or unpack into
folders of their names. Then:

  launch/with_env python -m launch.prepare_data --check --config=configs/isic2018.py \
    --config.data.root=DIR --workdir=runs/isic
  launch/with_env python -m launch.reproduce --config=configs/isic2018.py \
    --config.data.root=DIR --workdir=runs/isic

Images of task 3 have no mask and serve pre-training and classification: of 500 of them, since those
of task 1, which a segmentation learns from, have no diagnosis (--config.classify.labels=N for
another number). The recipe is that of configs/isic.py, 224 px and base width 64, a GPU's work.

Not run on the real archives yet, which were not at hand: 2,594 images to train on, 100 to validate
and 1,000 to test are to be expected of task 1. Nor are its variants, isic2018.py:cpu, 64 px and
base width 16 for 2 cores, and isic2018.py:paper, the published hyper-parameters.
"""

from ahm_jax import config
from configs import isic, isic_cpu

VARIANTS = {
  '': isic.get_config,
  'cpu': isic_cpu.get_config,
  'paper': lambda: isic.get_config('paper'),
}


def get_config(variant=''):
  config.check_variant(__file__, variant, VARIANTS)
  c = VARIANTS[variant]()
  c.data.name = 'isic2018'
  c.classify.labels = 500
  return c
