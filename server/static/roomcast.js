/**
 * Roomcast for browsers and Node: rooms on one WebSocket that comes back by itself.
 *
 *     const rc = roomcast('/ws', { token: async () => (await fetch('/token')).text() });
 *     const room = rc.join('lobby', { presence: true, history: 50 });
 *     room.on('message', ({ user_id, data }) => console.log(user_id, data));
 *     await room.send({ text: 'hello' });
 *
 * Machine decides everything and does nothing: events and the time go in, effects come out. Client does what it asks
 * for with sockets, timers and listeners. The protocol is docs/protocol.md.
 */

/**
 * @typedef {number | string | null} UserId
 * @typedef {{epoch: string, offset: number, tag: string}} Position
 * @typedef {{room: string, offset: number, tag: string, user_id: UserId, ts: number, data: any}} Message
 * @typedef {{user_id: UserId, status: 'online' | 'offline', room?: string}} Presence
 * @typedef {{count: number, users: UserId[], typing?: UserId[]}} Members
 * @typedef {{user_id: UserId, room: string, message_id: number | string, status: string}} Receipt
 * @typedef {{user_id: UserId, delivered: number, read: number}} Marks
 * @typedef {{recovered: boolean | null, missed: number, unread?: number, receipts?: Marks[], members?: Members}} Joined
 *   `recovered`: null at the first join, false after a `reset`; `missed`: messages caught up on.
 * @typedef {'connecting' | 'online' | 'degraded' | 'draining' | 'waiting' | 'closed'} Status
 * @typedef {{status: Status, code?: number, reason?: string, retry_in_ms?: number}} StatusChange
 * @typedef {{code?: string, message: string, room?: string}} Failure
 * @typedef {{message: Message, joined: Joined, members: Members, presence: Presence, receipt: Receipt, error: Failure,
 *   typing: {room: string, user_id: UserId, typing: boolean}, reset: Position, left: {room: string}}} RoomEvents
 *   `reset`: the log was lost or forked, fetch state again; `members`: everybody who is here, replaces what was known;
 *   `left`: the server's application took this client out, it is over.
 * @typedef {{status: StatusChange, presence: Presence, presence_list: {users: UserId[]}, direct: {data: any},
 *   broadcast: {path: string, user_id: UserId, data: any}, error: Failure, joined: Position & {room: string}}} ClientEvents
 *   `error` of a room: the join was refused, it is over; of the client: what nobody awaits failed, such as `typing`.
 *   `joined`: the server's application put this client into a room, `join(room)` gives it and what comes next.
 * @typedef {{presence?: boolean, history?: number}} JoinOptions
 * @typedef {string | null | undefined} Token
 * @typedef {{token?: Token | (() => Token | Promise<Token>), WebSocket?: any}} Options
 *   `token`: a function is asked before every connection and when a token expires. `WebSocket`: a class, for Node before 22.
 */

const CONNECT_MS = 15_000, PONG_MS = 5_000, STABLE_MS = 10_000; // without a welcome; for a pong; proves a connection
const RETRY_MS = 1_000, MAX_RETRY_MS = 30_000;
const RESEND_MS = 100_000; // the node knows a retry key for 120 s
const BURST = 60, PER_MS = 0.04; // below the node's limit of 100 and 50 a second
const READ_MS = 500, TYPING_MS = 3_000;
const MAX_PENDING = 1 << 20; // bytes of requests that wait for a connection or an answer
const FINAL = [1002, 1003, 1007, 1008, 1009, 4002, 4004], CROWDED = [1013, 4009, 4010];
const LATER = ['rate_limited', 'unavailable', 'timeout'], AGAIN = ['message', 'history', 'get_presence'];

/** @param {Position} frame @returns {Position} */
const positionOf = ({ epoch, offset, tag }) => ({ epoch, offset, tag });

/** What a refused or lost request rejects with. `code` as in the protocol, or `disconnected`, `left`, `closed`, `full`. */
export class RoomcastError extends Error {
  /** @param {string} code @param {string} [message] */
  constructor(code, message = code) {
    super(message);
    this.code = code;
  }
}

