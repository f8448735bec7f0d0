// The state machine against a server that keeps the protocol while everything around it goes wrong, and against noise.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Machine } from '../../../server/static/roomcast.js';
import { forAll } from './support.mjs';

/**
 * A room's log and one connection to it: pages of three, answers that are late or lost, live frames that are lost or
 * come twice, logs that are trimmed or replaced, closes with any code that may be survived.
 */
class World {
  rooms = new Map();
  logs = new Map(); // epoch → entries, for the judgement
  members = new Set();
  inside = new Set(); // rooms the client is in, as far as it knows
  keys = new Map();
  wire = []; // frames on their way to the client
  inbox = []; // what the client sent on this connection
  seen = new Map(); // room → {epoch, offset} as the client was told
  outcomes = new Map();
  asked = 0;
  epochs = 0;
  now = 0;
  up = false;

  constructor(random) {
    this.random = random;
    this.machine = new Machine({ random, renewable: true });
    for (const room of ['a', 'b']) this.newLog(room);
    this.tell('tick');
  }

  newLog(room) {
    const log = { epoch: `e${++this.epochs}`, entries: [], trimmed: 0 };
    this.logs.set(log.epoch, log);
    this.rooms.set(room, log);
    return log;
  }

  tell(event, ...args) {
    for (const [what, about, type, detail] of this.machine.step(this.now, event, ...args)) {
      if (what === 'send') this.inbox.push(JSON.parse(about));
      else if (what === 'connect') Object.assign(this, { up: 'connecting', wire: [], inbox: [] });
      else if (what === 'drop') this.cut();
      else if (what === 'settle' && typeof about === 'number') {
        assert.ok(!this.outcomes.get(about), `request ${about} was settled twice`);
        this.outcomes.set(about, type ? type.code : 'ok');
      } else if (what === 'emit' && about !== null) this.told(about, type, detail);
      else if (type === 'joined') {
        assert.ok(!this.inside.has(detail.room), `put into room ${detail.room}, where it was already`);
        this.inside.add(detail.room);
        this.seen.set(detail.room, { epoch: detail.epoch, offset: detail.offset });
      }
    }
    assert.ok(this.machine.due < Infinity);
  }

  told(room, type, detail) {
    const seen = this.seen.get(room);
    if (type === 'reset') this.seen.set(room, { epoch: detail.epoch, offset: null });
    if (type === 'left') {
      this.inside.delete(room);
      this.seen.delete(room);
    }
    if (type !== 'message') return;
    if (seen?.offset != null) assert.equal(detail.offset, seen.offset + 1, `room ${room}: a hole or a double`);
    const epoch = this.machine.rooms.get(room).position.epoch;
    assert.equal(detail.data, this.logs.get(epoch).entries[detail.offset - 1], 'a message of another log');
    this.seen.set(room, { epoch, offset: detail.offset });
  }

  cut() {
    Object.assign(this, { up: false, wire: [], inbox: [] });
    this.members.clear();
  }

  close(code) {
    this.cut();
    this.tell('closed', code);
  }

  frame(room, offset) {
    return { op: 'broadcast', type: 'message', room, offset, tag: `t${offset}`, data: this.rooms.get(room).entries[offset - 1] };
  }

  append(room, data) {
    const log = this.rooms.get(room);
    log.entries.push(data);
    const frame = this.frame(room, log.entries.length);
    if (this.members.has(room) && !this.random.chance(0.1)) {
      this.wire.push(frame);
      if (this.random.chance(0.1)) this.wire.push(frame);
    }
    return log.entries.length;
  }

  /** The server handles the oldest request of the connection. */
  serve(kind = this.random.chance(0.1)) {
    const request = this.inbox.shift();
    if (!request) return;
    const { op, id, room } = request;
    const log = this.rooms.get(room);
    if (op === 'ping') this.wire.push({ op: 'pong' });
    else if (op === 'message' && kind) {
      if (this.random.chance(0.5)) this.accept(request); // the outcome is unknown: it may be in the log
      this.wire.push({ op: 'reply', id, ok: false, code: this.random.pick(['timeout', 'unavailable', 'rate_limited']) });
    } else if (op === 'message') {
      const at = this.accept(request);
      this.wire.push({ op: 'reply', id, ok: true, room, epoch: log.epoch, offset: at, tag: `t${at}` });
    } else if (op === 'join' && kind) {
      this.members.delete(room);
      this.wire.push({ op: 'reply', id, ok: false, code: 'timeout' });
    } else if (op === 'join') this.answerJoin(request, log);
  }

  accept({ room, key, data }) {
    const name = `${room} ${key}`;
    if (!this.keys.has(name)) this.keys.set(name, this.append(room, data));
    return this.keys.get(name);
  }

