// The status page: a key in, a socket that brings a view a second, and the page made of it. Text is only ever text.
import { Cluster, STATES } from './cluster.js';

const KEY = 'roomcast-status-key';
const STALE_MS = 3_500, RETRY_MS = 1_000, MAX_RETRY_MS = 10_000, UNAUTHENTICATED = 4001;
const $ = (id) => document.getElementById(id);
const base = new URL('status/', location.href);

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const rough = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3, notation: 'compact' });
const number = (value) => (value == null ? '–' : Math.abs(value) < 10_000 ? whole.format(value) : rough.format(value));
const rate = (value) => (value == null ? '–' : value && value < 10 ? value.toFixed(1) : number(value));
const percent = (value) => (value == null ? '–' : `${whole.format(100 * value)} %`);
const bytes = (value) => {
  if (value == null) return '–';
  const step = value < 2 ** 20 ? ['KiB', 2 ** 10] : value < 2 ** 30 ? ['MiB', 2 ** 20] : ['GiB', 2 ** 30];
  const scaled = value / step[1];
  return `${scaled < 10 && scaled % 1 ? scaled.toFixed(1) : whole.format(scaled)} ${step[0]}`;
};
const lag = (seconds) => (seconds == null ? '–' : seconds === 0 ? '0 ms' : seconds < 1 ? `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms` : `${seconds.toFixed(1)} s`);
const age = (seconds) => (seconds < 60 ? `${Math.max(0, Math.floor(seconds))} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min` : seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`);
const clock = (at) => new Date(at * 1000).toLocaleTimeString();

function element(tag, { text, ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Keep what is there and change its text, so that a selection, the focus and a screen reader are left alone. */
function fill(parent, keys, make, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  keys.forEach((key, index) => {
    let child = there.get(key);
    there.delete(key);
    if (!child) {
      child = make(key);
      child.dataset.key = key;
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    update(child, key);
  });
  for (const child of there.values()) child.remove();
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Tiles: one number each, with the curve of the last two minutes.

const TILES = [
  ['connections', 'Connections', number, () => false],
  ['online', 'Users online', number, () => false],
  ['received', 'Messages in / s', rate, () => false],
  ['deliveries', 'Deliveries / s', rate, () => false],
  ['slow', 'Slow readers', number, (value) => value > 0],
  ['memory', 'Redis memory', percent, (value) => value > 0.8],
  ['subscriber_lag_s', 'Redis and back', lag, (value) => value > 0.5],
  ['presence_lag_s', 'Presence lag', lag, (value) => value > 5],
];
const SVG = 'http://www.w3.org/2000/svg';

function tile(key) {
  const curve = document.createElementNS(SVG, 'svg');
  curve.setAttribute('viewBox', '0 0 119 30');
  curve.setAttribute('preserveAspectRatio', 'none');
  curve.setAttribute('aria-hidden', 'true');
  curve.append(document.createElementNS(SVG, 'path'), document.createElementNS(SVG, 'polyline'));
  return element('div', { className: 'tile', id: `tile-${key}` }, element('h3'), element('p'), curve);
}

function draw(svg, values) {
  const top = Math.max(...values, 0) || 1;
  const start = 120 - values.length;
  const points = values.map((value, index) => `${start + index},${(29 - 27 * (value / top)).toFixed(1)}`).join(' ');
  svg.lastChild.setAttribute('points', points);
  svg.firstChild.setAttribute('d', `M${start},30 L${points} L119,30 Z`);
}

function showTiles({ totals, curves }) {
  const shown = TILES.map(([key]) => key);
  fill($('tiles'), shown, tile, (made, key) => {
    const [, title, format, alarming] = TILES.find(([name]) => name === key);
    say(made.children[0], title);
    // Without a limit there is no percentage: say how much it is.
    say(made.children[1], key === 'memory' && totals.memory == null ? bytes(totals.used) : format(totals[key]));
    made.dataset.alarm = alarming(totals[key]) ? 'yes' : 'no';
    draw(made.querySelector('svg'), curves[key === 'memory' && totals.memory == null ? 'used' : key]);
  });
}

// Tables. A column: title, what the cell says, and whether it is a number.

const NODES = [
  ['Node', null],
  ['State', null],
  ['Up', ({ started }, at) => age(at - started)],
  ['Connections', ({ sample }) => number(sample?.connections)],
  ['Users', ({ sample }) => number(sample?.users)],
  ['Rooms', ({ sample }) => number(sample?.rooms)],
  ['In / s', ({ rates }) => rate(rates?.received)],
  ['Out / s', ({ rates }) => rate(rates?.deliveries)],
  ['Slow', ({ sample }) => number(sample?.slow)],
  ['CPU', ({ rates }) => percent(rates?.cpu)],
  ['Memory', ({ sample }) => bytes(sample?.memory_bytes)],
  ['Loop lag', ({ rates }) => lag(rates?.loop_lag_s)],
  ['Redis', ({ sample }) => lag(sample?.subscriber_lag_s)],
  ['Version', ({ version }) => version ?? '–'],
];
const SLOW = [
  ['Node', ({ node }) => node],
  ['User', ({ user }) => user || 'nobody'],
  ['Path', ({ path }) => path],
  ['Waiting', ({ pending_bytes }) => bytes(pending_bytes)],
];
const REDIS = [
  ['Server', ({ server }) => server],
  ['Memory', ({ used_memory_bytes, maxmemory_bytes }) => (maxmemory_bytes ? `${bytes(used_memory_bytes)} of ${bytes(maxmemory_bytes)}` : `${bytes(used_memory_bytes)}, no limit`)],
  ['Clients', ({ clients }) => number(clients)],
  ['Commands / s', ({ commands_per_s }) => number(commands_per_s)],
  ['Disk', ({ persistence_ok }) => (persistence_ok ? 'good' : 'writes fail')],
];

function head(table, columns) {
  if (!table.tHead.rows.length) table.tHead.append(element('tr', {}, ...columns.map(([title]) => element('th', { text: title, scope: 'col' }))));
}

const row = (columns) => () => element('tr', {}, ...columns.map(([title], index) => element(index ? 'td' : 'th', index ? { 'data-label': title } : { scope: 'row' })));

function nodeRow() {
  const made = row(NODES)();
  made.cells[0].append(element('b'), element('small'));
  made.cells[1].append(element('span', { className: 'pill' }), element('small'));
  return made;
}

function showNodes({ nodes, view }) {
  head($('nodes'), NODES);
  const ids = [...nodes.keys()].sort();
  fill($('nodes').tBodies[0], ids, nodeRow, (made, id) => {
    const node = nodes.get(id);
    made.dataset.state = node.state;
    say(made.cells[0].firstChild, id);
    say(made.cells[0].lastChild, id === view.here ? 'shows this page' : '');
    say(made.cells[1].firstChild, STATES[node.state]);
    say(made.cells[1].lastChild, node.reason || (node.state === 'live' ? '' : `for ${age(view.at - node.since)}`));
    const ended = ['gone', 'left'].includes(node.state);
    NODES.forEach(([title, format], index) => format && say(made.cells[index], ended && title !== 'Version' ? '–' : format(node, view.at)));
  });
  const live = ids.filter((id) => nodes.get(id).state === 'live').length;
  say($('nodes-sum'), live === ids.length ? `${live} live` : `${live} of ${ids.length} live`);
}

function showRows(table, columns, rows) {
  head(table, columns);
  const made = new Map(rows.map((each) => [each.key, each]));
  fill(table.tBodies[0], [...made.keys()], row(columns), (cells, key) => {
    columns.forEach(([, format], index) => say(cells.cells[index], format(made.get(key))));
  });
}

function showSlow(cluster) {
  const rows = cluster.samples.flatMap(({ node, slowest }) => slowest.map((each, index) => ({ ...each, node, key: `${node} ${index}` })));
  $('slow').hidden = rows.length === 0;
  showRows($('slow').querySelector('table'), SLOW, rows);
}

function showLog({ events }) {
  const keyed = new Map(events.map((event) => [`${event.at} ${event.node} ${event.state}`, event]));
  fill($('log'), [...keyed.keys()], () => element('li', {}, element('time'), element('b'), element('span')), (made, key) => {
    const { at, node, state, text } = keyed.get(key);
    made.dataset.state = state;
    say(made.children[0], clock(at));
    say(made.children[1], node);
    say(made.children[2], text);
  });
  if (!events.length) fill($('log'), ['none'], () => element('li', { text: 'No node has come or gone.' }), () => {});
}

function show(cluster) {
  const { view } = cluster;
  $('view').hidden = false;
  $('trouble').hidden = !view.broker;
  say($('trouble'), view.broker ? `The node behind this page cannot use Redis, so it sees no other node: ${view.broker}` : '');
  showTiles(cluster);
  showNodes(cluster);
  showSlow(cluster);
  $('redis').hidden = cluster.servers.size === 0;
  $('redis-none').hidden = cluster.servers.size > 0;
  showRows($('redis'), REDIS, [...cluster.servers].map(([server, health]) => ({ ...health, server, key: server })));
  showLog(cluster);
}

// The key, the ticket, the socket.

let cluster, key, socket, retryMs = RETRY_MS, timer, stale;

function state(name, text) {
  $('state').dataset.state = name;
  say($('state'), text);
  document.body.dataset.state = name;
}

function askForKey(why = '') {
  key = null;
  sessionStorage.removeItem(KEY);
  clearTimeout(timer);
  clearTimeout(stale);
  socket?.close();
  state('off', 'not connected');
  $('view').hidden = $('forget').hidden = true;
  $('login').hidden = false;
  say($('refused'), why);
  $('key').value = '';
  $('key').focus();
}

class Refused extends Error {}

async function ticket() {
  const answer = await fetch(new URL('../api/v1/status/ticket', base), {
    method: 'POST', body: '{}', headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
  });
  if ([401, 403].includes(answer.status)) throw new Refused((await answer.json()).detail);
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return (await answer.json()).ticket;
}

async function connect() {
  const mine = key;
  state('wait', cluster ? 'lost, trying again' : 'connecting');
  try {
    const given = await ticket();
    if (key !== mine) return;
    open(given);
  } catch (error) {
    if (key !== mine) return;
    if (error instanceof Refused) askForKey(error.message);
    else again();
  }
}

function open(given) {
  const url = new URL('feed', base);
  url.protocol = url.protocol.replace('http', 'ws');
  const mine = socket = new WebSocket(url, ['roomcast.status.v1', `roomcast.token.${given}`]);
  mine.onmessage = ({ data }) => {
    cluster ??= new Cluster();
    cluster.take(JSON.parse(data));
    sessionStorage.setItem(KEY, key);
    $('login').hidden = true;
    $('forget').hidden = false;
    retryMs = RETRY_MS;
    state('live', 'live');
    clearTimeout(stale);
    stale = setTimeout(() => state('wait', 'nothing new'), STALE_MS);
    show(cluster);
  };
  mine.onclose = ({ code }) => {
    if (socket !== mine || !key) return;
    if (code === UNAUTHENTICATED) retryMs = MAX_RETRY_MS; // clocks that differ, or a key that is no node's any more
    again();
  };
}

function again() {
  clearTimeout(stale);
  state('wait', 'lost, trying again');
  clearTimeout(timer);
  timer = setTimeout(connect, retryMs * (0.5 + Math.random() / 2));
  retryMs = Math.min(2 * retryMs, MAX_RETRY_MS);
}

$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  cluster = undefined;
  key = $('key').value.trim();
  retryMs = RETRY_MS;
  say($('refused'), '');
  connect();
});
$('forget').addEventListener('click', () => askForKey());
key = sessionStorage.getItem(KEY);
if (key) connect();
else askForKey();
