r"""Pre-trains a U-Net on all training images, and the agent that masks them.

The images need no masks of lesions; the agent learns which of their patches to hide.

  python -m launch.pretrain --config=configs/phantom.py --workdir=runs/ahm
  python -m launch.pretrain --config=configs/phantom.py --config.masking.strategy=uniform \
    --workdir=runs/uniform

launch.segment starts from WORKDIR when it is given as --config.init_from.
"""

from ahm_jax.pipeline import stages
from launch import app

if __name__ == '__main__':
  app.run(stages.pretrain, several=True, following=stages.PRETRAIN.following)
