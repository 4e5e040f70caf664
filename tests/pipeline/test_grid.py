"""What a grid shows of its cells."""

from pathlib import Path

from ahm_jax.pipeline.grid import Cell, _alike


def cells(*keys):
  return [Cell(Path('grid'), method, labels, seed) for method, labels, seed in keys]


def test_the_viewer_compares_cells_of_one_number_of_labels_and_one_seed():
  """As where the others stand in config.grid.results."""
  whole = cells(
    *(
      (method, labels, seed)
      for seed in (0, 1)
      for labels in (20, 50)
      for method in ('scratch', 'ahm')
    )
  )
  assert _alike(whole) == {'scratch': whole[0], 'ahm': whole[1]}
  part = cells(('scratch', 20, 0), ('uniform', 50, 0), ('ahm', 50, 0))
  assert _alike(part) == {'uniform': part[1], 'ahm': part[2]}
  assert _alike([]) == {}
