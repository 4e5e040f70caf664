"""The main job: pre-trains, segments, classifies and scores every cell of {method} x {labels} x
{seed}, and compares them.

  python -m launch.reproduce --config=configs/phantom.py --workdir=runs/phantom

Writes results.json, report.html, pictures and the report's charts as SVG files, and prints the
table. Interrupted, the same command goes on where it was. The cells are the config's grid.methods,
grid.labels and grid.seeds; a grid can be widened later, and finished cells are kept. Several of
these commands on one workdir share the cells, so start one for each core or machine. With
--config.grid.results=FILE,... cells of this grid that stand in a results.json from elsewhere are
not run again.

An method is scratch, a masking strategy, or one with fields changed, which makes an ablation:
  --config.grid.methods='("scratch","uniform","ahm","ahm:mask_ratio=0.75+rounds=2")'
Fine-tuning may differ too; such methods share a pre-training. To choose without a look at the test
images:
  --config.evaluate.split=validation
  --config.grid.methods='("scratch","scratch:segment.learning_rate=1e-3",
  "ahm","ahm:segment.learning_rate=1e-3","ahm:transfer.encoder_rate=0.3")'
"""

from ahm_jax.evaluation import compare
from ahm_jax.pipeline import grid
from launch import app


def main(config, workdir):
  results = grid.reproduce(config, workdir)
  print('\n' + compare.table(results['summary'], results['over_labels']))
  for method, values in results['agent'].items():
    known = {name: value for name, value in values.items() if value is not None}
    print(
      f'{method}: '
      + ', '.join(f'{name.replace("_", " ")} {value:.3f}' for name, value in known.items())
    )
  print(f'\n{workdir / "report.html"}')


if __name__ == '__main__':
  app.run(main)
