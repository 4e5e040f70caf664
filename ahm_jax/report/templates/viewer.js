// The viewer of report.html. All that it shows is in the JSON block of the page; names enter as text only.
'use strict';
{
  const { images, runs } = JSON.parse(document.getElementById('viewer-data').textContent);
  const viewer = document.getElementById('viewer');
  const part = name => viewer.querySelector(`[data-part="${name}"]`);
  const radios = name => [...viewer.querySelectorAll(`input[name="viewer-${name}"]`)];
  const chosen = name => radios(name).find(radio => radio.checked).value;
  const still = matchMedia('(prefers-reduced-motion: reduce)');
  const byName = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });
  let order = [...images], shown = images[0];

  const run = () => shown.runs[chosen('run')];
  const layerOf = name => run().layers[name] ?? shown.layers[name];
  const diceText = dice => (dice === null ? 'not defined, both are empty' : dice.toFixed(3));

  // Those without a Dice come last, whichever end is first.
  function byDice(sign) {
    const dice = image => image.runs[chosen('run')].dice;
    return (a, b) => (dice(a) === null) - (dice(b) === null) || sign * (dice(a) - dice(b)) || byName(a, b);
  }

  function sort() {
    const by = { worst: byDice(1), best: byDice(-1), name: byName }[part('sort').value];
    order = [...images].sort(by);
    part('list').replaceChildren(...order.map(item));
  }

  function item(image) {
    const button = document.createElement('button');
    button.type = 'button';
    const thumbnail = Object.assign(new Image(), { src: image.image, alt: '', loading: 'lazy' });
    const dice = image.runs[chosen('run')].dice;
    const caption = document.createElement('span');
    caption.textContent = image.name;
    const score = document.createElement('small');
    score.textContent = dice === null ? 'Dice –' : `Dice ${dice.toFixed(2)}`;
    button.append(thumbnail, caption, score);
    button.addEventListener('click', () => show(image));
    const entry = document.createElement('li');
    entry.append(button);
    return entry;
  }

  // A network without pre-training has no policy, mask or reconstruction.
  function offerLayers() {
    for (const radio of radios('layer')) radio.disabled = !layerOf(radio.value);
    if (!layerOf(chosen('layer'))) radios('layer').find(radio => radio.value === 'prediction').checked = true;
  }

  function show(image) {
    shown = image;
    offerLayers();
    const name = chosen('layer'), layer = layerOf(name), place = order.indexOf(shown);
    part('frame').style.setProperty('--shape', `${shown.width} / ${shown.height}`);
    part('frame').dataset.layer = name;
    part('base').src = layer.base ?? shown.image;
    part('base').alt = layer.alt;
    part('over').hidden = !layer.over;
    if (layer.over) part('over').src = layer.over;
    part('title').textContent = shown.name;
    part('place').textContent = `${place + 1} of ${order.length}`;
    part('said').textContent = layer.alt;
    runs.forEach((_, i) => (part(`dice-${i}`).textContent = diceText(shown.runs[i].dice)));
    for (const legend of viewer.querySelectorAll('[data-for]')) legend.hidden = !legend.dataset.for.split(' ').includes(name);
    part('live').textContent =
      `${shown.name}, ${place + 1} of ${order.length}. ${layer.alt} Dice of ${runs[chosen('run')]}: ${diceText(run().dice)}.`;
    mark(place);
  }

  function mark(place) {
    const buttons = [...part('list').querySelectorAll('button')];
    if (part('list').contains(document.activeElement)) buttons[place].focus({ preventScroll: true });
    buttons.forEach((button, i) => {
      button.setAttribute('aria-current', String(i === place));
      button.tabIndex = i === place ? 0 : -1;  // One stop of the Tab key for all; arrow keys move in the list.
    });
    // The list scrolls, never the page.
    const list = part('list'), box = buttons[place].getBoundingClientRect(), own = list.getBoundingClientRect();
    list.scrollBy({
      left: box.left - own.left - (own.width - box.width) / 2,
      top: box.top - own.top - (own.height - box.height) / 2,
      behavior: still.matches ? 'auto' : 'smooth',
    });
  }

  const page = by => show(order[(order.indexOf(shown) + by + order.length) % order.length]);

  function press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches('select')) return;
    const isRadio = event.target.matches('input');  // Arrow keys are the radio buttons' own.
    const keys = { ArrowLeft: () => page(-1), ArrowRight: () => page(1), Home: () => show(order[0]), End: () => show(order.at(-1)) };
    if (part('list').contains(event.target)) Object.assign(keys, { ArrowUp: keys.ArrowLeft, ArrowDown: keys.ArrowRight });
    const radio = radios('layer')[Number(event.key) - 1];
    if (radio && !radio.disabled) {
      radio.checked = true;
      show(shown);
    } else if (keys[event.key] && !isRadio) {
      keys[event.key]();
      event.preventDefault();
    }
  }

  viewer.addEventListener('keydown', press);
  part('previous').addEventListener('click', () => page(-1));
  part('next').addEventListener('click', () => page(1));
  part('sort').addEventListener('change', () => { sort(); show(order[0]); });
  for (const radio of radios('layer')) radio.addEventListener('change', () => show(shown));
  for (const radio of radios('run')) radio.addEventListener('change', () => { sort(); show(shown); });
  viewer.hidden = false;
  sort();
  show(order[0]);
}
