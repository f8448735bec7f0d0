// The client around the machine: sockets, tokens, promises and listeners, against a server scripted frame by frame.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { roomcast, RoomcastError, socketUrl } from '../../../server/static/roomcast.js';
import { joined, live, require, welcome } from './support.mjs';

const { WebSocket, WebSocketServer } = require('ws');

/** Each connection is handed out with the request that opened it; its frames are awaited one by one. */
class Server {
  #connections = [];
  #waiting = [];

  static async start() {
    const server = new Server();
    server.server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: (offered) => [...offered][0] });
    await once(server.server, 'listening');
    server.url = `ws://127.0.0.1:${server.server.address().port}/ws`;
    server.server.on('connection', (socket, request) => {
      const connection = new Connection(socket, request);
      const waiting = server.#waiting.shift();
      if (waiting) waiting(connection);
      else server.#connections.push(connection);
    });
    return server;
  }

  async connection() {
    return this.#connections.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  async welcomed(more) {
    const connection = await this.connection();
    connection.send({ ...welcome, ...more });
    return connection;
  }

  stop() {
    for (const socket of this.server.clients) socket.terminate();
    this.server.close();
  }
}

class Connection {
  #frames = [];
  #waiting = [];

  constructor(socket, request) {
    this.socket = socket;
    this.query = new URL(request.url, 'ws://host').searchParams;
    this.protocols = request.headers['sec-websocket-protocol'].split(/,\s*/);
    socket.on('message', (data) => {
      const frame = JSON.parse(data);
      const waiting = this.#waiting.shift();
      if (waiting) waiting(frame);
      else this.#frames.push(frame);
    });
  }

  async frame() {
    return this.#frames.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  send(...frames) {
    for (const frame of frames) this.socket.send(JSON.stringify(frame));
  }

  async join(more) {
    const { id, room, op } = await this.frame();
    assert.equal(op, 'join');
    this.send(joined(id, room, more));
  }
}

function scripted(name, body) {
  test(name, { timeout: 60_000 }, async () => {
    const server = await Server.start();
    const clients = [];
    const connect = (options) => {
      const rc = roomcast(server.url, { WebSocket, ...options });
      clients.push(rc);
      return rc;
    };
    try {
      await body(server, connect);
    } finally {
      clients.forEach((rc) => rc.close());
      server.stop();
    }
  });
}

const next = (emitter, type) => new Promise((resolve) => {
  const off = emitter.on(type, (detail) => resolve(detail, off()));
});

scripted('a room is joined, hears, speaks and is left', async (server, connect) => {
  const rc = connect();
  const room = rc.join('r', { presence: true, history: 5 });
  assert.equal(rc.join('r'), room);
  const connection = await server.welcomed();
  const { op, presence, history, id } = await connection.frame();
  assert.deepEqual([op, presence, history], ['join', true, 5]);
  const heard = next(room, 'message'), members = next(room, 'members');
  connection.send(joined(id, 'r', { members: { count: 1, users: [7] } }), live('r', 1, 'hi'));
  await room.ready;
  assert.deepEqual([(await heard).data, (await members).users, rc.user], ['hi', [7], 42]);

  const sending = room.send({ text: 'hello' }, { echo: false });
  const message = await connection.frame();
  assert.deepEqual([message.data, message.echo], [{ text: 'hello' }, false]);
  assert.match(message.key, /^[\w-]{1,64}$/);
  connection.send({ op: 'reply', id: message.id, ok: true, room: 'r', epoch: 'e', offset: 2, tag: 't2' });
  assert.equal((await sending).offset, 2);

  room.leave();
  assert.deepEqual(await connection.frame(), { op: 'leave', room: 'r' });
  await assert.rejects(room.send('x'), { code: 'left' });
});

scripted('a room that was left is forgotten, and has no say about the one that was joined after it', async (server, connect) => {
  const rc = connect();
  const connection = await server.welcomed();
  const join = async () => {
    const room = rc.join('r');
    connection.send(joined((await connection.frame()).id, 'r'));
    await room.ready;
    return room;
  };
  const used = async () => { // what this function still holds is let go of when it returns
    const left = await join();
    left.leave();
    assert.equal((await connection.frame()).op, 'leave');
    const room = await join();
    assert.notEqual(room, left);
    left.leave();
    room.typing();
    assert.equal((await connection.frame()).op, 'typing', 'it is still joined');
    room.leave();
    return new WeakRef(room);
  };
  const last = await used();
  rc.join('another'); // the error of the last step has a stack with the room in it
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  while (last.deref()) {
    await new Promise((resolve) => setImmediate(resolve)); // no sooner than the turn in which it was looked at is over
    collect();
  }
});

