// What the status page makes of a series of views, without a browser: server/static/status-cluster.js is pure.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

const source = await readFile(new URL('../../server/static/status-cluster.js', import.meta.url), 'utf8');
const { Cluster, STATES, rates } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const sample = (node, at, more = {}) => ({
  node, at, version: '1', started: 0, ready: true, reason: '', draining: false, connections: 1, slow: 0, slowest: [], servers: {}, received: 0, deliveries: 0,
  sent_bytes: 0, opened: 0, dropped: 0, slow_closed: 0, publishes_failed: 0, cpu_s: 0, loop_lag_sum_s: 0, loop_lag_count: 0, subscriber_lag_s: 0, presence_lag_s: 0, ...more,
});
const view = (at, nodes, announced = nodes.map(({ node }) => node)) => ({
  at, here: 'a', broker: '', online: 0, nodes, announced: announced && announced.map((node) => ({ node, version: '1', started: 0 })),
});
const said = (cluster) => cluster.events.map(({ node, text }) => `${node} ${text}`).reverse();
const states = (cluster) => Object.fromEntries([...cluster.nodes].map(([id, { state }]) => [id, state]));

test('two samples give rates, a restarted counter gives none below zero, and one sample none at all', () => {
  const before = sample('a', 10, { received: 100, cpu_s: 1, loop_lag_sum_s: 1, loop_lag_count: 10 });
  const after = sample('a', 12, { received: 150, cpu_s: 2, loop_lag_sum_s: 1.5, loop_lag_count: 20 });
  const found = rates(before, after);
  assert.deepEqual([found.received, found.cpu, found.loop_lag_s, found.deliveries], [25, 0.5, 0.05, 0]);
  assert.equal(rates(after, sample('a', 14)).received, 0);
  assert.equal(rates(null, after), null);
  assert.equal(rates(before, before), null);
});

test('what was there at the beginning is no event; what comes later is', () => {
  const cluster = new Cluster();
  cluster.take(view(1, [sample('a', 1)]));
  assert.deepEqual(said(cluster), []);
  cluster.take(view(2, [sample('a', 2), sample('b', 2)]));
  assert.deepEqual(said(cluster), ['b joined']);
  assert.equal(cluster.totals.connections, 2);
});

test('a killed node is silent, then gone, then forgotten; it counts no more as soon as it is silent', () => {
  const cluster = new Cluster();
  cluster.take(view(1, [sample('a', 1), sample('b', 1)]));
  cluster.take(view(5, [sample('a', 5)], ['a', 'b']));
  assert.deepEqual(states(cluster), { a: 'live', b: 'silent' });
  assert.equal(cluster.totals.connections, 1);
  cluster.take(view(15, [sample('a', 15)]));
  assert.deepEqual([states(cluster), said(cluster)], [{ a: 'live', b: 'gone' }, ['b says nothing', 'b is gone']]);
  cluster.take(view(700, [sample('a', 700)]));
  assert.deepEqual(states(cluster), { a: 'live' });
});

test('a node that drained has left, and one that was only away is live again', () => {
  const cluster = new Cluster();
  cluster.take(view(1, [sample('a', 1), sample('b', 1), sample('c', 1)]));
  cluster.take(view(2, [sample('a', 2), sample('b', 2, { draining: true, ready: false })], ['a', 'b', 'c']));
  cluster.take(view(6, [sample('a', 6), sample('c', 6)], ['a', 'c']));
  assert.deepEqual(states(cluster), { a: 'live', b: 'left', c: 'live' });
  assert.deepEqual(said(cluster), ['b sends its clients away', 'c says nothing', 'c is live again', 'b has left, as it was told to']);
});

test('a node that has just been announced has time to answer; without Redis nothing is said of the others', () => {
  const cluster = new Cluster();
  cluster.take(view(1, [sample('a', 1)], ['a', 'b']));
  assert.deepEqual(states(cluster), { a: 'live', b: 'asked' });
  cluster.take(view(2, [sample('a', 2), sample('b', 2)]));
  assert.deepEqual(said(cluster), []);
  cluster.take(view(6, [sample('a', 6, { ready: false, reason: 'no Redis' })], null));
  assert.deepEqual(states(cluster), { a: 'unready', b: 'unseen' });
  assert.equal(cluster.nodes.get('a').reason, 'no Redis');
  cluster.take(view(7, [sample('a', 7), sample('b', 7)]));
  assert.deepEqual(states(cluster), { a: 'live', b: 'live' });
  cluster.take(view(8, [sample('a', 8)], ['a', 'b', 'old']));
  cluster.take(view(13, [sample('a', 13)], ['a', 'b', 'old']));
  assert.equal(states(cluster).old, 'silent');
});

test('the fullest Redis with a limit is the one that is shown, and curves have an end', () => {
  const cluster = new Cluster();
  const server = (used, most) => ({ used_memory_bytes: used, maxmemory_bytes: most, clients: 1, commands_per_s: 1, persistence_ok: true });
  for (let at = 1; at < 200; at++) {
    cluster.take(view(at, [sample('a', at, { servers: { one: server(10, 100), two: server(80, 100), free: server(999, 0) } })]));
  }
  assert.equal(cluster.totals.memory, 0.8);
  assert.equal(cluster.curves.memory.length, 120);
  cluster.take(view(200, [sample('a', 200, { servers: { free: server(999, 0) } })]));
  assert.deepEqual([cluster.totals.memory, cluster.totals.used], [null, 999]);
  cluster.take(view(201, [sample('a', 201)]));
  assert.deepEqual([cluster.totals.memory, cluster.totals.used], [null, null]);
});

test('events are kept to fifty, and every state has a word', () => {
  const cluster = new Cluster();
  for (let at = 0; at < 200; at++) cluster.take(view(at, [sample('a', at, { ready: at % 2 === 0 })]));
  assert.equal(cluster.events.length, 50);
  assert.ok(Object.values(STATES).every((word) => word));
});
