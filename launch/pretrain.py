r"""Pre-trains a U-Net on all training images, with or without masks, and the agent that learns
which patches of them to mask.

  python -m launch.pretrain --config=configs/phantom.py --workdir=runs/ahm
  python -m launch.pretrain --config=configs/phantom.py --config.masking.strategy=uniform \
    --workdir=runs/uniform

launch.segment starts from WORKDIR when it is given as --config.init_from.
"""

from ahm_jax.pipeline import stages
from launch import app

if __name__ == '__main__':
  app.run(stages.pretrain, several=True)
