"""Measures how fast this machine runs ahm_jax, beside PyTorch where that is there.

Prints and writes it; PyTorch comes with the extra `bench`.

  python -m launch.benchmark --out=benchmark.json
  python -m launch.benchmark --out=benchmark.json --only=unet_train,pretrain

Sides that are compared take turns in one run, two calls a turn, of which the second is timed. A
ratio is the median over rounds of the ratio within a round: on a machine that others use too, trust
the ratios before the times.

Flags:
  --out=FILE          JSON: versions, device, figures with median, lowest and highest, and ratios.
                      The charts of `growth` go into a page beside it, FILE.growth.html.
  --only=NAME,...     Workloads to run: unet_train, unet_infer, pretrain, vgg16, public_loop, input,
                      start, predict, predict_memory, growth, scaling.

JAX_NUM_CPU_DEVICES=4 divides a CPU into devices, for scaling.

Exit codes: 0 done; 2 wrong input, said in one line; 75 interrupted by Ctrl-C or SIGTERM.
"""

import os
from pathlib import Path

from absl import flags

from launch import app

_OUT = app.define_path('out', None, 'JSON file to write.')
_ONLY = flags.DEFINE_list('only', [], 'Workloads to run; all where empty.')


def main() -> None:
  # PyTorch is to have its share of the memory.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  from ahm_jax.benchmark import growth, suite
  from ahm_jax.benchmark.timing import Figure
  from ahm_jax.errors import UserError
  from ahm_jax.runs import directory
  from ahm_jax.runtime import json_files

  unknown = [name for name in _ONLY.value if name not in suite.WORKLOADS]
  if unknown:
    raise UserError(f'--only names {unknown[0]!r}; the workloads are {", ".join(suite.WORKLOADS)}')
  out = Path(str(_OUT.value)).expanduser()
  if not out.parent.is_dir():
    raise UserError(f'--out={out} cannot be written: there is no folder {out.parent}')
  if out.is_dir():
    raise UserError(f'--out={out} is a folder; name a file to write')
  directory.check_writable(out.parent, 'out')
  results = suite.measure(
    _ONLY.value or list(suite.WORKLOADS), say=lambda line: print(line, flush=True)
  )
  json_files.write_json(out, results)
  if any(item['workload'] == 'growth' for item in results['figures']):
    page = growth.growth_page(
      [Figure(**item) for item in results['figures']], results['device']['kind']
    )
    out.with_name(out.name + '.growth.html').write_text(page, encoding='utf-8')
  print(f'\n{out}')


if __name__ == '__main__':
  app.run_tool(main, required=('out',))
