r"""Trains a VGG16 to tell the classes apart on what a segmentation run finds: its crop of the
lesion, or the lesion alone.

  python -m launch.classify --config=configs/phantom.py --config.data.labels=20
    --config.init_from=runs/ahm20 \ --workdir=runs/class20

With --config.classify.input=image it sees whole images, and needs no segmentation run.
"""

from ahm_jax.pipeline import stages
from launch import app

if __name__ == '__main__':
  app.run(stages.classify, several=True)
