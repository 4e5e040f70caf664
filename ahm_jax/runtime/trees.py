"""Nested dicts of arrays as flat ones, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

SEPARATOR = '/'


def flatten(tree: Any) -> dict[str, Any]:
  """{'a': {'b': x}} as {'a/b': x}."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): leaf for path, leaf in leaves
  }


def shape_mismatch(held: Any, wanted: Any) -> str:
  """Of two trees of arrays, or of their shapes, the first leaf that is not alike, as a sentence.

  '' where all are.
  """
  shapes = [
    {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()} for tree in (held, wanted)
  ]
  for name in sorted(shapes[0].keys() | shapes[1].keys()):
    said = [shape_text(tree[name]) if name in tree else 'not there' for tree in shapes]
    if said[0] != said[1]:
      return f'{name} is {said[0]} in its weights but {said[1]} by its config'
  return ''


def shape_text(shape: Sequence[int]) -> str:
  """(2, 3) as '2x3'."""
  return 'x'.join(map(str, shape)) or 'a number'


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for path, leaf in flat.items():
    *nodes, last = path.split(SEPARATOR)
    node = tree
    for name in nodes:
      node = node.setdefault(name, {})
    node[last] = leaf
  return tree


def replaced(tree: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
  """`tree` with copies of the leaves that `parts`, a tree of some of its paths, has in their
  place.
  """
  result = dict(tree)
  for name, part in parts.items():
    result[name] = replaced(tree[name], part) if isinstance(part, Mapping) else jnp.array(part)
  return result
