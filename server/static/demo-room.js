// One room of the demo: its messages on the page, who has read them, who is here and who types.
import { group, h, render, showState, textOf } from './demo-message.js';

const PAGE = 50, KEPT = 600; // messages fetched at once; messages kept on the page
const TYPING_MS = 6_000, AT_BOTTOM_PX = 60, NEAR_TOP_PX = 240;

const nameOf = (user_id) => String(user_id ?? 'somebody');

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
    showState(item, 'sending');
    try {
      const { offset } = await this.room.send(item.data);
      this.#confirm(item, offset);
    } catch (error) {
      if (item.offset === Infinity) showState(item, 'failed', error.message, () => this.#deliver(item));
    }
  }

  #confirm(item, offset) {
    if (!this.#pending.delete(item.data.id)) return;
    this.items.splice(this.items.indexOf(item), 1);
    item.li.remove();
    this.#insert(Object.assign(item, { offset }));
    showState(item, 'sent');
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
    if (item.mine) showState(item, 'sent');
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
      showState(item, 'read', `read by ${[...item.readers].join(', ')}`);
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
    group(this.items, 0);
    this.#begin();
  }

  #insert(item) {
    let at = this.items.length;
    while (at && this.items[at - 1].offset > item.offset) at--;
    item.readers ??= new Set();
    item.li ??= render(item);
    this.list.insertBefore(item.li, this.items[at]?.li ?? null);
    this.items.splice(at, 0, item);
    if (item.offset < Infinity) this.#offsets.set(item.offset, item);
    if (!this.authors.has(item.user)) {
      this.authors.add(item.user);
      this.changed('people');
    }
    group(this.items, at);
    group(this.items, at + 1);
    if (!at) this.#begin();
    return item;
  }

  #newFrom(item) {
    for (const li of this.list.querySelectorAll('[data-new]')) delete li.dataset.new;
    if (item) item.li.dataset.new = '';
  }
}