/**
 * @internal The pure part: no clock, socket or timer. `step` takes what happened and returns what to do, in order:
 * ['connect'], ['drop'], ['send', text], ['token'], ['emit', room or null, type, detail], ['settle', id, error, value].
 */
export class Machine {
  /** @param {{random?: () => number, renewable?: boolean}} [options] `renewable`: a new token can be had */
  constructor({ random = Math.random, renewable = false } = {}) {
    this.random = random;
    this.renewable = renewable;
    /** @type {Status} */
    this.status = 'waiting';
    /** @type {string | null} */
    this.session = null;
    /** @type {UserId} */
    this.user = null;
    /** @type {Map<string, any>} */
    this.rooms = new Map();
    /** @type {Map<unknown, any>} what was asked and not answered */
    this.requests = new Map();
    /** @type {any[]} the part of it that is still to be sent, in order */
    this.queue = [];
    /** @type {any[][]} */
    this.effects = [];
    this.online = this.pinged = false;
    this.now = this.tries = this.denied = this.joins = this.pending = this.deadline = 0;
    this.max = this.ping = this.onlineAt = this.heardAt = this.holdUntil = this.tokens = this.refilledAt = 0;
    this.wakeAt = Infinity;
    /** @type {number | null} */
    this.retryAfter = null;
  }

  /** @param {number} now milliseconds @param {string} event a method's name @param {any[]} args */
  step(now, event, ...args) {
    this.now = now;
    this.effects = [];
    /** @type {any} */ (this)[event](...args);
    this.pump();
    return this.effects;
  }

  /** When `tick` is to come, unless something else does. */
  get due() {
    return Math.min(this.wakeAt, this.patientUntil);
  }

  get patientUntil() {
    return this.online && !this.pinged ? this.heardAt + this.ping : this.deadline;
  }

  // The connection.

  tick() {
    for (const request of this.requests.values()) this.expired(request);
    if (this.now < this.patientUntil) return;
    if (this.status === 'waiting') {
      this.deadline = this.now + CONNECT_MS;
      this.effects.push(['connect']);
      this.tell('connecting');
    } else if (this.online && !this.pinged) this.probe();
    else {
      this.effects.push(['drop']);
      this.closed(1006, 'no answer');
    }
  }

  /** A server's pings are invisible in a browser: ask for a pong. */
  probe() {
    if (this.pinged) return;
    this.pinged = true;
    this.deadline = this.now + PONG_MS;
    this.transmit({ op: 'ping' });
  }

  /** The network or the page came or went: find out now. */
  nudge() {
    if (this.online) this.probe();
    else if (this.status === 'waiting') this.deadline = Math.min(this.deadline, this.now + this.jitter(0));
  }

  /** @param {number} code @param {string} [reason] */
  closed(code, reason = '') {
    if (this.status === 'closed') return;
    if (this.online && this.now - this.onlineAt >= STABLE_MS) this.tries = 0;
    this.online = this.pinged = false;
    for (const room of this.rooms.values()) Object.assign(room, { state: 'idle', at: 0, tries: 0, seen: 0 });
    this.queue = [];
    for (const request of this.requests.values()) {
      if (request.op === 'join') this.requests.delete(request.id);
      else if (!AGAIN.includes(request.op)) this.fail(request, 'disconnected');
      else if (!this.expired(request)) this.queue.push(Object.assign(request, { sent: false }));
    }
    const after = this.retryAfter;
    this.retryAfter = null;
    if (code === 4001) this.denied++;
    const refused = code === 4001 && (!this.renewable || (!this.session && this.denied > 2)); // it was good once: again
    if (FINAL.includes(code) || refused) return this.end(code, reason);
    if (CROWDED.includes(code)) this.tries = Math.max(this.tries, 3);
    this.deadline = this.now + (after ?? this.jitter(this.tries++));
    this.tell('waiting', { code, reason, retry_in_ms: Math.round(this.deadline - this.now) });
  }

  /** For good. @param {number} [code] @param {string} [reason] */
  end(code = 1000, reason = '') {
    this.online = false;
    this.deadline = Infinity;
    this.effects.push(['drop']);
    for (const request of this.requests.values()) this.fail(request, 'closed');
    for (const id of this.rooms.keys()) this.fail({ id }, 'closed');
    this.tell('closed', { code, reason });
  }

