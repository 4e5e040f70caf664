"""TIFFs of any depth, sign, byte order, photometric interpretation, compression and layout."""

import struct
import zlib

import numpy as np

RAW, DEFLATE, PACKBITS = 1, 8, 32773
_SIZES = {'B': 1, 'H': 3, 'I': 4}  # TIFF's types by those of struct.


def encoded(
  values,
  order='<',
  photometric=1,
  bits=0,
  compression=RAW,
  predictor=1,
  planar=1,
  tile=0,
  rows=0,
  tags=(),
  place=8,
  ends=True,
):
  """The bytes of a TIFF, or of a page of it that begins at `place`, beyond the header.

  Args:
    values: [H, W] or [H, W, samples]; its type gives sample format and, without `bits`, depth.
    tile, rows: side of a tile, rows of a strip; 0: one strip.
    tags: more of them, (number, type of struct, values).
    ends: no page follows.
  """
  values = values if values.ndim == 3 else values[..., None]
  height, width, samples = values.shape
  bits = bits or values.itemsize * 8
  planes = [values] if planar == 1 else np.split(values, samples, axis=2)
  parts = [
    _packed(_pack(part, order, bits, predictor), compression)
    for plane in planes
    for part in _parts(plane, tile, rows or height)
  ]
  entries = {
    256: ('I', [width]),
    257: ('I', [height]),
    258: ('H', [bits] * samples),
    259: ('H', [compression]),
    262: ('H', [photometric]),
    277: ('H', [samples]),
    284: ('H', [planar]),
    317: ('H', [predictor]),
    339: ('H', [{'u': 1, 'b': 1, 'i': 2, 'f': 3}[values.dtype.kind]] * samples),
    **({322: ('I', [tile]), 323: ('I', [tile])} if tile else {278: ('I', [rows or height])}),
    **{number: (kind, list(content)) for number, kind, content in tags},
  }
  offsets, counts = (324, 325) if tile else (273, 279)
  entries[counts] = 'I', [len(part) for part in parts]
  entries[offsets] = 'I', [0] * len(parts)
  page = _joined(entries, offsets, parts, order, place, ends)
  return _header(order) + page if place == 8 else page


def stacked(*pages, order='<'):
  """The bytes of a TIFF of several pages, each given as arguments of `encoded` by their names."""
  data = _header(order)
  for number, page in enumerate(pages, 1):
    whole = encoded(**page, order=order, place=len(data), ends=number == len(pages))
    data = whole if len(data) == 8 else data + whole
  return data


def _header(order):
  return struct.pack(order + '2sHI', b'II' if order == '<' else b'MM', 42, 8)


def _parts(plane, tile, rows):
  if not tile:
    return [plane[top : top + rows] for top in range(0, len(plane), rows)]
  height, width = plane.shape[:2]
  padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
  return [
    padded[top : top + tile, left : left + tile]
    for top in range(0, height, tile)
    for left in range(0, width, tile)
  ]


def _pack(part, order, bits, predictor):
  if bits < 8 or bits == 12:
    digits = part[..., 0].astype(np.uint32)[..., None] >> np.arange(bits - 1, -1, -1)
    return np.packbits((digits & 1).reshape(len(part), -1).astype(np.uint8), axis=1).tobytes()
  if predictor == 2:
    part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
  if predictor == 3:  # Bytes of floats, the highest of each first, as differences.
    height, width, samples = part.shape
    size = part.itemsize
    split = np.frombuffer(part.astype(part.dtype.newbyteorder('>')).tobytes(), np.uint8)
    split = split.reshape(height, width * samples, size).transpose(0, 2, 1).reshape(height, -1)
    return np.diff(split, axis=1, prepend=split[:, :1] * 0).tobytes()
  return part.astype(part.dtype.newbyteorder(order)).tobytes()


def _packed(data, compression):
  if compression == DEFLATE:
    return zlib.compress(data)
  if compression == PACKBITS:  # Of literal runs.
    runs = (data[start : start + 128] for start in range(0, len(data), 128))
    return b''.join(bytes([len(run) - 1]) + run for run in runs)
  return data


def _joined(entries, offsets, parts, order, place, ends):
  def size(number):
    kind, content = entries[number]
    return struct.calcsize('<' + kind) * len(content)

  end = place + 2 + 12 * len(entries) + 4
  places = {}
  for number in sorted(entries):
    if size(number) > 4:
      places[number] = end
      end += size(number) + size(number) % 2
  entries[offsets] = 'I', [end + sum(map(len, parts[:index])) for index in range(len(parts))]
  head = struct.pack(order + 'H', len(entries))
  tail = b''
  for number in sorted(entries):
    kind, content = entries[number]
    data = struct.pack(f'{order}{len(content)}{kind}', *content)
    head += struct.pack(order + 'HHI', number, _SIZES[kind], len(content))
    if number in places:
      head += struct.pack(order + 'I', places[number])
      tail += data + b'\0' * (len(data) % 2)
    else:
      head += data.ljust(4, b'\0')
  data = b''.join(parts)
  data += b'\0' * ((end + len(data)) % 2)
  return head + struct.pack(order + 'I', 0 if ends else end + len(data)) + tail + data
