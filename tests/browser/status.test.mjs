// The status page in a real browser on real nodes: what an operator sees of clients, of nodes that end and of Redis.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';
import { DESK, PHONE, Stage, eventually } from './stage.mjs';

const { WebSocket } = createRequire(new URL('../../clients/js/package.json', import.meta.url))('ws');
const SECRET = 'k'.repeat(40);
const KEYS = { ROOMCAST_HEARTBEAT_S: '0.5', ROOMCAST_API_KEYS: `viewer:read:${SECRET}, backend:publish:${'b'.repeat(40)}` };
const limit = { timeout: 240_000 };

let stage;
before(async () => { stage = await Stage.open(); });
const clients = [];
afterEach(() => {
  for (const socket of clients.splice(0)) socket.terminate();
  return stage.clear();
});
after(() => stage.close());

const tile = (page, name) => page.locator(`#tile-${name} p`);
const reads = (page, name, text) => tile(page, name).filter({ hasText: text }).waitFor();
const node = (page, name) => page.locator('#nodes tbody tr', { hasText: name });
const pill = (page, name, text) => node(page, name).locator('.pill', { hasText: new RegExp(`^${text}$`) }).waitFor();
const logged = (page, name, text) => page.locator('#log li', { hasText: name }).filter({ hasText: text }).first().waitFor();
const fits = async (page) => (await page.evaluate(() => document.documentElement.scrollWidth)) <= page.viewportSize().width;

async function give(page, secret) {
  await page.locator('#key').fill(secret);
  await page.locator('#key').press('Enter');
}

async function watch(front, options = DESK) {
  const page = await stage.blank(options);
  await page.goto(`${front.url}/status`);
  await give(page, SECRET);
  await page.locator('#state[data-state=live]').waitFor();
  return page;
}

/** Somebody in a room, who says something now and then. */
function client(front, user) {
  const socket = new WebSocket(`${front.url.replace('http', 'ws')}/ws?user=${user}`);
  socket.on('open', () => socket.send(JSON.stringify({ op: 'join', room: 'lobby', id: 1 })));
  socket.on('error', () => {});
  const talking = setInterval(() => socket.readyState === 1 && socket.send(JSON.stringify({ op: 'message', room: 'lobby', data: user })), 100).unref();
  socket.on('close', () => clearInterval(talking));
  clients.push(socket);
}

test('numbers follow the clients, and nodes that are killed or drained are told apart', limit, async () => {
  const [one, two, three] = await Promise.all(['one', 'two', 'three'].map((ROOMCAST_NODE) => stage.node({ ...KEYS, ROOMCAST_NODE })));
  const [first, second] = [await stage.front(one), await stage.front(two)];
  const page = await watch(first);
  for (const name of ['one', 'two', 'three']) await pill(page, name, 'live');
  await reads(page, 'connections', '0');

  ['alice', 'bob', 'carol'].forEach((user, index) => client(index ? second : first, user));
  await reads(page, 'connections', '3');
  await reads(page, 'online', '3');
  await eventually('messages are counted', async () => Number.parseFloat(await tile(page, 'deliveries').innerText()) > 10);
  await eventually('two connections at the second node', async () => (await node(page, 'two').locator('td').nth(2).innerText()) === '2');
  clients[2].close();
  await reads(page, 'connections', '2');
  assert.match(await tile(page, 'memory').innerText(), /^\d.* MiB$/, 'without a limit there is no percentage');

  two.signal('SIGKILL');
  three.signal('SIGTERM');
  await pill(page, 'three', 'left');
  await pill(page, 'two', 'gone');
  await reads(page, 'connections', '1');
  await logged(page, 'two', 'is gone');
  await logged(page, 'three', 'has left');
  assert.equal(await page.locator('#nodes-sum').innerText(), '1 of 3 live');
  await stage.shot(page, 'status-desk-light');

  stage.redis.signal('SIGSTOP');
  await page.locator('#trouble:not([hidden])', { hasText: 'cannot use Redis' }).waitFor();
  await pill(page, 'one', 'not ready');
  await page.locator('#redis-none').waitFor();
  assert.equal(await tile(page, 'memory').innerText(), '–');
  await stage.shot(page, 'status-no-redis');
  stage.redis.signal('SIGCONT');
  await pill(page, 'one', 'live');
  await page.locator('#trouble').waitFor({ state: 'hidden' });
  assert.deepEqual(page.troubles, []);
});