  /** Full jitter. @param {number} tries */
  jitter(tries) {
    return this.random() * Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** tries);
  }

  // What the application wants.

  /** @param {string} name @param {JoinOptions} options */
  join(name, options) {
    const room = { name, options, state: 'idle', position: null, id: '', recovered: null };
    this.rooms.set(name, { ...room, at: 0, tries: 0, missed: 0, read: 0, seen: 0, seenAt: 0, typedAt: -Infinity });
  }

  /** @param {string} name */
  leave(name) {
    if (this.rooms.has(name) && this.online) this.transmit({ op: 'leave', room: name });
    this.abandon(name, new RoomcastError('left'));
  }

  /** @param {{id: unknown, op: string, room?: string, text: string, size: number}} request `text` is the frame */
  ask(request) {
    this.requests.set(request.id, request);
    this.pending += request.size;
    if (this.status === 'closed') this.fail(request, 'closed');
    else if (request.room && !this.rooms.has(request.room)) this.fail(request, 'left');
    else if (this.pending > MAX_PENDING) this.fail(request, 'full', 'wait for earlier requests');
    else if (!this.online && !AGAIN.includes(request.op)) this.fail(request, 'disconnected');
    else this.queue.push(request);
  }

  /** @param {string} name @param {boolean} typing */
  type(name, typing) {
    const room = this.rooms.get(name);
    if (room?.state !== 'live' || (typing ? this.now - room.typedAt < TYPING_MS : room.typedAt < 0)) return;
    room.typedAt = typing ? this.now : -Infinity;
    if (this.allowed()) this.transmit({ op: 'typing', room: name, typing });
  }

  /** @param {string} name @param {number} offset */
  read(name, offset) {
    const room = this.rooms.get(name);
    if (room && offset > room.read) room.read = offset;
  }

  /** @param {Token} token */
  renew(token) {
    if (this.online && token) this.transmit({ op: 'auth', token });
  }

  // What the server says.

  /** @param {any} frame */
  received(frame) {
    this.heardAt = this.now;
    this.pinged = false;
    const { op } = frame ?? {};
    if (this.status === 'closed') return;
    if (op === 'welcome') this.welcome(frame);
    else if (!this.online) return;
    else if (op === 'reply') this.reply(frame);
    else if (op === 'broadcast') this.event(frame);
    else if (op === 'degraded') this.tell(op);
    else if (op === 'auth_expiring') this.renewable && this.effects.push(['token']);
    else if (op === 'drain' || op === 'backoff') {
      this.retryAfter = Math.min(Math.max(+frame.retry_after_ms || 0, 0), 2 * MAX_RETRY_MS);
      if (op === 'drain') this.tell('draining');
    } else if (op === 'restored') {
      this.holdUntil = 0;
      for (const room of this.rooms.values()) room.at = Math.min(room.at, this.now + this.jitter(0));
      this.tell('online');
    }
  }

  /** @param {any} frame */
  welcome({ session, user_id, ping, max_message }) {
    this.online = true;
    this.onlineAt = this.refilledAt = this.now;
    this.denied = this.holdUntil = 0;
    this.tokens = BURST;
    if (this.session && this.session !== session) { // the keys of what was sent are unknown here: again could be twice
      for (const request of this.queue) if (request.sentAt >= 0) this.unknown(request);
    }
    this.session = session;
    this.user = user_id;
    this.ping = ping * 1000;
    this.max = max_message;
    this.tell('online');
  }

  /** @param {any} frame */
  reply(frame) {
    const request = this.requests.get(frame.id);
    if (!request?.sent) return;
    const error = frame.ok ? null : new RoomcastError(frame.code, frame.message);
    if (request.op === 'join') {
      this.requests.delete(request.id);
      const room = this.rooms.get(request.room);
      if (room?.id !== request.id) return;
      if (!error) this.joined(room, frame);
      else if (LATER.includes(frame.code)) this.rejoin(room, ++room.tries);
      else {
        this.emit(room.name, 'error', frame);
        this.abandon(room.name, error);
      }
    } else if (error && LATER.includes(frame.code) && AGAIN.includes(request.op)) {
      request.sent = false;
      this.queue.push(request);
      this.queue.sort((a, b) => a.id - b.id);
      this.holdUntil = this.now + this.jitter((request.tries = (request.tries ?? 0) + 1));
    } else this.settle(request, error, request.list ?? frame);
  }

  /** @param {any} room @param {any} frame */
  joined(room, { epoch, offset, tag, recovered, messages = [], more, unread, receipts, members }) {
    const from = room.position;
    if (!from || recovered !== true) {
      if (from) {
        room.read = room.seen = 0;
        room.recovered = false;
        this.emit(room.name, 'reset', { room: room.name, epoch, offset, tag });
      }
      room.position = { epoch, offset: messages[0] ? messages[0].offset - 1 : offset, tag };
    }
    for (const message of messages) room.missed += +this.apply(room, message);
    if (offset > room.position.offset) return this.rejoin(room, room.tries++); // a hole inside: never skip it
    room.position = { epoch, offset: room.position.offset, tag: offset < room.position.offset ? room.position.tag : tag };
    if (more) return this.rejoin(room, 0);
    room.state = 'live';
    const missed = from ? room.missed : 0;
    this.settle({ id: room.name }, null);
    this.emit(room.name, 'joined', { recovered: room.recovered, missed, unread, receipts, members });
    if (members) this.emit(room.name, 'members', members);
    Object.assign(room, { recovered: true, missed: 0 });
  }

  /** @param {any} frame op broadcast */
  event(frame) {
    const { type } = frame;
    const room = this.rooms.get(frame.room);
    if (type === 'joined') {
      if (room) return; // its own join says more
      this.join(frame.room, {});
      Object.assign(this.rooms.get(frame.room), { state: 'live', put: true, recovered: true, position: positionOf(frame) });
      return this.emit(null, type, frame);
    }
    if (frame.room !== undefined && !room) return; // was left
    if (type === 'message' || type === 'position') {
      if (room?.state !== 'live') return;
      if (this.apply(room, frame)) room.tries = 0;
      else if (frame.offset > room.position.offset) this.rejoin(room, room.tries++);
    } else if (type === 'reset') {
      if (room?.state !== 'live') return;
      room.position = positionOf(frame);
      room.read = room.seen = 0;
      this.emit(room.name, type, frame);
    } else if (type === 'left' && room) {
      if (room.state !== 'live') return this.rejoin(room, 0); // asked for at the same time: the later join counts
      this.emit(room.name, type, frame);
      this.abandon(room.name, new RoomcastError(type, 'taken out by the application'));
    } else {
      if (type === 'presence_list') {
        for (const request of this.requests.values()) {
          if (request.op === 'get_presence' && request.sent && request.room === frame.room && !request.list) {
            request.list = frame;
            return;
          }
        }
      }
      this.emit(room && type !== 'error' ? room.name : null, room && type === 'presence_list' ? 'members' : type, frame);
    }
  }

  /** The rule that makes a log whole: the next message or none. @param {any} room @param {any} frame */
  apply(room, frame) {
    const { type, offset, tag } = frame;
    if (offset !== room.position.offset + 1 || offset === room.position.offset) return false; // 2^53 + 1 is 2^53
    room.position = { ...room.position, offset, tag };
    if (type === 'message') this.emit(room.name, type, frame);
    return true;
  }

  // What goes out.

  /** Send all that may be sent now, and know when there will be more. */
  pump() {
    this.wakeAt = Infinity;
    if (!this.online) return;
    for (const room of this.rooms.values()) {
      if (room.state === 'idle' && this.may(room.at)) {
        room.state = 'joining';
        room.id = `j${++this.joins}`;
        const { presence, history } = room.options;
        const frame = { op: 'join', id: room.id, room: room.name, presence, history, resume: room.position ?? undefined };
        this.requests.set(room.id, { ...frame, sent: true });
        this.transmit(frame);
      } else if (room.state === 'live' && room.read > room.seen && this.may(room.seenAt)) {
        room.seen = room.read;
        room.seenAt = this.now + READ_MS;
        this.transmit({ op: 'receipt', room: room.name, message_id: room.read, status: 'read' });
      }
    }
    const queue = this.queue;
    this.queue = [];
    for (const request of queue) {
      const room = this.rooms.get(request.room);
      if (!this.requests.has(request.id)) continue; // settled meanwhile
      if (request.size > this.max) this.fail(request, 'too_large', `at most ${this.max} bytes`);
      else if ((room && room.state !== 'live') || !this.may(this.holdUntil)) this.queue.push(request);
      else {
        request.sent = true;
        request.sentAt ??= this.now;
        if (room && request.op === 'message') room.typedAt = -Infinity; // a message ends typing
        this.effects.push(['send', request.text]);
      }
    }
  }

  /** Is it time, and does the node's rate limit allow it? If not, wake up when it may be. @param {number} at */
  may(at) {
    const ready = at <= this.now && this.allowed();
    if (!ready) this.wakeAt = Math.min(this.wakeAt, Math.max(at, this.now + 1 / PER_MS));
    return ready;
  }

  allowed() {
    this.tokens = Math.min(BURST, this.tokens + (this.now - this.refilledAt) * PER_MS);
    this.refilledAt = this.now;
    return this.tokens >= 1 && !!this.tokens--;
  }

  /** @param {any} room @param {number} tries */
  rejoin(room, tries) {
    room.state = 'idle';
    room.at = tries ? this.now + this.jitter(tries) : 0;
  }

  /** @param {object} frame */
  transmit(frame) {
    this.effects.push(['send', JSON.stringify(frame)]);
  }

  /** @param {string | null} room @param {string} type @param {object} detail */
  emit(room, type, detail) {
    this.effects.push(['emit', room, type, detail]);
  }

  /** @param {Status} status @param {object} [more] */
  tell(status, more) {
    this.status = status;
    this.emit(null, 'status', { status, ...more });
  }

  /** Of a request or, by its name, a room's first join. @param {any} request @param {Error | null} error @param {any} [value] */
  settle(request, error, value) {
    if (request.op && !this.requests.delete(request.id)) return;
    this.pending -= request.size ?? 0;
    this.effects.push(['settle', request.id, error, value]);
  }

  /** Sent so long ago that its key may be forgotten: nobody knows whether it arrived. @param {any} request */
  expired(request) {
    const old = request.sentAt < this.now - RESEND_MS;
    if (old) this.unknown(request);
    return old;
  }

  /** @param {any} request */
  unknown(request) {
    this.fail(request, 'timeout', 'no answer: it may have arrived');
  }

  /** @param {any} request @param {string} code @param {string} [message] */
  fail(request, code, message) {
    this.settle(request, new RoomcastError(code, message));
  }

  /** Nothing more can be asked in this room, nor will be heard. @param {string} name @param {Error} error */
  abandon(name, error) {
    this.rooms.delete(name);
    this.settle({ id: name }, error);
    for (const request of this.queue) {
      if (request.room !== name) continue;
      if (request.sentAt >= 0) this.unknown(request);
      else this.settle(request, error);
    }
  }
}

