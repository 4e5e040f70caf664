"""Compares methods: runs every cell of {method} x {labels} x {seed}. The main job.

In each it pre-trains, segments, classifies and scores.

  python -m launch.reproduce --config=configs/phantom.py --workdir=runs/phantom

Writes results.json, report.html, pictures and the report's charts as SVG files, and prints the
table. If it is interrupted, run the same command again; it resumes. The cells are the config's
grid.methods, grid.labels and grid.seeds; a grid can be widened later, and finished cells are kept.
Several of these commands on one workdir share the cells, so start one for each core or machine.
With --config.grid.results=FILE,... cells of this grid that stand in a results.json from elsewhere
are not run again.

A method is scratch, a masking strategy, one with fields changed, which makes an ablation, or a name
that the config file defines in grid.variants:
  --config.grid.methods='("scratch","uniform","ahm","ahm:mask_ratio=0.75+rounds=2")'
Fine-tuning may differ too, and which images are labelled (data.labelled_from=FILE, see
launch.select); such methods share a pre-training. To choose without using the test images:
  --config.evaluate.split=validation
  --config.grid.methods='("scratch","scratch:segment.learning_rate=1e-3","ahm",
    "ahm:segment.learning_rate=1e-3","ahm:transfer.encoder_rate=0.3")'
"""

from pathlib import Path

from ahm_jax.config import Config
from ahm_jax.evaluation import tables
from ahm_jax.pipeline import grid
from ahm_jax.runs import directory
from launch import app


def main(config: Config, workdir: Path) -> None:
  results = grid.reproduce(config, workdir)
  variants = results['config']['grid']['variants']
  print('\n' + tables.table(results['summary'], results['over_labels'], variants))
  for method, values in results['agent'].items():
    known = [
      f'{name.replace("_", " ")} {value:.3f}' for name, value in values.items() if value is not None
    ]
    print(f'{method}: {", ".join(known)}')
  print(f'\n{workdir / directory.REPORT}')


if __name__ == '__main__':
  app.run(main)
