"""The image files of a folder of a data set."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ahm_jax.config import DataConfig
from ahm_jax.data.readers import cases, dispatch
from ahm_jax.data.readers.base import (
  SUFFIXES,
  Case,
  UnavailableFile,
  is_odd,
  link_problem,
  shown,
  stem,
)
from ahm_jax.data.sets import table
from ahm_jax.errors import UserError

_SYSTEM = ('thumbs.db', 'desktop.ini')  # What Windows puts into folders.


def by_stem(
  root: Path, folder: str, problems: list[str], notes: list[str], others_used: Collection[str] = ()
) -> dict[str, Path]:
  """Image files of a folder by composed name without suffix, in order.

  An empty dict where there is no such folder. Adds what is wrong to `problems`, and what is ignored
  to `notes`, but for `others_used`, names of files.
  """
  found: dict[str, Path] = {}
  others = []
  problem = link_problem(root / folder, root)
  if problem:
    raise UserError(f'{root}: {problem}')
  if not (root / folder).is_dir():
    return found
  for path in sorted((root / folder).iterdir()):
    if path.name.startswith('.') or path.name.lower() in _SYSTEM:
      continue
    try:
      is_image = (path.is_file() or path.is_symlink()) and dispatch.is_image_file(path)
    except UnavailableFile as refused:
      problems.append(str(refused))
      continue
    if not is_image:
      others += [path.name] * (path.name not in others_used)
      continue
    name = table.composed(stem(path.name))
    problem = problem_of(path, root, found.get(name))
    if problem:
      problems.append(problem)
    found.setdefault(name, path)
  if others:
    notes.append(
      f'what is ignored in {folder}/: {len(others)} ({table.some(others)}); only files count, and '
      f'of these only such as end in {", ".join(SUFFIXES)}, and DICOM of any name'
    )
  return dict(sorted(found.items(), key=lambda item: stem(item[1].name)))


def cases_of(
  single: Mapping[str, Path], config: DataConfig, problems: list[str], notes: list[str]
) -> dict[str, Case]:
  """The cases that image files hold, of `config.modalities`, by name; adds what is wrong to
  `problems`.
  """
  found, wrong = cases.together(single, config.modalities)
  problems += wrong
  check_whole(found.values(), config, problems, notes)
  return found


def check_whole(
  found: Iterable[Case], config: DataConfig, problems: list[str], notes: list[str]
) -> None:
  """Adds to `problems` which cases lack modalities; with `config.modality_dropout` to `notes`."""
  lacking = [case for case in found if cases.lacking(case, config.modalities)]
  if config.modality_dropout and lacking:
    names = table.some([case.name for case in lacking])
    notes.append(f'cases that lack modalities, which are mid-grey there: {len(lacking)} ({names})')
  else:
    problems += [cases.incomplete(case, config.modalities) for case in lacking]


def problem_of(path: Path, root: Path, other: Path | None) -> str:
  """What is wrong with a file; `other` is that of the same name, if there is one."""
  if problem := link_problem(path, root):
    return problem
  if path.is_dir():  # A folder itself has been passed over.
    return f'{shown(path)} is a link to what is not a file; remove it'
  if is_odd(path.name):
    return f'{shown(path)} has control characters in its name, shown as \\x..; rename it'
  if other is not None:
    return f'{shown(other)} and {shown(path)} have the same name; keep one of them'
  return ''