/** @template {object} Events */
class Emitter {
  /** @type {Map<string, Set<Function>>} */
  #listeners = new Map();

  /**
   * @template {keyof Events & string} K @param {K} type @param {(detail: Events[K]) => void} listener
   * @returns {() => void} which takes the listener off again
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {string} type @param {any} detail */
  emit(type, detail) {
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => { throw error; }); // reported like any uncaught error, and nobody else misses the event
      }
    }
  }
}

/** A room one is in, through every reconnect, until `leave`. @extends {Emitter<RoomEvents>} */
export class Room extends Emitter {
  #client;

  /** @param {Client} client @param {string} name @param {Promise<void>} ready */
  constructor(client, name, ready) {
    super();
    this.#client = client;
    this.name = name;
    /** Settles with the first join; rejects if it is refused. */
    this.ready = ready;
  }

  /**
   * Resolves once it is in the room's log; until then it is sent again, with the same key. Rejects with RoomcastError;
   * after code `timeout` nobody knows. @param {any} data JSON @param {{echo?: boolean}} [options] `echo: false`: not to me
   * @returns {Promise<Position>}
   */
  async send(data, { echo } = {}) {
    return positionOf(await this.#client.ask({ op: 'message', room: this.name, data, echo }));
  }

  /** At every keystroke, if you like: what goes out is throttled. */
  typing(typing = true) {
    this.#client.step('type', this.name, typing);
  }

  /** All up to this message has been read. @param {number} offset */
  read(offset) {
    this.#client.step('read', this.name, offset);
  }

  /**
   * The messages before an offset, or the newest; oldest first. @param {{before?: number, limit?: number}} [options]
   * @returns {Promise<Message[]>}
   */
  async history({ before, limit = 50 } = {}) {
    /** @type {{messages: any[]}} */
    const { messages } = await this.#client.ask({ op: 'history', room: this.name, before, limit });
    return messages.filter(({ type }) => type === 'message');
  }

  /** Everybody who is here. @returns {Promise<Members>} */
  async members() {
    const users = [];
    for (let after; ;) {
      const page = await this.#client.ask({ op: 'get_presence', room: this.name, after });
      users.push(...page.users);
      if ((after = page.next) === undefined) return { count: page.count, users };
    }
  }

  /** Nothing more is heard of it; `join` makes a new one. */
  leave() {
    this.#client.leave(this);
  }
}

/** @extends {Emitter<ClientEvents>} */
export class Client extends Emitter {
  /** @type {Map<string, Room>} */
  #rooms = new Map();
  /** @type {Map<unknown, {resolve: Function, reject: Function}>} */
  #asked = new Map();
  /** @type {any[][]} */
  #effects = [];
  #performing = false;
  /** @type {any} */
  #socket;
  #attempt = 0;
  /** @type {any} */
  #timer;
  #timerAt = Infinity;
  #ids = 0;
  #key = Math.random().toString(36).slice(2, 10);
  #page = new AbortController();
  #url;
  #options;
  #machine;

