"""labels.csv as spreadsheets and programs write it."""

import re

import pytest

from ahm_jax.data.sets import table
from ahm_jax.errors import UserError

ROWS = [
  ['image', 'label', 'split', 'group'],
  ['a', 'ärger', 'train', 'p 1'],
  ['b.png', 'x', 'test', ''],
]


@pytest.fixture
def read(tmp_path):
  """Writes labels.csv for the images a and b, and reads it."""

  def from_bytes(data):
    (tmp_path / 'labels.csv').write_bytes(data)
    return table.read(tmp_path, {name: tmp_path / 'images' / f'{name}.png' for name in 'ab'})

  return from_bytes


def written(separator=',', end='\n', quotes=False, before='', after=''):
  cells = [[f'"{cell}"' if quotes else cell for cell in row] for row in ROWS]
  return before + ''.join(separator.join(row) + end for row in cells) + after


def values(found):
  assert found.problems == []
  assert found.columns == ROWS[0]
  return {name: list(row.values()) for name, row in found.rows.items()}


EXPECTED = {'a': ROWS[1], 'b': ROWS[2]}


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-be with mark'])
def test_separators_encodings_and_line_ends(read, separator, encoding, end):
  for quotes in (False, True):
    text = written(separator, end, quotes)
    data = b'\xfe\xff' + text.encode('utf-16-be') if 'mark' in encoding else text.encode(encoding)
    found = read(data)
    assert values(found) == EXPECTED and found.notes == []


@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize('before', ['', '\n\n', '  \r\n', 'sep={}\r\n', '"sep={}"\n'])
@pytest.mark.parametrize('after', ['', '\n\n', '{}\n{}{}{}\n', ' {} \n', '{0}{0}{0}{0}{0}\n'])
def test_rows_without_text_are_left_out(read, separator, before, after):
  parts = {'before': before, 'after': after}
  text = written(separator, **{key: part.format(*separator * 4) for key, part in parts.items()})
  assert values(read(text.encode())) == EXPECTED


@pytest.mark.parametrize('before', ['', '\n', 'sep=,\n'])
def test_lines_keep_their_numbers(read, before):
  found = read(f'{before}image,label\na,x\n,\nzebra,y\n'.encode())
  number = 4 + bool(before)
  assert found.problems[0].startswith(f"labels.csv line {number} names 'zebra'")


@pytest.mark.parametrize('row', [',x,,', ',,train,'])
def test_rows_that_name_no_image_are_told(read, row):
  assert "'' is not an image name" in read(f'image,label,split,group\n{row}\n'.encode()).problems[0]


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    (written().encode('utf-16-le'), 'it holds NUL'),
    (written().encode('utf-32'), 'it holds NUL'),
    (written().encode('latin-1'), "'utf-8' codec can't decode byte 0xe4"),
    (b'PK\x03\x04\0\0xl/workbook.xml', 'it is a spreadsheet'),
    (b'\xff\xfea', 'truncated data'),
  ],
)
def test_what_is_no_such_text_says_what_to_do(read, data, said):
  with pytest.raises(UserError) as caught:
    read(data)
  message = str(caught.value)
  assert said in message and '\n' not in message
  assert re.search('cannot be read as comma-separated UTF-8 text .*; save it as such$', message)


@pytest.mark.parametrize('header', ['image|label', 'image label', 'name;label', 'bild\tklasse', ''])
def test_tables_without_a_column_image(read, header):
  with pytest.raises(UserError, match=r'has no column image, only \[.*first line should be image,'):
    read(f'{header}\na,b\n'.encode())


# Labels and groups.


DOUBT = (
  '; {!r} may mean that nothing was found as well as that nothing is known: where it is a class, '
  "write it out, as 'healthy' or 'negative'"
)


@pytest.mark.parametrize(
  'text', ['nan', 'NaN', 'N/A', 'n/a', 'NA', '#N/A', '<NA>', 'None', 'null', 'NULL', '-', ' nan ']
)
@pytest.mark.parametrize('column', ['label', 'group'])
def test_cells_that_say_nothing(read, text, column):
  found = read(f'image,{column}\na,{text}\nb,x\n'.encode())
  assert {name: row[column] for name, row in found.rows.items()} == {'a': '', 'b': 'x'}
  doubt = DOUBT.format(text) if column == 'label' and text in ('None', '-') else ''
  assert found.notes == [
    f"rows of labels.csv whose {column} is '{text.strip()}', which counts as none: 1 ('a'){doubt}"
  ]


def test_rows_that_are_left_out_are_named(read):
  found = read(b'image,label\na,none\nb,nan\n')
  assert found.notes == [
    "rows of labels.csv whose label is 'nan', 'none', which counts as none: 2 ('b', 'a')"
    + DOUBT.format('none')
  ]


@pytest.mark.parametrize('labels', ['+-', '-+'])
def test_signs_are_classes_together(read, labels):
  found = read('image,label\na,{}\nb,{}\n'.format(*labels).encode())
  assert [found.rows[name]['label'] for name in 'ab'] == list(labels) and found.notes == []


def test_signs_are_no_groups(read):
  found = read(b'image,group\na,+\nb,-\n')
  assert [found.rows[name]['group'] for name in 'ab'] == ['+', '']


@pytest.mark.parametrize('text', ['nano', 'none of these', 'n', '0', '--x', 'nevus'])
def test_cells_that_say_something(read, text):
  found = read(f'image,label\na,{text}\nb,\n'.encode())
  assert found.rows['a']['label'] == text and found.notes == []


@pytest.mark.parametrize(
  ('first', 'second'),
  [
    ('benign', 'Benign'),
    ('MALIGNANT', 'malignant'),
    ('basal cell', 'basal  cell'),
    ('basal_cell', 'Basal cell'),
    ('basal-cell', 'basal cell'),
    ('1', '1.0'),
    ('1', '01'),
    ('2', '2,0'),
    ('straße', 'STRASSE'),
    ('\u00e9', 'e\u0301'),
    ('x', '\uff58'),  # Wide, as in Japanese text.
  ],
)
def test_classes_that_differ_in_spelling_alone(read, first, second):
  found = read(f'image;label\na;{first}\nb;{second}\n'.encode())
  assert {row['label'] for row in found.rows.values()} == {first, second}  # As they are written.
  one, other = map(repr, sorted((first, second)))
  assert found.notes == [
    f'classes that differ in spelling alone, and are classes of their own: {one} and {other}; '
    'write each in one way in labels.csv'
  ]


@pytest.mark.parametrize(
  ('first', 'second'),
  [('1', '10'), ('1', '1.5'), ('HER2+', 'HER2-'), ('A', 'B'), ('T1-2', 'T12'), ('x', 'xx')],
)
def test_classes_that_differ(read, first, second):
  assert read(f'image;label\na;{first}\nb;{second}\n'.encode()).notes == []