scripted('the session comes back, and the token travels as a subprotocol, asked anew each time', async (server, connect) => {
  let tokens = 0;
  connect({ token: async () => `jwt.${++tokens}` });
  const first = await server.welcomed({ session: 'mine' });
  assert.deepEqual(first.protocols, ['roomcast.json.v1', 'roomcast.token.jwt.1']);
  assert.equal(first.query.get('session'), null);
  first.send({ op: 'drain', retry_after_ms: 1 });
  first.socket.close(1012);
  const second = await server.connection();
  assert.deepEqual(second.protocols, ['roomcast.json.v1', 'roomcast.token.jwt.2']);
  assert.equal(second.query.get('session'), 'mine');
});

scripted('an expiring token is renewed in place', async (server, connect) => {
  let tokens = 0;
  connect({ token: () => `jwt.${++tokens}` });
  const connection = await server.welcomed();
  connection.send({ op: 'auth_expiring', in_s: 30 });
  assert.deepEqual(await connection.frame(), { op: 'auth', token: 'jwt.2' });
});

scripted('a token that cannot be had is asked for again later', async (server, connect) => {
  let tries = 0;
  const rc = connect({
    token: async () => {
      if (!tries++) throw new Error('the token server is away');
      return 'jwt';
    },
  });
  const status = await new Promise((resolve) => rc.on('status', (change) => change.status === 'waiting' && resolve(change)));
  assert.match(status.reason, /the token server is away/);
  await server.welcomed();
  assert.equal(tries, 2);
});

scripted('a message whose ack was lost is sent again with its key, and its promise resolves once', async (server, connect) => {
  const room = connect().join('r');
  const first = await server.welcomed();
  await first.join();
  const sending = room.send('precious');
  const before = await first.frame();
  first.send({ op: 'drain', retry_after_ms: 1 });
  first.socket.close(1012);
  const second = await server.welcomed();
  await second.join({ recovered: true });
  const again = await second.frame();
  assert.deepEqual(again, before);
  second.send({ op: 'reply', id: again.id, ok: true, room: 'r', epoch: 'e', offset: 1, tag: 't1' });
  assert.equal((await sending).offset, 1);
});

scripted('what a listener does comes after what is being told, and all listeners hear all', async (server, connect) => {
  const room = connect().join('r');
  const order = [];
  room.on('message', ({ data }) => {
    order.push(`first ${data}`);
    if (data === 1) room.leave();
  });
  room.on('message', ({ data }) => order.push(`second ${data}`));
  const connection = await server.welcomed();
  const { id } = await connection.frame();
  connection.send(joined(id, 'r', { offset: 2, messages: [live('r', 1), live('r', 2)] }));
  assert.deepEqual(await connection.frame(), { op: 'leave', room: 'r' });
  assert.deepEqual(order, ['first 1', 'second 1', 'first 2', 'second 2']);
});

scripted('a refused join rejects `ready` and says why', async (server, connect) => {
  const room = connect().join('admin:secrets');
  const failed = next(room, 'error');
  const connection = await server.welcomed();
  const { id } = await connection.frame();
  connection.send({ op: 'reply', id, ok: false, code: 'unauthorized', message: 'no' });
  await assert.rejects(room.ready, RoomcastError);
  assert.equal((await failed).code, 'unauthorized');
});

scripted('put into a room by the application: the room is there for the taking, and a later one is another', async (server, connect) => {
  const rc = connect();
  const connection = await server.welcomed();
  const put = (offset) => ({ op: 'broadcast', type: 'joined', room: 'q', epoch: 'e', offset, tag: `t${offset}` });
  const heard = () => new Promise((resolve) => {
    const off = rc.on('joined', ({ room: name }) => {
      const room = rc.join(name);
      room.on('message', ({ data }) => resolve([room, data], off()));
    });
  });
  let hearing = heard();
  connection.send(put(0), live('q', 1, 'first'));
  const [room, data] = await hearing;
  await room.ready;
  assert.equal(data, 'first');
  const left = next(room, 'left');
  connection.send({ op: 'broadcast', type: 'left', room: 'q' }, live('q', 2, 'not for us'));
  await left;
  await assert.rejects(room.send('x'), { code: 'left' });
  hearing = heard();
  connection.send(put(2), live('q', 3, 'again'));
  const [other, later] = await hearing;
  assert.equal(later, 'again');
  assert.notEqual(other, room);
});

scripted('members are read page by page', async (server, connect) => {
  const room = connect().join('r');
  const connection = await server.welcomed();
  await connection.join();
  const members = room.members();
  for (const [users, next] of [[[1, 2], 2], [[3], undefined]]) {
    const { op, id } = await connection.frame();
    assert.equal(op, 'get_presence');
    connection.send({ op: 'broadcast', type: 'presence_list', room: 'r', count: 3, users, next }, { op: 'reply', id, ok: true });
  }
  assert.deepEqual(await members, { count: 3, users: [1, 2, 3] });
});

