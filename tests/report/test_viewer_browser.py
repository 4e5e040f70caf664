"""The report's viewer in headless Chromium: clicks, keys, what is announced, and that the
browser complains of nothing.
"""

import shutil

import numpy as np
import pytest

from ahm_jax.report import page as report
from ahm_jax.report import viewer

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
DRIVER = shutil.which('chromedriver')
if CHROMIUM is None or DRIVER is None:
  pytest.skip(
    'needs Chromium and its driver: apt-get install chromium chromium-driver',
    allow_module_level=True,
  )
webdriver = pytest.importorskip(
  'selenium.webdriver', reason='needs selenium: pip install -e .[browser]'
)

NASTY = '</script><img src=x onerror="document.title=1"><script>document.title=2</script>'
# Of scratch and of ahm.
DICE = {
  'image10': (0.4, 0.2),
  'image2': (0.1, 0.9),
  NASTY: (0.6, 0.5),
  'empty': (None, None),
}
FLAGS = (
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


def write(path):
  entries = []
  for number, (name, dice) in enumerate(DICE.items()):
    truth = np.zeros((60, 90), bool)
    if name != 'empty':
      truth[10:30, 20 + number : 50] = True
    image = np.full((16, 16, 3), 40 * number, np.uint8)
    hidden = np.eye(4, dtype=bool)
    scratch, ahm = (float('nan') if value is None else value for value in dice)
    made = viewer.Made(truth, ahm, viewer.Masking(hidden * 0.9, hidden, image))
    entries.append(
      viewer.entry(name, image, truth, [('scratch', viewer.Made(truth, scratch)), ('ahm', made)])
    )
  results = {
    'dataset': 'x',
    'split': 'test',
    'config': {},
    'cells': [],
    'summary': [],
    'agent': {'ahm': {}, 'scratch': {}},
  }
  shown = report.Shown(viewer=viewer.Viewer(('scratch', 'ahm'), 20, 0, entries, 9))
  report.write_report(results, [], shown, path)


class Page:
  """The report in a browser."""

  def __init__(self, driver):
    self.driver = driver

  def find(self, selector):
    return self.driver.find_element('css selector', selector)

  def part(self, name):
    return self.find(f'[data-part="{name}"]')

  def press(self, *keys, into='stage'):
    for key in keys:
      self.part(into).send_keys(getattr(webdriver.Keys, key, key))

  def choose(self, kind, value):
    self.driver.execute_script(
      f'document.querySelector("input[name=viewer-{kind}][value=\'{value}\']").click()'
    )

  @property
  def title(self):
    return self.part('title').text

  @property
  def layer(self):
    return self.part('frame').get_attribute('data-layer')

  @property
  def listed(self):
    return [
      item.text
      for item in self.driver.find_elements('css selector', '[data-part="list"] button span')
    ]

  @property
  def complaints(self):
    return self.driver.get_log('browser')


@pytest.fixture(scope='module')
def driver(tmp_path_factory):
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("profile")}'):
    options.add_argument(flag)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
  yield driver
  driver.quit()


