r"""Scores a finished run on a split, at the images' own resolution.

Writes evaluation.json and per_image.csv into its folder.

  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20
  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20 \
    --config.evaluate.split=validation
  python -m launch.evaluate --config=configs/phantom.py --workdir=runs/ahm20 --comparator=sam \
    --sam_checkpoint=sam_vit_b.pth

WORKDIR is that of a pretrain, segment or classify run, whose own config holds but for the fields
under evaluate.

Segment Anything or MedSAM beside a segment run with binary masks (EXTRAS=sam launch/with_env
python ...):
  --comparator=NAME        sam, or medsam, which shows images to the network as MedSAM's authors do.
                           It is scored on the images of evaluate.split at their own size, in one
                           table with our U-Net, with the paired difference; written to
                           evaluation_NAME_PROMPT_SOURCE.json and
                           per_image_NAME_PROMPT_SOURCE.csv.
  --sam_checkpoint=PATH    Folder with config.json and model.safetensors, as transformers saves it,
                           or an official .pth, of ViT-B, ViT-L or ViT-H. Nothing is downloaded.
  --sam_prompt=KIND        box, the default, or point (sam only): one for each connected region of a
                           mask, at most for the largest three. The point is the one deepest inside;
                           of its three masks the one counts that the model itself scores highest.
  --sam_prompt_from=SOURCE unet, the default: the mask that our U-Net found; without one, nothing is
                           found. truth: the true mask, which tells where the lesion is, and whether
                           there is one.
  --sam_margin=PIXELS      That a box is widened by to each side, in pixels of the image; 0.
"""

import dataclasses
from pathlib import Path

from absl import flags

from ahm_jax.config import Config
from ahm_jax.errors import UserError
from ahm_jax.pipeline import evaluate as scoring
from ahm_jax.sam import compare, prompts
from launch import app

_COMPARATOR = flags.DEFINE_enum(
  'comparator', None, compare.COMPARATORS, 'What to score beside the run.'
)
_CHECKPOINT = app.define_path('sam_checkpoint', None, 'Its weights.')
_PROMPT = flags.DEFINE_enum('sam_prompt', None, prompts.KINDS, 'What it is shown of a mask; box.')
_PROMPT_FROM = flags.DEFINE_enum('sam_prompt_from', None, compare.SOURCES, 'Whose mask; unet.')
_MARGIN = flags.DEFINE_integer(
  'sam_margin', None, 'Pixels that a box is widened by; 0.', lower_bound=0
)


def main(config: Config, workdir: Path) -> None:
  given = [flag for flag in (_CHECKPOINT, _PROMPT, _PROMPT_FROM, _MARGIN) if flag.value is not None]
  if _COMPARATOR.value:
    defaults = compare.Options(_COMPARATOR.value, _CHECKPOINT.value or '')
    options = dataclasses.replace(
      defaults,
      prompt=_PROMPT.value or defaults.prompt,
      prompt_from=_PROMPT_FROM.value or defaults.prompt_from,
      margin=_MARGIN.value or defaults.margin,
    )
    print(compare.table(options, scoring.compare(options, config, workdir)))
  elif given:
    raise UserError(
      f'--{given[0].name} goes with --comparator=sam or --comparator=medsam only; add it, or leave '
      'this out'
    )
  else:
    evaluate(config, workdir)


def evaluate(config: Config, workdir: Path) -> None:
  """Scores the run, and prints a line for each score."""
  for name, value in scoring.evaluate(config, workdir).items():
    for suffix, single in value.items() if isinstance(value, dict) else (('', value),):
      title = f'{name} {suffix}' if suffix else name
      print(f'{title:28} {f"{single:.4f}" if isinstance(single, float) else single}')


if __name__ == '__main__':
  app.run(main)
