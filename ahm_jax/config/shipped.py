"""What comes with the package and lies beside it in the repository: configs/ and launch/.

An installed package holds them, as `ahm_jax/configs` and `ahm_jax/launch`, so that nothing with a
name that others use too lies beside it in site-packages. Their files say `from configs import ...`
and `from launch import ...` all the same, as in the repository: `as_package` sees to that.
"""

import contextlib
import difflib
import errno
import os
import re
import stat
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

from ahm_jax.config import paths
from ahm_jax.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_NAME = re.compile(r'[\w-]+')
_importing = threading.RLock()


def folder(name: str) -> Path:
  """Where 'configs' or 'launch' lies."""
  inside = _PACKAGE / name
  return inside if inside.is_dir() else _PACKAGE.parent / name


def config_names() -> list[str]:
  """Of the configs that come with the package."""
  return sorted(path.stem for path in folder('configs').glob('*.py'))


def as_package(name: str) -> types.ModuleType:
  """The folder 'configs' or 'launch' as a package of that name; what is not in it is looked for in
  the folders of that name on the path.
  """
  package = types.ModuleType(name)
  others = (str(Path(place) / name) for place in sys.path)
  package.__path__ = list(dict.fromkeys([str(folder(name)), *filter(os.path.isdir, others)]))
  return package


@contextlib.contextmanager
def importable_configs() -> Iterator[None]:
  """A context in which `from configs import NAME` finds the configs that come with the package,
  whatever else in this process is called so.
  """
  with _importing:
    before = _loaded_configs()
    for name in before:
      del sys.modules[name]
    sys.modules['configs'] = as_package('configs')
    try:
      yield
    finally:
      for name in _loaded_configs():
        del sys.modules[name]
      sys.modules.update(before)


def _loaded_configs() -> dict[str, types.ModuleType]:
  return {name: module for name, module in sys.modules.items() if name.split('.')[0] == 'configs'}


def config_file(given: str, option: str = '--config') -> tuple[str, str | None]:
  """The file that a user names, and the variant, if one is asked for.

  Args:
    given: NAME[:variant], of a config that comes with the package, or FILE[:variant].
    option: that names it, for messages.

  Raises:
    UserError: it is a URL, or there is neither.
  """
  if fault := paths.local(given):
    raise UserError(f'{option} {fault}')
  name, colon, variant = given.partition(':')
  return _file(name, option), variant if colon else None


def _file(name: str, option: str) -> str:
  names = config_names()
  if name in names:
    return str(folder('configs') / f'{name}.py')
  path = Path(os.path.expanduser(name))  # noqa: PTH111 (of an unknown user, Path's raises)
  try:
    if stat.S_ISDIR(path.stat().st_mode):
      given = f'={name} is a folder' if name else ' is empty'
      raise UserError(f'{option}{given}; give a config file, or one of {", ".join(names)}')
  except OSError as error:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
      return str(path)  # Reading it will say why.
    what = 'config' if _NAME.fullmatch(name) else 'file'
    near = difflib.get_close_matches(path.stem.lower(), names, n=3, cutoff=0.5)
    hint = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(names)}'
    raise UserError(f'{option}={name}: there is no such {what}; {hint}') from error
  return str(path)
