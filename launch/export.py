r"""Writes what a run has learnt in a format that others read, with a model card.

  python -m launch.export --checkpoint=runs/mine_50 --format=orbax --out=exports/mine
  python -m launch.export --checkpoint=runs/mine_50 --format=stablehlo --out=exports/mine_program \
    --licence=CC-BY-4.0

Flags:
  --checkpoint=DIR    Workdir of a segment or classify run, of which the best checkpoint is taken,
                      or of a pretrain run, of which the last one's U-Net is; or an export in the
                      format orbax.
  --format=FORMAT
    orbax             Parameters and config alone, without the optimizer; launch.predict and
                      --config.init_from load it.
    stablehlo         A program by jax.export: images of any size in, masks of that size out, any
                      number of them, for CPU and CUDA. load.py beside it runs it with nothing of
                      ours. Not for a pretrain run.
    onnx              For onnxruntime, which it is checked with; images of the network's own size.
                      Not for a pretrain run.
    safetensors, npz  Weights by the names of milesial/Pytorch-UNet, or of torchvision's VGG16;
                      --config.init_from and --config.model.vgg_weights read such files. The
                      model card says how images are scaled for them.
  --out=DIR           Folder to write; made, and never written over.
  --licence=TEXT      Licence of the weights, for the model card.
  --platforms=A,B     That stablehlo is lowered for: cpu,cuda.

All but orbax and npz need packages of the extra interop:
  EXTRAS=interop launch/with_env python -m launch.export ...

OUT also holds MODEL_CARD.md, for people, and export.json, the same for programs.

Exit codes: 0 done; 2 wrong input, or a full disk, said in one line; 75 interrupted by Ctrl-C or
  SIGTERM; OUT is not there."""

from pathlib import Path

from absl import flags

from launch import app

_CHECKPOINT = app.define_path('checkpoint', None, 'Workdir of a run, or an Orbax export.')
_FORMAT = flags.DEFINE_string('format', None, 'orbax, stablehlo, onnx, safetensors or npz.')
_OUT = app.define_path('out', None, 'Folder to write.')
_LICENCE = flags.DEFINE_string('licence', '', 'Licence of the weights.')
_PLATFORMS = flags.DEFINE_list('platforms', ['cpu', 'cuda'], 'That stablehlo is lowered for.')


def main() -> None:
  from ahm_jax.export.card import CARD
  from ahm_jax.export.export import export
  from ahm_jax.runs.directory import check_writable

  out, kind = Path(_OUT.value or '').expanduser(), _FORMAT.value or ''
  if not out.exists():
    check_writable(out, 'out')
  platforms = tuple(_PLATFORMS.value or ())
  trained = export(Path(_CHECKPOINT.value or ''), kind, out, _LICENCE.value, platforms)
  print(f'{trained.stage}, step {trained.step}: {kind} is in {out}; {out / CARD} describes it')


if __name__ == '__main__':
  app.run_tool(main, required=('checkpoint', 'format', 'out'))
