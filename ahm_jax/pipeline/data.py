"""The checks of a data set that `launch.prepare_data --check` makes."""

from pathlib import Path

from ahm_jax.config import Config
from ahm_jax.data import sets
from ahm_jax.data.audit import findings, inspection
from ahm_jax.data.audit.finding import ERROR
from ahm_jax.errors import UserError
from ahm_jax.report import data_page
from ahm_jax.runs import ownership


def check_data(config: Config, workdir: Path) -> bool:
  """Looks at all images and masks of the data set, prints what it found, and writes check.json and
  check.html.

  Nothing is prepared, and nothing is changed but those two files.

  Returns:
    whether there is an error among the findings.

  Raises:
    UserError: there is no data set to look at, or `workdir` lies in it.
  """
  source = sets.find(config.data)
  root = source.folder(config.data)
  if root and Path(workdir).resolve().is_relative_to(root):
    raise UserError(
      f'--workdir={workdir} lies in the data folder {root}, which is not to be changed; choose '
      'another'
    )
  ownership.check_kinds(workdir, (), (data_page.JSON, data_page.HTML))
  data_page.check_free(Path(workdir))
  name = source.display_name(config.data)
  images = inspection.inspect(config.data, data_page.thumbnail)
  found = findings.find(images, config.data)
  numbers = inspection.numbers(images, config.data.mask_classes)
  data_page.write(Path(workdir), name, numbers, found, images)
  print(data_page.text(name, numbers, found))
  print(f'{Path(workdir) / data_page.HTML} shows them; {data_page.JSON} beside it holds everything')
  return findings.worst(found) == ERROR
