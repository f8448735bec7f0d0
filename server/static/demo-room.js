// One room of the demo: its messages on the page, who has read them, who is here and who types.
// Whatever people wrote becomes text nodes, never HTML.

const PAGE = 50, KEPT = 600; // messages fetched at once; messages kept on the page
const GROUP_MS = 5 * 60_000, TYPING_MS = 6_000, AT_BOTTOM_PX = 60, NEAR_TOP_PX = 240;
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

const nameOf = (user_id) => String(user_id ?? 'somebody');
const textOf = (data) => (typeof data?.text === 'string' ? data.text : JSON.stringify(data));

export class Conversation {
  items = []; // messages on the page in order; those not yet in the log last, with offset Infinity
  unread = 0;
  draft = '';
  authors = new Set();
  members = null; // a Set of names once the server has told
  typing = new Map(); // name → timer that ends it
  active = false;
  #offsets = new Map();
  #pending = new Map();
  #marks = new Map(); // name → highest offset read
  #stuck = true;
  #scrollTop = 0;
  #loading = false;
  #exhausted = false;
  #live = false; // until the room is joined, what comes is its history

  /** `changed(what, detail)` hears of: unread, people, typing, latest, and message (one that somebody else wrote). */
  constructor(room, me, changed) {
    this.room = room;
    this.me = me;
    this.changed = changed;
    this.start = h('p', { class: 'start' });
    this.list = h('ol');
    const attributes = { class: 'messages', role: 'log', 'aria-live': 'off', tabindex: '0', 'aria-label': `Messages in ${room.name}` };
    this.element = h('div', { ...attributes, onscroll: () => this.#scrolled() }, this.start, this.list);
    new ResizeObserver(() => this.#stick()).observe(this.element);
    this.#begin();
    room.on('message', (message) => this.#add(message, this.#live));
    room.on('joined', (joined) => this.#joined(joined));
    room.on('reset', () => this.#reset());
    room.on('members', ({ users, typing }) => {
      this.members = new Set(users.map(nameOf));
      for (const user of typing ?? []) this.#type(nameOf(user), true);
      changed('people');
    });
    room.on('presence', ({ user_id, status }) => {
      this.members ??= new Set();
      this.members[status === 'online' ? 'add' : 'delete'](nameOf(user_id));
      changed('people');
    });
    room.on('typing', ({ user_id, typing }) => this.#type(nameOf(user_id), typing));
    room.on('receipt', ({ user_id, message_id, status }) => status === 'read' && this.#mark(nameOf(user_id), message_id));
  }

  /** On the page or off it. */
  show(active) {
    if (this.active === active) return;
    if (!active && !this.unread) this.#newFrom(null);
    this.active = active;
    if (!active) return;
    if (!this.#stuck) this.element.scrollTop = this.#scrollTop;
    this.#stick();
    this.seen();
    this.#fill();
  }

  /** What can be seen now has been read. */
  seen() {
    if (!this.active || document.hidden || !this.#stuck) return;
    const last = this.items.findLast(({ offset }) => offset < Infinity);
    if (last) this.room.read(last.offset);
    if (this.unread) {
      this.unread = 0;
      this.changed('unread');
    }
    this.changed('latest', false);
  }

  latest() {
    this.#stuck = true;
    this.#stick();
    this.seen();
  }

  /** Shown at once; the ticks say how far it got. */
  send(text) {
    const data = { text, id: Math.random().toString(36).slice(2) };
    const item = this.#insert({ offset: Infinity, user: this.me, ts: Date.now() / 1000, data, mine: true });
    this.#pending.set(data.id, item);
    this.#newFrom(null);
    this.latest();
    this.#deliver(item);
  }

  async #deliver(item) {
    this.#state(item, 'sending');
    try {
      const { offset } = await this.room.send(item.data);
      this.#confirm(item, offset);
    } catch (error) {
      if (item.offset === Infinity) this.#state(item, 'failed', error.message);
    }
  }

  #confirm(item, offset) {
    if (!this.#pending.delete(item.data.id)) return;
    this.items.splice(this.items.indexOf(item), 1);
    item.li.remove();
    this.#insert(Object.assign(item, { offset }));
    this.#state(item, 'sent');
    this.#marks.forEach((_, user) => this.#tick(user));
    this.#stick();
    this.seen();
  }

  // What the room tells.

  #joined({ recovered, receipts, unread }) {
    this.#live = true;
    for (const { user_id, read } of receipts ?? []) this.#mark(nameOf(user_id), read);
    if (recovered === null) {
      this.#exhausted = !this.items.length;
      this.#begin();
      if (unread && unread <= this.items.length) {
        this.unread = unread;
        this.#newFrom(this.items.at(-unread));
        this.changed('unread');
      }
    }
    this.#stick();
    this.seen();
    this.#fill();
    this.changed('people');
  }

  #add(message, live) {
    const { offset, user_id, ts, data } = message;
    if (this.#offsets.has(offset)) return;
    const user = nameOf(user_id);
    const own = user === this.me && this.#pending.get(data?.id);
    if (own) return this.#confirm(own, offset);
    const stuck = this.#stuck;
    const item = this.#insert({ offset, user, ts, data, mine: user === this.me });
    if (item.mine) this.#state(item, 'sent');
    this.#marks.forEach((_, name) => this.#tick(name));
    if (!live) return;
    this.#type(user, false);
    if (!item.mine) this.changed('message', { user, text: textOf(data) });
    if (this.active && stuck && !document.hidden) this.seen();
    else if (!item.mine) {
      if (!this.unread++) this.#newFrom(item);
      this.changed('unread');
      if (this.active && !stuck) this.changed('latest', true);
    }
    this.#trim();
    this.#stick();
  }

  #mark(user, offset) {
    if (!(offset > (this.#marks.get(user) ?? 0))) return;
    this.#marks.set(user, offset);
    this.#tick(user);
  }

  #tick(user) {
    const mark = this.#marks.get(user);
    if (user === this.me) return;
    for (let i = this.items.length; i--; ) {
      const item = this.items[i];
      if (!item.mine || item.offset > mark) continue;
      if (item.readers.has(user)) break; // so have all before it
      item.readers.add(user);
      this.#state(item, 'read', `read by ${[...item.readers].join(', ')}`);
    }
  }

  #type(user, typing) {
    clearTimeout(this.typing.get(user));
    this.typing.delete(user);
    if (typing) this.typing.set(user, setTimeout(() => this.#type(user, false), TYPING_MS));
    this.changed('typing');
  }

  #reset() {
    const waiting = this.items.filter(({ offset }) => offset === Infinity);
    this.items = [];
    this.#offsets.clear();
    this.#marks.clear();
    this.list.replaceChildren();
    this.#exhausted = this.#live = false;
    waiting.forEach((item) => this.#insert(item));
    this.#begin();
  }

  // What came before.

  #begin() {
    const { name } = this.room;
    if (!this.#exhausted) this.start.textContent = '';
    else if (!this.items.length) this.start.textContent = `Nothing in #${name} yet. Say hello.`;
    else this.start.textContent = [1, Infinity].includes(this.items[0].offset) ? `Here #${name} begins.` : 'What came before is no longer kept.';
  }

  async #older() {
    const [first] = this.items;
    if (this.#loading || this.#exhausted || !first || first.offset === Infinity) return;
    this.#loading = true;
    this.start.textContent = 'Loading earlier messages…';
    try {
      const messages = first.offset > 1 ? await this.room.history({ before: first.offset, limit: PAGE }) : [];
      const { scrollHeight, scrollTop } = this.element;
      messages.reverse().forEach((message) => this.#add(message, false));
      this.element.scrollTop = scrollTop + this.element.scrollHeight - scrollHeight;
      this.#exhausted = !messages.length || this.items[0].offset === 1;
    } catch {
      // left, or offline for long: scrolling up asks again
    }
    this.#loading = false;
    this.#begin();
    this.#fill();
  }

  /** A page that does not fill the window cannot be scrolled to ask for more. */
  #fill() {
    if (this.active && this.element.scrollTop < NEAR_TOP_PX) this.#older();
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    if (!clientHeight) return; // off the page
    this.#scrollTop = scrollTop;
    this.#stuck = scrollHeight - scrollTop - clientHeight < AT_BOTTOM_PX;
    this.#fill();
    this.seen();
  }

  #stick() {
    if (this.#stuck && this.active) this.element.scrollTop = this.element.scrollHeight;
  }

  /** The page is bounded; what falls off at the top comes back by scrolling. */
  #trim() {
    if (!this.#stuck || this.items.length <= KEPT) return;
    for (const { li, offset } of this.items.splice(0, this.items.length - KEPT / 2)) {
      li.remove();
      this.#offsets.delete(offset);
    }
    this.#exhausted = false;
    this.#group(0);
    this.#begin();
  }

  // What it looks like.

  #insert(item) {
    let at = this.items.length;
    while (at && this.items[at - 1].offset > item.offset) at--;
    item.readers ??= new Set();
    item.li ??= this.#render(item);
    this.list.insertBefore(item.li, this.items[at]?.li ?? null);
    this.items.splice(at, 0, item);
    if (item.offset < Infinity) this.#offsets.set(item.offset, item);
    if (!this.authors.has(item.user)) {
      this.authors.add(item.user);
      this.changed('people');
    }
    this.#group(at);
    this.#group(at + 1);
    if (!at) this.#begin();
    return item;
  }

  #render({ user, ts, data, mine }) {
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
  #group(at) {
    const item = this.items[at], before = this.items[at - 1];
    if (!item) return;
    const date = new Date(item.ts * 1000), sameDay = before && new Date(before.ts * 1000).toDateString() === date.toDateString();
    const follows = sameDay && before.user === item.user && (item.ts - before.ts) * 1000 < GROUP_MS;
    item.li.classList.toggle('follows', Boolean(follows));
    before?.li.classList.toggle('leads', Boolean(follows));
    if (at === this.items.length - 1) item.li.classList.remove('leads');
    if (sameDay) delete item.li.dataset.day;
    else item.li.dataset.day = date.toDateString() === new Date().toDateString() ? 'Today' : day.format(date);
  }

  #state(item, state, title) {
    const [sign, words] = STATES[state];
    item.ticks?.remove();
    const attributes = { class: 'ticks', 'data-state': state, title: title ?? words, 'aria-label': title ?? words };
    item.ticks = state === 'failed'
      ? h('button', { ...attributes, type: 'button', onclick: () => this.#deliver(item) }, sign)
      : h('span', { ...attributes, role: 'img' }, sign);
    item.li.querySelector('.meta').append(item.ticks);
  }

  #newFrom(item) {
    for (const li of this.list.querySelectorAll('[data-new]')) delete li.dataset.new;
    if (item) item.li.dataset.new = '';
  }
}