test('without the right key nothing is shown, and a forgotten key is forgotten', limit, async () => {
  const front = await stage.front(await stage.node({ ...KEYS, ROOMCAST_NODE: 'secretive' }));
  const page = await stage.blank();
  await page.goto(`${front.url}/status`);
  await give(page, 'w'.repeat(40));
  await page.locator('#refused', { hasText: 'no node knows this key' }).waitFor();
  await give(page, 'b'.repeat(40));
  await page.locator('#refused', { hasText: 'lacks the scope read' }).waitFor();
  assert.equal(await page.locator('#view').isVisible(), false);
  assert.equal((await page.locator('body').innerText()).includes('secretive'), false);
  await stage.shot(page, 'status-refused');
  page.troubles.length = 0; // the browser logs the two refusals

  await give(page, SECRET);
  await pill(page, 'secretive', 'live');
  await page.reload();
  await pill(page, 'secretive', 'live');
  await page.locator('#forget').click();
  await page.locator('#login').waitFor();
  assert.equal(await page.locator('#view').isVisible(), false);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.locator('#login').waitFor();
  assert.deepEqual(page.troubles, []);
});

test('whatever a node says is text, and a phone shows all of it', limit, async () => {
  const front = await stage.front(await stage.node(KEYS));
  const html = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
  const looks = [DESK, { ...PHONE, colorScheme: 'dark' }];
  if (process.env.TEST_SCREENSHOTS) looks.push({ ...DESK, colorScheme: 'dark' }, PHONE);
  for (const options of looks) {
    const page = await stage.blank(options);
    await page.routeWebSocket(/status\/feed/, (socket) => {
      let turn = 0;
      const send = () => socket.send(JSON.stringify(invented(html, turn++)));
      send();
      setInterval(send, 50).unref(); // the page is told nothing of its end: what is sent then is dropped
    });
    await page.goto(`${front.url}/status`);
    await give(page, SECRET);
    await node(page, 'img').first().waitFor();
    await eventually('a curve', async () => (await page.locator('#tile-deliveries polyline').getAttribute('points')).split(' ').length > 20);
    assert.equal(await page.locator('main :is(img, script)').count(), 0);
    assert.equal(await page.title(), 'Roomcast status');
    assert.ok(await page.locator('#slow', { hasText: html }).isVisible());
    await page.screenshot({ path: `${stage.shots}/status-${options.isMobile ? 'phone' : 'desk'}-${options.colorScheme ?? 'light'}-busy.png`, fullPage: true, animations: 'disabled' });
    assert.ok(await fits(page), 'nothing sticks out to the side');
    assert.deepEqual(page.troubles, []);
  }
});

/** A view of a busy cluster in which one node says `text` wherever a node can. */
function invented(text, turn) {
  const at = 1_790_000_000 + turn;
  const wave = 1 + 0.4 * Math.sin(turn / 6) + 0.1 * Math.sin(turn * 2);
  const name = (index) => (index === 2 ? text : `edge-${index}.4f1c09a${index}`);
  const nodes = [0, 1, 2, 3].map((index) => ({
    node: name(index), version: index === 2 ? text : '1.4.0', started: at - 90_000 * (index + 1), at, ready: index !== 2, reason: index === 2 ? text : '', draining: index === 3,
    connections: 9_500 + index * 300, users: 8_100 + index, rooms: 2_300, opened: 40_000 + 12 * turn, received: 900 * turn, deliveries: Math.round(41_000 * turn * (index + 1) + 30_000 * wave), sent_bytes: 0,
    errors: 0, dropped: 0, slow_closed: 0, slow: index === 1 ? 3 : 0, publishes: 0, publishes_failed: 0, reconnects: 0,
    slowest: index === 1 ? [{ user: '"carol"', path: '/ws', pending_bytes: 221_184 }, { user: '42', path: text, pending_bytes: 90_112 }] : [],
    subscriber_lag_s: 0.0021 * wave, presence_lag_s: 0, loop_lag_sum_s: 0.0008 * turn * 4, loop_lag_count: 4 * turn, cpu_s: 0.41 * turn, memory_bytes: 190_000_000,
    servers: { 'redis:6379': { used_memory_bytes: 452_000_000, maxmemory_bytes: 536_870_912, clients: 9, commands_per_s: 4_100, persistence_ok: true }, [text]: { used_memory_bytes: 5_000_000, maxmemory_bytes: 0, clients: 2, commands_per_s: 0, persistence_ok: false } },
  }));
  return { at, here: name(0), broker: text, online: 30_412, announced: [{ node: 'edge-9.gone', version: '1.3.0', started: at - 50 }], nodes };
}