@pytest.fixture(scope='module')
def address(tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'report.html'
  write(path)
  return path.as_uri()


@pytest.fixture
def page(driver, address):
  driver.get(address)
  page = Page(driver)
  yield page
  assert page.complaints == []


def test_the_worst_of_the_last_network_is_seen_first(page):
  assert page.title == 'image10' and page.layer == 'error'
  assert page.listed == ['image10', NASTY, 'image2', 'empty']
  assert page.part('place').text == '1 of 4'
  assert [page.part(f'dice-{i}').text for i in (0, 1)] == ['0.400', '0.200']
  assert '4 of the 9 images' in page.find('#viewer .note').text


def test_arrow_keys_page_round(page):
  page.press('ARROW_RIGHT')
  # A name is text, whatever it looks like.
  assert page.title == NASTY and page.driver.title.startswith('x: ')
  page.press('ARROW_RIGHT', 'ARROW_RIGHT', 'ARROW_RIGHT')
  assert page.title == 'image10'
  page.press('ARROW_LEFT')
  assert page.title == 'empty' and page.part('dice-1').text == 'not defined, both are empty'
  page.press('HOME')
  assert page.title == 'image10'
  page.press('END')
  assert page.title == 'empty'


def test_buttons_and_the_list_are_clicked(page):
  page.part('next').click()
  assert page.title == NASTY
  page.part('previous').click()
  assert page.title == 'image10'
  page.find('[data-part="list"] li:nth-child(3) button').click()
  assert page.title == 'image2' and page.part('place').text == '3 of 4'
  current = page.driver.find_elements('css selector', '[data-part="list"] [aria-current=true]')
  assert [item.text.splitlines()[0] for item in current] == ['image2']


def test_the_list_is_one_stop_of_the_tab_key_and_keeps_the_focus(page):
  page.find('[data-part="list"] button').click()
  page.driver.switch_to.active_element.send_keys(webdriver.Keys.ARROW_DOWN)
  assert page.title == NASTY
  assert page.driver.switch_to.active_element.text.splitlines()[0] == NASTY
  page.driver.switch_to.active_element.send_keys(webdriver.Keys.TAB)
  assert page.driver.switch_to.active_element.get_attribute('name') == 'viewer-run'


def test_number_keys_choose_layers(page):
  base = page.part('base').get_attribute('src')
  shown = {}
  for number, (key, _, _) in enumerate(viewer.LAYERS, 1):
    page.press(str(number))
    assert page.layer == key and page.find(f'input[value={key}]').is_selected()
    over = page.part('over')
    shown[key] = (
      page.part('base').get_attribute('src'),
      over.get_attribute('src') if over.is_displayed() else None,
    )
    assert page.part('base').get_attribute('alt') == page.part('said').text != ''
    assert (
      page.driver.execute_script('return document.querySelector("[data-part=base]").naturalWidth')
      == 16
    )
  assert shown['image'] == (base, None) and shown['reconstruction'][1] is None
  assert len({over for _, over in shown.values()}) == 6  # None for two of them.
  assert (
    page.find('[data-for=error]').is_displayed()
    and not page.find('[data-for=policy]').is_displayed()
  )
  page.press('8', '0', 'x')
  assert page.layer == 'error'


def test_another_network_has_its_own_scores_and_layers(page):
  page.press('2')
  page.choose('run', 0)
  assert page.listed == ['image2', 'image10', NASTY, 'empty']
  # The image stays, for comparing.
  assert page.title == 'image10' and page.part('place').text == '2 of 4'
  assert page.layer == 'prediction' and page.part('said').text.startswith('What scratch found')
  assert not page.find('input[value=policy]').is_enabled()
  page.press('2')
  assert page.layer == 'prediction'
  page.choose('run', 1)
  page.choose('layer', 'hidden')
  assert page.layer == 'hidden' and page.part('said').text.startswith('One mask that ahm sampled')


def test_arrow_keys_on_radio_buttons_are_theirs(page):
  radio = page.find('input[name=viewer-layer][value=error]')
  radio.send_keys(webdriver.Keys.ARROW_LEFT)
  assert page.layer == 'truth' and page.title == 'image10'


def test_the_order_can_be_changed(page):
  page.find('#viewer-sort option[value=name]').click()
  names = page.listed
  assert names.index('image2') < names.index('image10')  # As numbers, not as letters.
  assert page.title == names[0]
  page.find('#viewer-sort option[value=best]').click()
  assert page.listed == ['image2', NASTY, 'image10', 'empty']


def test_what_changes_is_announced(page):
  live = page.find('[aria-live=polite]')
  page.press('ARROW_RIGHT', 'ARROW_RIGHT', '6')
  said = live.get_attribute('textContent')
  assert said.startswith('image2, 3 of 4. The true mask on image image2: ') and said.endswith(
    ' Dice of ahm: 0.900.'
  )


def test_focus_is_seen_and_the_page_does_not_scroll_sideways(page):
  page.driver.execute_script('arguments[0].focus()', page.part('next'))
  page.press('ARROW_RIGHT')
  style = page.driver.execute_script(
    'return getComputedStyle(document.querySelector("[data-part=stage]")).outlineWidth'
  )
  assert style == '3px'
  for width in (360, 800, 1280):
    page.driver.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {'width': width, 'height': 800, 'deviceScaleFactor': 1, 'mobile': False},
    )
    assert page.driver.execute_script(
      'return document.documentElement.scrollWidth <= innerWidth'
    ), width
  page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_without_javascript_the_viewer_is_not_there(driver, address):
  driver.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
  driver.get(address)
  try:
    assert not driver.find_element('id', 'viewer').is_displayed()
    assert 'needs JavaScript' in driver.find_element('css selector', 'noscript').text
  finally:
    driver.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})
