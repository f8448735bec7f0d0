// One message of the demo on the page, and the small things the page is made of.
// Whatever people wrote becomes text nodes, never HTML.

const GROUP_MS = 5 * 60_000;
const EMOJI = /^(?:\p{Extended_Pictographic}[\u{1F3FB}-\u{1F3FF}\uFE0F\u200D]*){1,3}$/u;
const LINK = /(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]}'])/;
const time = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const STATES = {
  sending: ['○', 'being sent'], sent: ['✓', 'sent'], read: ['✓✓', 'read'], failed: ['Not sent. Try again', 'not sent'],
};

/** An element with attributes, listeners (`onclick`) and children; strings become text. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) element[key] = value;
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A round initial in a colour of the user's own. `here`: yes or no gives it a dot. */
export function face(user, here) {
  const element = h('span', { class: 'face', 'aria-hidden': 'true', 'data-here': here }, [...user][0]?.toUpperCase() ?? '?');
  let hue = 7;
  for (const letter of user) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  element.style.setProperty('--hue', hue);
  return element;
}

export const textOf = (data) => (typeof data?.text === 'string' ? data.text : JSON.stringify(data));

/** The list item of a message. */
export function render({ user, ts, data, mine }) {
  const text = textOf(data);
  const parts = text.split(LINK).map((part, i) =>
    i % 2 ? h('a', { href: part, target: '_blank', rel: 'noopener noreferrer nofollow' }, part) : part);
  const date = new Date(ts * 1000);
  const meta = h('span', { class: 'meta' }, h('time', { datetime: date.toISOString() }, time.format(date)));
  const bubble = h('div', { class: EMOJI.test(text.trim()) ? 'bubble emoji' : 'bubble' }, ...parts);
  if (!bubble.classList.contains('emoji') || mine) bubble.append(meta);
  return h('li', { class: mine ? 'mine' : null }, ...(mine ? [] : [face(user)]),
    h('small', {}, mine ? 'You' : user), bubble);
}

/** Messages of one author within five minutes stand together; a new day says so. */
export function group(items, at) {
  const item = items[at], before = items[at - 1];
  if (!item) return;
  const date = new Date(item.ts * 1000), sameDay = before && new Date(before.ts * 1000).toDateString() === date.toDateString();
  const follows = sameDay && before.user === item.user && (item.ts - before.ts) * 1000 < GROUP_MS;
  item.li.classList.toggle('follows', Boolean(follows));
  before?.li.classList.toggle('leads', Boolean(follows));
  if (at === items.length - 1) item.li.classList.remove('leads');
  if (sameDay) delete item.li.dataset.day;
  else item.li.dataset.day = date.toDateString() === new Date().toDateString() ? 'Today' : day.format(date);
}

/** How far a message of one's own got. `again` is called where it failed and is to be tried again. */
export function showState(item, state, title, again) {
  const [sign, words] = STATES[state];
  item.ticks?.remove();
  const attributes = { class: 'ticks', 'data-state': state, title: title ?? words };
  item.ticks = state === 'failed'
    ? h('button', { ...attributes, type: 'button', onclick: again }, sign) // the title says why
    : h('span', { ...attributes, role: 'img', 'aria-label': title ?? words }, sign);
  item.li.querySelector('.meta').append(item.ticks);
}
