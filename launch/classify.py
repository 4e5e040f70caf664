r"""Trains a VGG16 to tell diagnoses apart on what a segmentation run finds.

  python -m launch.classify --config=configs/phantom.py --config.data.labels=20 \
    --config.init_from=runs/ahm20 --workdir=runs/class20

It sees the crop around the lesion, or with --config.classify.input=masked the lesion alone. With
--config.classify.input=image it sees whole images, and needs no segmentation run.
"""

from ahm_jax.pipeline import stages
from launch import app

if __name__ == '__main__':
  app.run(stages.classify, several=True, following=stages.CLASSIFY.following)