  answerJoin({ id, room, resume, history }, log) {
    this.members.delete(room);
    const top = log.entries.length;
    const reply = { op: 'reply', id, ok: true, room, epoch: log.epoch, recovered: null, messages: [] };
    let from = Math.max(top - (history ?? 0), log.trimmed), until = top;
    if (resume) {
      reply.recovered = resume.epoch === log.epoch && resume.offset <= top && resume.offset >= log.trimmed;
      if (reply.recovered) [from, until] = [resume.offset, Math.min(top, resume.offset + 3)];
    }
    if (until < top) reply.more = true;
    else this.members.add(room);
    for (let offset = from + 1; offset <= until; offset++) reply.messages.push(this.frame(room, offset));
    this.wire.push({ ...reply, offset: until, tag: `t${until}` });
  }

  step() {
    const { random } = this;
    const room = random.pick(['a', 'b']);
    const actions = [
      () => this.append(room, `x${this.now}.${random()}`),
      () => this.append(room, `y${this.now}.${random()}`),
      () => this.deliver(),
      () => this.deliver(),
      () => this.deliver(),
      () => this.serve(),
      () => this.serve(),
      () => { this.now += random.below(3_000); this.tell('tick'); },
      () => this.machine.rooms.has(room) || this.tell('join', room, { history: random.below(4) }, this.inside.add(room)),
      () => this.send(room),
      () => this.tell('read', room, random.below(10)),
      () => this.tell('type', room, random.chance(0.5)),
      () => random.chance(0.2) && this.tell('nudge'),
      () => this.up && random.chance(0.3) && this.close(random.pick([1000, 1001, 1006, 1011, 1012, 1013, 4003, 4008, 4009])),
      () => { if (random.chance(0.1)) this.rooms.get(room).trimmed = this.rooms.get(room).entries.length; },
      () => random.chance(0.1) && this.replace(room),
      () => random.chance(0.2) && this.move(room),
      () => this.up && this.wire.push(random.pick([{ op: 'degraded' }, { op: 'restored' }, { op: 'drain', retry_after_ms: 100 }])),
    ];
    random.pick(actions)();
  }

  send(room) {
    if (!this.machine.rooms.has(room)) return;
    const id = ++this.asked;
    this.outcomes.set(id, '');
    const text = JSON.stringify({ op: 'message', id, room, key: `k${id}`, data: `own ${id}` });
    this.tell('ask', { id, op: 'message', room, text, size: text.length });
  }

  /** The log behind the room is lost. Members are told; who is away finds out. */
  replace(room) {
    const log = this.newLog(room);
    if (this.random.chance(0.5)) log.entries.push('what was there before');
    log.trimmed = log.entries.length;
    for (const key of this.keys.keys()) if (key.startsWith(`${room} `)) this.keys.delete(key);
    const offset = log.entries.length;
    if (this.members.has(room)) this.wire.push({ op: 'broadcast', type: 'reset', room, epoch: log.epoch, offset, tag: `t${offset}` });
  }

  /** The application behind the server takes the client out, or puts it in. */
  move(room) {
    if (this.up !== true) return;
    const { epoch, entries: { length: offset } } = this.rooms.get(room);
    const put = !this.members.delete(room);
    if (put) this.members.add(room);
    this.wire.push({ op: 'broadcast', type: put ? 'joined' : 'left', room, ...(put && { epoch, offset, tag: `t${offset}` }) });
  }

  deliver() {
    if (this.up === 'connecting') {
      this.up = true;
      this.tell('received', { op: 'welcome', session: 's', user_id: 1, ping: 10, max_message: 65536 });
    } else if (this.wire.length) this.tell('received', this.wire.shift());
  }

  /** All goes well from here: the client must find its way to the end of every log by itself. */
  settle() {
    for (const room of this.machine.rooms.keys()) this.rooms.get(room).trimmed = 0;
    for (let i = 0; i < 2_000; i++) {
      if (this.up === 'connecting') this.deliver();
      while (this.wire.length || this.inbox.length) {
        this.serve(false);
        this.deliver();
      }
      this.now = Math.max(this.now, Math.min(this.machine.due, this.now + 1_000));
      this.tell('tick');
      const idle = [...this.machine.rooms.values()].every(({ state }) => state === 'live');
      if (i > 1 && this.up === true && idle && !this.machine.requests.size && !this.wire.length && !this.inbox.length) return;
    }
    assert.fail('it never came to rest');
  }
}

