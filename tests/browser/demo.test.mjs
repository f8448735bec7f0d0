// The demo in real browsers on real nodes: what two people see of each other, and what they see when things break.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { DESK, PHONE, Stage, eventually } from './stage.mjs';

let stage;
before(async () => { stage = await Stage.open(); });
afterEach(() => stage.clear());
after(() => stage.close());

const limit = { timeout: 240_000 };

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('#text').press('Enter');
}
const bubble = (page, text) => page.locator('#log .bubble', { hasText: text });
const seen = (page, text) => bubble(page, text).waitFor();
const texts = (page) => page.locator('#log .bubble').evaluateAll((all) => all.map((b) => b.firstChild.textContent));
const room = (page, name) => page.locator('#rooms button', { hasText: name });
const banner = (page, text) => page.locator('#banner:not([data-kind=none])', { hasText: text }).waitFor();

/** For tests that need no second one. */
async function oneNode() {
  return { first: await stage.front(await stage.node()) };
}

/** Two nodes, and a way to each that falls back on the other. */
async function twoNodes() {
  const [one, two] = await Promise.all([stage.node(), stage.node()]);
  return { one, two, first: await stage.front(one, two), second: await stage.front(two, one) };
}

test('two people on two nodes talk: messages, typing, ticks, unread counts', limit, async () => {
  const { first, second } = await twoNodes();
  const alice = await stage.person('alice', first);
  const bob = await stage.person('bob', second, { ...PHONE, colorScheme: 'dark' });

  await say(alice, 'Good morning! Did anybody try two nodes?');
  await seen(bob, 'Good morning!');
  await alice.locator('.ticks[data-state=read]').waitFor();
  assert.equal(await alice.locator('.ticks').getAttribute('aria-label'), 'read by bob');

  await bob.locator('#text').pressSequentially('Yes, and');
  await alice.locator('#typing', { hasText: 'bob is typing' }).waitFor();
  await say(bob, 'Yes, and killed one of them. See https://example.org/notes, please.');
  await seen(alice, 'Yes, and killed one');
  await eventually('typing has ended', async () => (await alice.locator('#typing').innerText()) === '');
  const link = bubble(alice, 'killed one').locator('a');
  assert.deepEqual([await link.innerText(), await link.getAttribute('rel')], ['https://example.org/notes', 'noopener noreferrer nofollow']);

  await room(alice, 'kitchen').click();
  await say(bob, 'Anybody still here?');
  await room(alice, 'lobby').locator('b', { hasText: '1' }).waitFor();
  assert.equal(await alice.title(), '(1) #kitchen · Roomcast');
  assert.equal(await bubble(bob, 'Anybody').locator('.ticks').getAttribute('data-state'), 'sent', 'nobody has looked at it yet');
  await stage.shot(alice, 'desk-empty-room');
  await room(alice, 'lobby').click();
  await seen(alice, 'Anybody still here?');
  assert.equal(await room(alice, 'lobby').locator('b').count(), 0);
  assert.equal(await alice.locator('[data-new]').count(), 1);
  await bubble(bob, 'Anybody').locator('.ticks[data-state=read]').waitFor();

  await stage.shot(alice, 'desk-light');
  await stage.shot(bob, 'phone-dark');
  assert.deepEqual([alice.troubles, bob.troubles], [[], []]);
});

test('a person is here until the last of three tabs on two nodes is closed', limit, async () => {
  const { first, second } = await twoNodes();
  const alice = await stage.person('alice', first);
  const person = (name, here) => alice.locator('#people .person', { hasText: name }).locator(`.face[data-here=${here}]`).waitFor();
  const tabs = [await stage.person('bob', second)];
  await say(tabs[0], 'Hello, I am bob.');
  await person('bob', 'yes');
  tabs.push(await stage.tab('bob', second, tabs[0].context()), await stage.tab('bob', first, tabs[0].context()));
  await alice.evaluate(() => {
    window.changes = [];
    document.addEventListener('roomcast:broadcast', ({ detail }) =>
      detail.type === 'presence' && detail.room === 'lobby' && window.changes.push(`${detail.user_id} ${detail.status}`));
  });
  await tabs[0].close();
  await tabs[1].close();
  await say(tabs[2], 'Still here.');
  await seen(alice, 'Still here.');
  await person('bob', 'yes');
  await stage.shot(alice, 'desk-people');
  await tabs[2].close();
  await person('bob', 'no');
  await stage.shot(alice, 'desk-away');
  assert.deepEqual(await alice.evaluate(() => window.changes), ['bob offline']);
});

