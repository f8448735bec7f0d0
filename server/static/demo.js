// The demo chat around the rooms: who one is, which room is shown, the connection, the people, the message field.
import { roomcast } from './roomcast.js';
import { Banner } from './demo-banner.js';
import { Conversation } from './demo-room.js';
import { face, h } from './demo-message.js';

const $ = (id) => document.getElementById(id);
const me = new URLSearchParams(location.search).get('user');
const ROOMS = ['lobby', 'kitchen', 'music'], ROOM = /^(?!__)[\w.:@/-]{1,64}$/, NAME = /^(?!__)[\w.:@/|+-]{1,128}$/;
const PATIENCE_MS = 500;

const handy = matchMedia('(pointer: fine)').matches; // on a phone, focus would open the keyboard

if (me && NAME.test(me)) enter();
else {
  $('who').hidden = false;
  $('name-wrong').hidden = !me;
  $('name').value = me ?? '';
  $('name').focus();
}

function enter() {
  $('app').hidden = false;
  $('me').append(h('div', { class: 'person' }, face(me), h('span', {}, me, h('small', {}, ' (you)'))));
  if (handy) $('text').focus();

  const rc = roomcast(`/ws?user=${encodeURIComponent(me)}`);
  const banner = new Banner($('banner'), rc);
  const online = new Set(); // on the whole site, where the server tells
  const rooms = new Map();
  let current; // none when all rooms were left

  // Rooms.

  const remembered = () => {
    try {
      const names = JSON.parse(localStorage.getItem('rooms')).filter((name) => ROOM.test(name));
      return names.length ? names : ROOMS;
    } catch {
      return ROOMS;
    }
  };

  const wanted = () => {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return ''; // half of an escaped letter
    }
  };

  function open(name) {
    if (rooms.has(name) || !ROOM.test(name)) return;
    const room = rc.join(name, { presence: true, history: 40 });
    const conversation = new Conversation(room, me, (what, detail) => heard(conversation, what, detail));
    room.on('joined', ({ recovered, missed }) => recovered === null || banner.caughtUp(missed, recovered));
    room.on('error', ({ code, message }) => shut(name, code === 'closed' ? message : `You may not enter #${name}.`));
    room.on('left', () => shut(name, `You were taken out of #${name}.`));
    rooms.set(name, conversation);
    remember();
    list();
  }

  function remember() {
    try {
      localStorage.setItem('rooms', JSON.stringify([...rooms.keys()]));
    } catch {
      // not remembered, then
    }
  }

  function shut(name, why, kind = 'bad') {
    const conversation = rooms.get(name);
    if (!rooms.delete(name)) return;
    remember();
    banner.say(kind, why);
    if (current === conversation) rooms.size ? select(rooms.keys().next().value) : nowhere();
    list();
  }

  function nowhere() {
    current.show(false);
    current = undefined;
    history.replaceState(null, '', '#');
    $('title').textContent = 'no room';
    $('hash').hidden = true;
    $('text').placeholder = 'Message';
    $('log').replaceChildren(h('p', { class: 'start' }, 'You are in no room. Open one to talk.'));
    $('text').value = '';
    $('latest').hidden = true;
    written();
    people();
    typists();
  }

  $('leave').onclick = () => {
    const { name } = current.room;
    current.room.leave();
    shut(name, `You left #${name}.`, 'fine');
    if (handy) $(current ? 'text' : 'room-name').focus();
  };

  rc.on('joined', ({ room }) => {
    rc.join(room).leave(); // again, with its history and its people
    open(room);
    banner.say('fine', `You were put into #${room}.`);
  });

  function select(name) {
    const next = rooms.get(name);
    if (!next || next === current) return;
    if (current) current.draft = $('text').value;
    current?.show(false);
    current = next;
    history.replaceState(null, '', `#${name}`);
    $('title').textContent = name;
    $('hash').hidden = false;
    $('log').replaceChildren(current.element);
    $('text').value = current.draft;
    $('text').placeholder = `Message #${name}`;
    $('latest').hidden = true;
    written();
    current.show(true);
    list();
    people();
    typists();
  }

  function heard(conversation, what, detail) {
    if (what === 'unread') list();
    else if (what === 'message') announce(conversation, detail);
    else if (conversation !== current) return;
    else if (what === 'people') people();
    else if (what === 'typing') typists();
    else $('latest').hidden = !detail;
  }

  function list() {
    let elsewhere = 0;
    const items = [...rooms].map(([name, conversation]) => {
      const { unread } = conversation;
      if (conversation !== current) elsewhere += unread;
      const attributes = { 'aria-current': conversation === current ? 'true' : null, class: unread ? 'unread' : null };
      const button = h('button', { ...attributes, onclick: () => pick(name) }, h('span', {}, name));
      if (unread) button.append(h('b', { 'aria-label': `${unread} unread` }, unread > 99 ? '99+' : `${unread}`));
      return h('li', {}, button);
    });
    const focused = [...$('rooms').children].findIndex((item) => item.contains(document.activeElement));
    $('rooms').replaceChildren(...items);
    if (focused >= 0) $('rooms').children[focused]?.firstChild.focus();
    $('elsewhere').hidden = !elsewhere;
    $('elsewhere').textContent = elsewhere > 99 ? '99+' : elsewhere;
    $('rooms-button').setAttribute('aria-label', elsewhere ? `Rooms, ${$('elsewhere').textContent} unread` : 'Rooms');
    const total = elsewhere + (current?.unread ?? 0);
    document.title = `${total ? `(${total}) ` : ''}${current ? `#${current.room.name} · ` : ''}Roomcast`;
  }

  function pick(name) {
    select(name);
    if ($('rooms-pane').matches(':popover-open')) $('rooms-pane').hidePopover();
    if (handy) $('text').focus();
  }

  // People.

  function people() {
    const here = current?.members;
    const names = new Set([me, ...(here ?? []), ...(current?.authors ?? [])]);
    names.delete('somebody');
    const isHere = (name) => (here ? here.has(name) : name === me);
    const sorted = [...names].sort((a, b) => isHere(b) - isHere(a) || a.localeCompare(b));
    $('people').replaceChildren(...sorted.map((name) => {
      const word = isHere(name) ? 'here' : online.has(name) ? 'in another room' : 'away';
      const label = h('span', {}, name, h('small', {}, name === me ? ' (you)' : here && word === 'in another room' ? ` ${word}` : ''));
      const shown = here ? (word === 'away' ? 'no' : 'yes') : null;
      return h('li', { class: word === 'away' && here ? 'person away' : 'person' }, face(name, shown), label,
        h('span', { class: 'hidden' }, here ? word : ''));
    }));
    const count = here?.size ?? names.size;
    $('here').textContent = count;
    $('people-button').setAttribute('aria-label', `People: ${count}`);
    $('people-title').textContent = here ? `Here now: ${count}` : 'People';
  }

  function typists() {
    const names = [...(current?.typing.keys() ?? [])].slice(0, 3);
    $('typing').firstChild.textContent = !names.length ? ''
      : `${names.join(names.length === 2 ? ' and ' : ', ')} ${names.length > 1 ? 'are' : 'is'} typing`;
  }

  rc.on('presence', ({ user_id, status }) => {
    online[status === 'online' ? 'add' : 'delete'](String(user_id));
    people();
  });
  rc.on('presence_list', ({ users }) => replace(users));

  function replace(users) {
    online.clear();
    for (const user of users) online.add(String(user));
    people();
  }

  // The connection.

  rc.on('status', ({ status }) => {
    $('app').dataset.status = status;
    if (status === 'online') rc.presence().then(replace, () => {}); // not told here: the room's own presence has to do
    written();
  });

  // What a screen reader hears: one message in full, many as a number.

  let news = [], newsTimer;

  function announce(conversation, { user, text }) {
    if (!document.hidden) news.push([conversation, `${user}: ${text}`]);
    clearTimeout(newsTimer);
    newsTimer = setTimeout(() => {
      const here = news.filter(([from]) => from === current), others = new Set(news.map(([from]) => from)).size - (here.length ? 1 : 0);
      const said = here.length === 1 ? here[0][1] : here.length ? `${here.length} new messages` : '';
      $('announcer').textContent = said || (others ? `New messages in ${others === 1 ? news[0][0].room.name : `${others} rooms`}` : '');
      news = [];
    }, PATIENCE_MS);
  }

  // The message field.

  function written() {
    const { style } = $('text');
    $('text').disabled = !current || rc.status === 'closed';
    $('leave').hidden = !current;
    $('compose').querySelector('button').disabled = $('text').disabled || !$('text').value.trim();
    if (!CSS.supports('field-sizing', 'content')) {
      style.height = 'auto';
      style.height = `${$('text').scrollHeight + 2}px`;
    }
  }

  $('text').oninput = () => {
    written();
    current.room.typing(Boolean($('text').value.trim()));
  };
  $('text').onkeydown = (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $('compose').requestSubmit();
  };
  $('compose').onsubmit = (event) => {
    event.preventDefault();
    const text = $('text').value.trim();
    if (!text) return;
    $('text').value = '';
    written();
    current.send(text);
    $('text').focus();
  };
  $('add').onsubmit = (event) => {
    event.preventDefault();
    const name = $('room-name').value.trim();
    open(name);
    $('room-name').value = '';
    pick(name);
  };
  $('latest').onclick = () => {
    current.latest();
    $('text').focus();
  };
  addEventListener('keydown', (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!event.altKey || !step) return;
    event.preventDefault();
    const names = [...rooms.keys()];
    pick(names[(names.indexOf(current?.room.name) + step + names.length) % names.length]);
  });
  addEventListener('hashchange', () => {
    open(wanted());
    select(wanted());
  });
  document.addEventListener('visibilitychange', () => current?.seen());

  remembered().forEach(open);
  open(wanted());
  select(rooms.has(wanted()) ? wanted() : rooms.keys().next().value);
}