test('whatever happens, each room is contiguous between resets, ends at the top of its log, and sends are in it once', () => {
  forAll(400, (random) => {
    const world = new World(random);
    for (let i = 0; i < 400; i++) world.step();
    world.settle();
    for (const room of world.machine.rooms.keys()) {
      // The next message makes known that a last one was lost.
      world.rooms.get(room).entries.push('last');
      world.wire.push(world.frame(room, world.rooms.get(room).entries.length));
    }
    world.settle();
    for (const [room, { position }] of world.machine.rooms) {
      const log = world.rooms.get(room);
      assert.deepEqual([position.epoch, position.offset], [log.epoch, log.entries.length], `room ${room} is not at the top`);
      assert.equal(world.seen.get(room).offset, log.entries.length);
    }
    for (const [id, outcome] of world.outcomes) {
      const found = [...world.logs.values()].map(({ entries }) => entries.filter((data) => data === `own ${id}`).length);
      assert.ok(Math.max(...found) <= 1, `send ${id} is in a log twice`);
      if (outcome === 'ok') assert.ok(Math.max(...found) === 1, `send ${id} was acknowledged and is in no log`);
      else if (outcome === 'left') assert.ok(Math.max(...found) === 0, `send ${id} is in a log, and was said not to be`);
      else assert.equal(outcome, 'timeout');
    }
  });
});

test('noise never throws, never skips a message and never settles a request twice', () => {
  forAll(400, (random) => {
    const machine = new Machine({ random, renewable: random.chance(0.5) });
    const seen = new Map();
    const settled = new Set();
    let now = 0;
    const id = () => random.pick([1, 2, 3, 'j1', 'j2', 'j3', 'j4', undefined]);
    const room = () => random.pick(['a', 'b', 'c', undefined]);
    const offset = () => random.pick([0, 1, 2, 3, 4, 5, 6, -1, 2 ** 53, undefined, null, '3']);
    const message = () => ({ op: 'broadcast', type: random.pick(['message', 'message', 'position']), room: room(), offset: offset(), tag: 't' });
    const frames = [
      message,
      message,
      () => ({ op: 'welcome', session: 's', user_id: null, ping: 10, max_message: 100 }),
      () => ({ op: 'broadcast', type: random.pick(['reset', 'joined', 'left', 'typing', 'presence', 'presence_list', 'receipt', 'error', 'new']), room: room(), offset: offset(), epoch: 'f' }),
      () => ({ op: 'reply', id: id(), ok: random.chance(0.8), code: random.pick(['timeout', 'forbidden', 'internal']), epoch: random.pick(['e', 'f']), offset: offset(), tag: 't', recovered: random.pick([null, true, false]), more: random.chance(0.2) || undefined, messages: Array.from({ length: random.below(3) }, message) }),
      () => ({ op: random.pick(['degraded', 'restored', 'drain', 'auth_expiring', 'pong', 'new']) }),
      () => random.pick([null, 7, 'text', [], {}]),
    ];
    const events = [
      () => ['received', random.pick(frames)()],
      () => ['received', random.pick(frames)()],
      () => ['received', random.pick(frames)()],
      () => ['tick'],
      () => ['nudge'],
      () => ['closed', random.pick([1000, 1006, 1012, 4001, 4003, 4009, ...(random.chance(0.1) ? [4004] : [])])],
      () => ['join', random.pick(['a', 'b', 'c']), {}],
      () => ['leave', room()],
      () => ['read', room(), random.below(9)],
      () => ['type', room(), random.chance(0.5)],
      () => ['renew', 'token'],
    ];
    let ids = 0;
    for (let i = 0; i < 300; i++) {
      now += random.below(2_000);
      let [event, ...args] = random.pick(events)();
      if (event === 'join' && machine.rooms.has(args[0])) continue;
      if (random.chance(0.1)) [event, ...args] = ['ask', { id: ++ids, op: random.pick(['message', 'history', 'broadcast', 'get_presence']), room: room(), text: '{}', size: random.pick([2, 101]) }];
      if (event === 'join' || event === 'leave') seen.delete(args[0]);
      for (const [what, about, type, detail] of machine.step(now, event, ...args)) {
        if (what === 'settle' && typeof about === 'number') {
          assert.ok(!settled.has(about));
          settled.add(about);
        }
        if (what === 'emit' && about === null && type === 'joined') seen.delete(detail.room);
        if (what !== 'emit' || about === null) continue;
        if (type === 'reset') seen.delete(about);
        if (type !== 'message') continue;
        if (seen.has(about)) assert.ok(detail.offset > seen.get(about), 'not in order');
        seen.set(about, detail.offset);
      }
      assert.ok(machine.pending >= 0);
      assert.ok(machine.status === 'closed' || Number.isFinite(machine.due));
    }
    for (const [what, about] of machine.step(now, 'end')) if (what === 'settle') settled.add(about);
    assert.equal(machine.requests.size, 0);
    assert.equal(machine.pending, 0);
    for (let i = 1; i <= ids; i++) assert.ok(settled.has(i), `request ${i} was forgotten`);
  });
});