test('what people write stays text', limit, async () => {
  const { first } = await oneNode();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', first);
  const html = '<img src=x onerror="document.title=1"><b>bold</b><script>document.title=2</script>';
  await say(alice, html);
  await seen(bob, '<b>bold</b>');
  assert.deepEqual(await texts(bob), [html]);
  assert.equal(await bob.locator('#log :is(img, b, script)').count(), 0);
  const policy = (await bob.request.get(`${first.url}/demo`)).headers()['content-security-policy'];
  assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self'/);
  assert.deepEqual([alice.troubles, bob.troubles], [[], []]);
});

test('a killed node is survived: the line says so, and what was missed is caught up on', limit, async () => {
  const { one, first, second } = await twoNodes();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', second);
  await say(bob, 'before');
  await seen(alice, 'before');
  first.nodes = []; // nobody answers for a while
  one.signal('SIGKILL');
  await banner(alice, 'Connection lost');
  await stage.shot(alice, 'desk-lost');
  await say(alice, 'written while away');
  await bubble(alice, 'written while away').locator('.ticks[data-state=sending]').waitFor();
  for (const text of ['one', 'two', 'three']) {
    await say(bob, text);
    await bubble(bob, text).locator('.ticks[data-state=sent]').waitFor();
  }
  first.nodes = second.nodes;
  await banner(alice, '3 messages caught up');
  await stage.shot(alice, 'desk-resumed');
  await seen(bob, 'written while away');
  const log = ['before', 'one', 'two', 'three', 'written while away'];
  await eventually('alice has the whole log', async () => String(await texts(alice)) === String(log));
  assert.deepEqual(await texts(bob), log);
  assert.deepEqual([alice.troubles, bob.troubles], [[], []]);
});

test('a node that is drained sends its people to another, and they miss nothing', limit, async () => {
  const { one, first, second } = await twoNodes();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', second);
  await say(alice, 'before');
  await seen(bob, 'before');
  await alice.evaluate(() => {
    window.lines = [];
    new MutationObserver(() => window.lines.push(document.getElementById('banner').textContent))
      .observe(document.getElementById('banner'), { subtree: true, childList: true, characterData: true });
  });
  one.signal('SIGTERM');
  await banner(alice, 'Connected again');
  assert.match((await alice.evaluate(() => window.lines))[0], /maintenance/);
  assert.deepEqual(await one.ended, [0, null]);
  await say(bob, 'after');
  await seen(alice, 'after');
  assert.deepEqual(await texts(alice), ['before', 'after']);
});

test('without Redis the line says that messages wait, and they arrive once it is back', limit, async () => {
  const { first, second } = await twoNodes();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', second);
  await say(alice, 'before');
  await seen(bob, 'before');
  stage.redis.signal('SIGSTOP');
  await banner(alice, 'cannot reach its store');
  await stage.shot(alice, 'desk-degraded');
  await say(alice, 'patience');
  await bubble(alice, 'patience').locator('.ticks[data-state=sending]').waitFor();
  stage.redis.signal('SIGCONT');
  await seen(bob, 'patience');
  await bubble(alice, 'patience').locator('.ticks:is([data-state=sent], [data-state=read])').waitFor();
  await eventually('the line is gone', async () => (await alice.locator('#banner').getAttribute('data-kind')) === 'none');
  assert.deepEqual(await texts(bob), ['before', 'patience']);
});

test('history comes by scrolling up, to the first message, without a jump', limit, async () => {
  const { first } = await oneNode();
  const alice = await stage.person('alice', first);
  await alice.evaluate(async () => {
    const { roomcast } = await import('/roomcast.js');
    const rc = roomcast('/ws?user=archivist');
    const log = rc.join('lobby');
    for (let i = 1; i <= 130; i++) await log.send({ text: `message ${i}.` });
    rc.close();
  });
  const bob = await stage.person('bob', first, PHONE);
  await seen(bob, 'message 130.');
  assert.ok((await texts(bob)).length < 130);
  const messages = bob.locator('#log .messages');
  await eventually('the first message is there', async () => {
    const anchor = await messages.evaluate((element) => {
      element.scrollTop = 0;
      return element.querySelector('li').textContent;
    });
    assert.ok(anchor);
    return (await bubble(bob, 'message 1.').count()) === 1;
  });
  await bob.locator('.start', { hasText: 'Here #lobby begins' }).waitFor();
  assert.deepEqual(await texts(bob), Array.from({ length: 130 }, (_, i) => `message ${i + 1}.`));
  await say(alice, 'news');
  await bob.locator('#latest').waitFor();
  await stage.shot(bob, 'phone-scrolled');
  await bob.locator('#latest').click();
  await eventually('the newest message is in view', () => messages.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight < 2));
});