  /** @param {string | URL} url @param {Options} options */
  constructor(url, options) {
    super();
    this.#url = socketUrl(url);
    this.#options = { WebSocket: globalThis.WebSocket, ...options };
    if (!this.#options.WebSocket) throw new TypeError('No WebSocket here: npm install ws, and give its WebSocket as an option');
    this.#machine = new Machine({ renewable: typeof options.token === 'function' });
    const { document } = globalThis;
    const nudge = () => document.hidden || this.step('nudge');
    for (const type of ['online', 'offline']) document && addEventListener(type, nudge, this.#page);
    document?.addEventListener('visibilitychange', nudge, this.#page);
    queueMicrotask(() => this.step('tick')); // whoever listens from the start hears the start
  }

  /** One object per room: joining again returns it. @param {string} name @param {JoinOptions} [options] */
  join(name, options = {}) {
    const known = this.#machine.rooms.has(name) && this.#rooms.get(name);
    if (known) return known;
    this.#effects = this.#effects.filter(([, about]) => about !== name); // meant for the room that was left
    const room = new Room(this, name, this.#promise(name));
    room.ready.catch(() => {}); // the room's `error` tells, too
    this.#rooms.set(name, room);
    this.step('join', name, options);
    return room;
  }

  /** @internal @param {Room} room */
  leave(room) {
    if (this.#rooms.get(room.name) === room) this.step('leave', room.name); // else left before, and joined anew
  }

  get status() {
    return this.#machine.status;
  }

  /** Who the server says one is; null while that is unknown, and if anonymous. */
  get user() {
    return this.#machine.user;
  }

  /** To every connection on the same path, at most once. @param {any} data JSON @returns {Promise<unknown>} */
  broadcast(data) {
    return this.ask({ op: 'broadcast', data });
  }

  /** Everybody online, where the server tells. @returns {Promise<UserId[]>} */
  async presence() {
    return (await this.ask({ op: 'get_presence' })).users;
  }

  /** For good. */
  close() {
    this.#page.abort();
    if (this.status !== 'closed') this.step('end');
  }

  /** @internal @param {{op: string, room?: string, [field: string]: any}} frame @returns {Promise<any>} */
  async ask(frame) {
    const id = ++this.#ids;
    const text = JSON.stringify({ ...frame, id, key: frame.op === 'message' ? `${this.#key}-${id}` : undefined });
    const answer = this.#promise(id);
    this.step('ask', { id, op: frame.op, room: frame.room, text, size: new TextEncoder().encode(text).length });
    return answer;
  }

  /** @param {unknown} id @returns {Promise<any>} */
  #promise(id) {
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
  }

  /** @internal @param {string} event @param {any[]} args */
  step(event, ...args) {
    this.#effects.push(...this.#machine.step(performance.now(), event, ...args));
    if (this.#performing) return; // called by a listener: after what it was called from
    this.#performing = true;
    for (let effect; (effect = this.#effects.shift()); ) this.#perform(effect);
    this.#performing = false;
    const { due } = this.#machine;
    if (due === Infinity) clearTimeout(this.#timer);
    else if (due < this.#timerAt) { // else it rings early and is set again: cheaper than a new timer for every frame
      clearTimeout(this.#timer);
      this.#timerAt = due;
      this.#timer = setTimeout(() => {
        this.#timerAt = Infinity;
        this.step('tick');
      }, due - performance.now());
    }
  }

  /** @param {any[]} effect */
  #perform([what, about, type, detail]) {
    if (what === 'send') this.#socket?.send(about);
    else if (what === 'emit') {
      if (type === 'joined' && this.#machine.rooms.get(detail.room)?.put) {
        this.#rooms.set(detail.room, new Room(this, detail.room, Promise.resolve()));
      }
      (about === null ? this : this.#rooms.get(about))?.emit(type, detail);
      if (detail.op === 'broadcast') globalThis.document?.dispatchEvent(new CustomEvent('roomcast:broadcast', { detail }));
    } else if (what === 'settle') {
      const asked = this.#asked.get(about);
      this.#asked.delete(about);
      type ? asked?.reject(type) : asked?.resolve(detail);
      if (!this.#machine.rooms.has(about)) this.#rooms.delete(about); // of a room: the last that is heard of it
    } else if (what === 'connect') this.#connect();
    else if (what === 'drop') this.#drop();
    else if (what === 'token') this.#token().then((token) => this.step('renew', token), () => {}); // else the close says so
  }

  async #token() {
    const { token } = this.#options;
    return typeof token === 'function' ? token() : token;
  }

  async #connect() {
    const attempt = ++this.#attempt; // what belongs to an earlier one is late
    try {
      const token = await this.#token();
      if (attempt !== this.#attempt) return;
      const url = new URL(this.#url);
      if (this.#machine.session) url.searchParams.set('session', this.#machine.session);
      const protocols = ['roomcast.json.v1', ...(token ? [`roomcast.token.${token}`] : [])];
      /** @type {WebSocket} */
      const socket = (this.#socket = new this.#options.WebSocket(url, protocols));
      socket.onmessage = ({ data }) => this.step('received', JSON.parse(data));
      socket.onclose = ({ code, reason }) => this.step('closed', code, reason);
      socket.onerror = () => {}; // a close follows
    } catch (error) {
      if (attempt === this.#attempt) this.step('closed', 1006, String(error));
    }
  }

  #drop() {
    this.#attempt++;
    const socket = this.#socket;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.#socket = null;
  }
}

/**
 * ws or wss, host and port for a path: the page's, or those this file came from where only the port differs.
 * @param {string | URL} path @returns {URL}
 */
export function socketUrl(path) {
  const { location } = globalThis;
  const ours = location && new URL(import.meta.url).hostname === location.hostname;
  const url = new URL(path, ours ? import.meta.url : location?.href);
  url.protocol = url.protocol.replace('http', 'ws');
  return url;
}

/** Connects at once. @param {string | URL} url @param {Options} [options] */
export function roomcast(url, options = {}) {
  return new Client(url, options);
}

// @ts-ignore for pages that speak for themselves: a plain WebSocket to a path of the application
if (globalThis.document) globalThis.roomcastWS = (path) => new WebSocket(socketUrl(path));
