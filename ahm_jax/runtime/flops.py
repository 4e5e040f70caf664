"""Counting what a program computes: the operations of its convolutions and matrix products,
whatever carries them out.

The usual measure of how much of its peak a device reaches (model FLOPs). XLA's own count is not to
be had for a program that is to run on a GPU, and on CPU it follows the algorithm, 16 products for a
tile of a wide convolution in place of 36.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def count(function: Callable, *arguments: Any) -> int:
  """Floating point operations of a call, a multiplication and an addition being two; nothing is
  computed.

  Products with padding, and with the zeros that dilation puts between an input's values, are left
  out. Of alternatives (`lax.cond`, `lax.platform_dependent`) the one with most counts, a `lax.scan`
  as often as it turns, a `lax.while_loop` once. Of what is mapped over devices, one device's share
  counts. What XLA drops, since nobody uses it, counts too.
  """
  return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
  return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
  name, inside = equation.primitive.name, [_count(jaxpr) for jaxpr in _jaxprs(equation.params)]
  if name == 'conv_general_dilated':
    return _of_convolution(equation)
  if name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
  if name == 'cond':
    return max(inside)
  return equation.params.get('length', 1) * sum(inside) if name == 'scan' else sum(inside)


def _jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(item, (Jaxpr, ClosedJaxpr)):
        yield item.jaxpr if isinstance(item, ClosedJaxpr) else item


def _of_convolution(equation) -> int:
  params, (left, right), out = (
    equation.params,
    (var.aval.shape for var in equation.invars),
    equation.outvars[0].aval.shape,
  )
  inputs, kernel, outputs = params['dimension_numbers']
  pixels = math.prod(
    _taps(
      left[inputs[2 + i]],
      right[kernel[2 + i]],
      out[outputs[2 + i]],
      *(params[name][i] for name in _GEOMETRY),
    )
    for i in range(len(out) - 2)
  )
  return 2 * out[outputs[0]] * right[kernel[0]] * right[kernel[1]] * pixels


_GEOMETRY = ('window_strides', 'padding', 'lhs_dilation', 'rhs_dilation')


def _taps(
  size: int,
  kernel: int,
  out: int,
  stride: int,
  padding: tuple[int, int],
  dilation: int,
  spread: int,
) -> int:
  """How many pairs of a place of the output and one of the kernel, along one axis, meet a value
  of the input.
  """
  places = np.arange(out)[:, None] * stride + np.arange(kernel) * spread - padding[0]
  return int(((places >= 0) & (places <= (size - 1) * dilation) & (places % dilation == 0)).sum())