test('it works by keyboard, and every control has a name', limit, async () => {
  const { first } = await oneNode();
  const alice = await stage.person('alice', first);
  assert.equal(await alice.evaluate(() => document.activeElement.id), 'text');
  await alice.keyboard.type('two');
  await alice.keyboard.press('Shift+Enter');
  await alice.keyboard.type('lines');
  await alice.keyboard.press('Enter');
  await seen(alice, 'two\nlines');
  await alice.keyboard.press('Alt+ArrowDown');
  assert.equal(await alice.locator('#title').innerText(), 'kitchen');
  assert.equal(await alice.evaluate(() => document.activeElement.id), 'text');
  const nameless = await alice.locator('button:visible, input:visible, textarea:visible').evaluateAll((all) =>
    all.filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML));
  assert.deepEqual(nameless, []);
  const tree = await alice.locator('body').ariaSnapshot();
  for (const part of ['navigation "Rooms"', 'log "Messages in kitchen"', 'textbox "Message"', 'button "Send"', 'complementary "People"', 'status']) {
    assert.ok(tree.includes(part), `${part} is missing in\n${tree}`);
  }

  const phone = await stage.person('bob', first, PHONE);
  assert.ok(!(await phone.locator('#rooms-pane').isVisible()));
  await phone.locator('#rooms-button').click();
  await stage.shot(phone, 'phone-rooms');
  await room(phone, 'kitchen').click();
  await phone.locator('#title', { hasText: 'kitchen' }).waitFor();
  assert.ok(!(await phone.locator('#rooms-pane').isVisible()));
  await phone.locator('.people').click();
  await phone.locator('#people-pane').waitFor();
  await phone.keyboard.press('Escape');
  assert.ok(!(await phone.locator('#people-pane').isVisible()));
  const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${overflow} px too wide`);
});

test('who has no name, or one that cannot be, is asked for one', limit, async () => {
  const { first } = await oneNode();
  const page = await stage.blank(PHONE);
  await page.goto(`${first.url}/demo`);
  await page.locator('#who').waitFor();
  assert.ok(!(await page.getByRole('alert').isVisible()));
  await stage.shot(page, 'phone-who');
  await page.goto(`${first.url}/demo?user=${encodeURIComponent('b\u00f6se <b>')}`);
  await page.getByRole('alert').waitFor();
  await stage.shot(page, 'phone-who-wrong');
  const field = page.getByLabel('What should the others call you?');
  assert.equal(await field.inputValue(), 'b\u00f6se <b>');
  await page.keyboard.press('Enter');
  assert.ok(await field.evaluate((input) => !input.validity.valid), 'the browser does not send it');
  await field.fill('dora');
  await page.keyboard.press('Enter');
  await page.getByRole('textbox', { name: 'Message' }).waitFor();
  assert.match(await page.locator('#me').textContent(), /^Ddora/);
  assert.deepEqual(page.troubles, []);
});

test('rooms can be left, all of them, and an address that makes no sense leads to the first', limit, async () => {
  const { first } = await oneNode();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', first);
  const here = (page, count) => page.locator('#people-title', { hasText: `Here now: ${count}` }).waitFor();
  await here(bob, 2);
  await alice.getByRole('button', { name: 'Leave' }).click();
  await banner(alice, 'You left #lobby');
  await here(bob, 1);
  assert.equal(await alice.locator('#title').innerText(), 'kitchen');
  await alice.getByRole('button', { name: 'Leave' }).click();
  await alice.getByRole('button', { name: 'Leave' }).click();
  await alice.locator('#log', { hasText: 'You are in no room' }).waitFor();
  assert.ok(await alice.locator('#text').isDisabled());
  assert.ok(!(await alice.getByRole('button', { name: 'Leave' }).isVisible()));
  await stage.shot(alice, 'desk-no-room');
  await alice.keyboard.type('garden'); // the focus is where a room is opened
  await alice.keyboard.press('Enter');
  await say(alice, 'Back again.');
  await seen(alice, 'Back again.');
  assert.deepEqual(await alice.locator('#rooms button').allInnerTexts(), ['garden']);
  await alice.getByRole('button', { name: 'Leave' }).click();

  await alice.goto('about:blank');
  await alice.goto(`${first.url}/demo?user=alice#%E0%A4%A`);
  await alice.locator('#title', { hasText: 'lobby' }).waitFor();
  await here(bob, 2);
  assert.deepEqual([alice.troubles, bob.troubles], [[], []]);
});