scripted('every event reaches who listens for it, the room\'s own at the room, all others at the client', async (server, connect) => {
  const rc = connect();
  const room = rc.join('r');
  const connection = await server.welcomed();
  await connection.join();
  await room.ready;
  const of = (type, more) => ({ op: 'broadcast', type, ...more });
  const events = [
    [room, 'presence', of('presence', { room: 'r', user_id: 7, status: 'online' })],
    [room, 'typing', of('typing', { room: 'r', user_id: 7, typing: true })],
    [room, 'receipt', of('receipt', { room: 'r', user_id: 7, message_id: 1, status: 'read' })],
    [room, 'members', of('presence_list', { room: 'r', count: 1, users: [7] })],
    [room, 'reset', of('reset', { room: 'r', epoch: 'f', offset: 0, tag: '0' })],
    [rc, 'presence', of('presence', { user_id: 7, status: 'online' })],
    [rc, 'presence_list', of('presence_list', { users: [7] })],
    [rc, 'broadcast', of('broadcast', { path: '/ws', user_id: null, data: 1 })],
    [rc, 'direct', of('direct', { data: 2 })],
    [rc, 'error', of('error', { room: 'r', code: 'rate_limited', message: 'slower' })],
    [rc, 'error', of('error', { code: 'bad_request', message: 'what?' })],
  ];
  for (const [where, type, frame] of events) {
    const heard = next(where, type);
    connection.send(frame);
    assert.deepEqual(await heard, frame);
  }
  const off = room.on('typing', () => assert.fail('taken off'));
  off();
  const heard = next(room, 'typing');
  connection.send(events[1][2]);
  await heard;
});

scripted('what the application asks for goes out as the protocol has it', async (server, connect) => {
  const rc = connect();
  const room = rc.join('r');
  const connection = await server.welcomed();
  await connection.join({ offset: 9, tag: 't9' });
  await room.ready;
  room.typing();
  assert.deepEqual(await connection.frame(), { op: 'typing', room: 'r', typing: true });
  room.typing(false);
  assert.deepEqual(await connection.frame(), { op: 'typing', room: 'r', typing: false });
  room.read(9);
  assert.deepEqual(await connection.frame(), { op: 'receipt', room: 'r', message_id: 9, status: 'read' });

  const history = room.history({ before: 9, limit: 3 });
  const { id, ...asked } = await connection.frame();
  assert.deepEqual(asked, { op: 'history', room: 'r', before: 9, limit: 3 });
  const messages = [live('r', 6), { ...live('r', 7), type: 'position' }, live('r', 8)];
  connection.send({ op: 'reply', id, ok: true, room: 'r', messages });
  assert.deepEqual((await history).map(({ offset }) => offset), [6, 8]);

  const presence = rc.presence();
  const get = await connection.frame();
  assert.deepEqual([get.op, get.room], ['get_presence', undefined]);
  connection.send({ op: 'broadcast', type: 'presence_list', users: [1, 'a'] }, { op: 'reply', id: get.id, ok: true });
  assert.deepEqual(await presence, [1, 'a']);

  const broadcast = rc.broadcast({ n: 1 });
  const said = await connection.frame();
  assert.deepEqual([said.op, said.data, said.key], ['broadcast', { n: 1 }, undefined]);
  connection.send({ op: 'reply', id: said.id, ok: false, code: 'forbidden', message: 'no' });
  await assert.rejects(broadcast, { code: 'forbidden', message: 'no' });
});

scripted('refused for good: what waits is rejected, and nobody connects again', async (server, connect) => {
  const rc = connect();
  const room = rc.join('r');
  const sending = room.send('x');
  const connection = await server.connection();
  connection.socket.close(4001, 'no credentials');
  await assert.rejects(sending, { code: 'closed' });
  await assert.rejects(room.ready, { code: 'closed' });
  assert.equal(rc.status, 'closed');
});

test('without a WebSocket the error says what to do', () => {
  assert.throws(() => roomcast('ws://localhost/ws', { WebSocket: undefined }), /npm install ws/);
});

test('addresses: http becomes ws, https wss', () => {
  assert.equal(socketUrl('https://example.org/ws').href, 'wss://example.org/ws');
  assert.equal(socketUrl('http://localhost:8000/ws?user=a').href, 'ws://localhost:8000/ws?user=a');
});

test('on a page: its host and port, or those of the script where only the port is another', async () => {
  const source = (await readFile(new URL('../../../server/static/roomcast.js', import.meta.url), 'utf8'));
  const from = (script) => import(`data:text/javascript,${encodeURIComponent(source.replaceAll('import.meta.url', JSON.stringify(script)))}`);
  globalThis.location = new URL('https://shop.example:8443/cart');
  try {
    assert.equal((await from('https://cdn.example/roomcast.js')).socketUrl('/ws').href, 'wss://shop.example:8443/ws');
    assert.equal((await from('https://shop.example:9000/roomcast.js')).socketUrl('/ws').href, 'wss://shop.example:9000/ws');
    assert.equal((await from('https://cdn.example/roomcast.js')).socketUrl('chat').href, 'wss://shop.example:8443/chat');
  } finally {
    delete globalThis.location;
  }
});
