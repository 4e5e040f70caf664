"""Self-supervised pre-training for medical image segmentation by adaptive hard masking.

  config = ahm_jax.get_config('smoke')
  start = ahm_jax.pretrain(config, 'runs/ahm')
  config = ahm_jax.get_config('smoke', init_from=start, **{'data.labels': 8})
  model = ahm_jax.load(ahm_jax.segment(config, 'runs/segmented'))
  result = model.predict('image.png')
  result.mask, result.confidence, result.overlay()

These are the commands `pretrain`, `segment`, `classify`, `evaluate` and `predict`, without the
command line; wrong input raises `UserError`, in one line. What is listed in `__all__` stays; what
lies in the packages below may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ahm_jax.errors import UserError

if TYPE_CHECKING:
  from ahm_jax.api.configs import get_config
  from ahm_jax.api.model import Model, load
  from ahm_jax.api.prediction import Prediction
  from ahm_jax.api.stages import classify, evaluate, pretrain, segment

  __version__: str

__all__ = [
  'Model',
  'Prediction',
  'UserError',
  '__version__',
  'classify',
  'evaluate',
  'get_config',
  'load',
  'pretrain',
  'segment',
]

# Where each is, to be imported when it is asked for: `import ahm_jax` takes no time.
_PLACES = {
  **dict.fromkeys(('Model', 'load'), 'model'),
  **dict.fromkeys(('classify', 'evaluate', 'pretrain', 'segment'), 'stages'),
  '__version__': 'version',
  'Prediction': 'prediction',
  'get_config': 'configs',
}


def __getattr__(name: str) -> Any:
  if name not in _PLACES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  found = getattr(importlib.import_module(f'{__name__}.api.{_PLACES[name]}'), name)
  globals()[name] = found
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