test('who was sent away by an operator is told, and cannot write into the void', limit, async () => {
  const secret = 'x'.repeat(40);
  const node = await stage.node({ ROOMCAST_API_KEYS: `ops:admin:${secret}` });
  const alice = await stage.person('alice', await stage.front(node));
  const headers = { Authorization: `Bearer ${secret}`, 'Content-Type': 'application/json' };
  await fetch(`http://127.0.0.1:${node.port}/api/v1/disconnect`, { method: 'POST', headers, body: '{"user_id":"alice"}' });
  await banner(alice, 'Reload the page to try again');
  assert.ok(await alice.locator('#text').isDisabled());
  await stage.shot(alice, 'desk-closed');
  await alice.reload();
  await say(alice, 'Let in again.');
  await alice.locator('.ticks[data-state=sent]').waitFor();
  assert.deepEqual(alice.troubles, []);
});

test('when the network or the page comes back, the link is tried at once', limit, async () => {
  const { first } = await oneNode();
  const context = await stage.browser.newContext(DESK);
  const pings = [];
  context.on('page', (page) => page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => payload.includes('"ping"') && pings.push(payload))));
  const alice = await stage.tab('alice', first, context);
  await say(alice, 'connected');
  await alice.locator('.ticks[data-state=sent]').waitFor();
  const events = [
    () => window.dispatchEvent(new Event('offline')),
    () => window.dispatchEvent(new Event('online')),
    () => document.dispatchEvent(new Event('visibilitychange')),
  ];
  for (const [i, event] of events.entries()) {
    const answered = alice.evaluate(() => new Promise((resolve) => document.addEventListener('roomcast:broadcast', resolve, { once: true })));
    await alice.evaluate(event);
    await eventually('a ping', () => pings.length === i + 1);
    await say(alice, `after ${i}`); // what it brings is the sign of life that allows the next ping
    await answered;
  }
  await context.close();
});

test('a reload shows the log, who has read it and how much is new', limit, async () => {
  const { first, second } = await twoNodes();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', second);
  await say(alice, 'read by bob');
  await alice.locator('.ticks[data-state=read]').waitFor();
  await room(bob, 'music').click();
  await say(alice, 'not read by bob');
  await room(bob, 'lobby').locator('b', { hasText: '1' }).waitFor();
  await alice.reload();
  await bubble(alice, 'not read').locator('.ticks[data-state=sent]').waitFor();
  await alice.locator('.bubble', { hasText: /^read by bob/ }).locator('.ticks[data-state=read]').waitFor();
  await bob.reload();
  await room(bob, 'lobby').locator('b', { hasText: '1' }).waitFor();
  await room(bob, 'lobby').click();
  await bubble(alice, 'not read').locator('.ticks[data-state=read]').waitFor();
});

test('pages hear of everything as events of the document, and may open a plain WebSocket', limit, async () => {
  const { first, second } = await twoNodes();
  const alice = await stage.person('alice', first), bob = await stage.person('bob', second, DESK);
  const heard = alice.evaluate(() => new Promise((resolve) => {
    document.addEventListener('roomcast:broadcast', ({ detail }) => detail.type === 'message' && resolve(detail));
  }));
  await say(bob, 'hello');
  const { op, room: where, user_id, data } = await heard;
  assert.deepEqual([op, where, user_id, data.text], ['broadcast', 'lobby', 'bob', 'hello']);
  const welcome = await alice.evaluate(() => new Promise((resolve) => {
    const socket = window.roomcastWS('/ws?user=raw');
    socket.onmessage = (event) => resolve(`${socket.url} ${JSON.parse(event.data).op}`);
  }));
  assert.equal(welcome, `${first.url.replace('http', 'ws')}/ws?user=raw welcome`);
});

test('who is put into a room finds it in the list, and who is taken out is told', limit, async () => {
  const secret = 'x'.repeat(40);
  const node = await stage.node({ ROOMCAST_API_KEYS: `ops:admin:${secret}` });
  const alice = await stage.person('alice', await stage.front(node));
  const api = async (path, body) => {
    const headers = { Authorization: `Bearer ${secret}`, 'Content-Type': 'application/json' };
    const { status } = await fetch(`http://127.0.0.1:${node.port}/api/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    assert.equal(status, 200);
  };
  await api('publish', { room: 'support', data: { text: 'How can we help?' } });
  await api('subscribe', { user_id: 'alice', room: 'support' });
  await banner(alice, 'You were put into #support');
  await room(alice, 'support').click();
  await seen(alice, 'How can we help?');
  await say(alice, 'All is well.');
  await bubble(alice, 'All is well.').locator('.ticks[data-state=sent]').waitFor();
  await api('unsubscribe', { user_id: 'alice', room: 'support' });
  await banner(alice, 'You were taken out of #support');
  assert.equal(await room(alice, 'support').count(), 0);
  assert.equal(await alice.locator('#title').innerText(), 'lobby');
  assert.deepEqual(alice.troubles, []);
});
