"""Damage of a JSON file, whatever it is to hold: each is to be found by every reader."""

DAMAGES = {
  'empty': b'',
  'half': b'{"stage": "segm',
  'text behind': b'{} {}',
  'zeros': b'\0' * 4096,
  'deep lists': b'[' * 10**7,
  'deep objects': b'{"stage":' * 10**6,
  'closed': b'[' * 10**5 + b']' * 10**5,
  'deep within the limit of Python': b'[' * 900 + b']' * 900,
  'NaN': b'{"stage": NaN}',
  'Infinity': b'[-Infinity]',
  'beyond float': b'{"threshold": 1e999}',
  'a million digits': b'1' + b'0' * 10**6,
  'a name twice': b'{"stage": "segment", "stage": "classify"}',
  'a long name twice': b'{"' + b'a' * 10**6 + b'": 1, "' + b'a' * 10**6 + b'": 1}',
  'Latin-1': b'{"stage": "\xe9"}',
  'UTF-16': '{}'.encode('utf-16'),
  'no JSON': b'stage: segment\n',
  'Python': b"{'stage': 'segment'}",
  'null': b'null',
  'number': b'7',
  'text': b'"segment"',
  'NUL in a text': b'["\\u0000", "\\u0000"]',
  'list of numbers': b'[1, 2]',
  'object without names': b'{}',
}
# What a value within a sound file may be replaced by.
VALUES = (
  *(None, True, -1, 7, 0.5, 1e300, 10**30, 'text', '\0', '', [], [None], [[1]], {}),
  *({'a': {'b': 1}}, [{'a': 1}], ['a', 'a']),
)
