"""A few steps of everything on tiny phantoms: shows that an installation works. The scores mean
nothing.

  launch/with_env python -m launch.reproduce --config=configs/smoke.py --workdir=runs/smoke

Takes under 90 s on 2 cores.
"""

from configs import phantom


def get_config():
  c = phantom.get_config()
  c.data.image_size = 32
  c.data.phantom.train, c.data.phantom.validation, c.data.phantom.test = 64, 16, 24
  c.model.unet_width = c.model.agent_width = c.model.vgg_width = 4
  c.model.vgg_hidden = 16
  c.masking.workers = 2
  c.pretrain.batch_size = c.segment.batch_size = c.classifier.batch_size = 8
  c.pretrain.steps, c.segment.steps, c.classifier.steps = 20, 10, 5
  c.pretrain.eval_every, c.segment.eval_every, c.classifier.eval_every = 10, 5, 5
  c.grid.labels, c.grid.seeds = (8,), (0, 1)
  return c
