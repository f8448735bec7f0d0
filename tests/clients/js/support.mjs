// What the tests of the JavaScript client share. Packages are those of clients/js/package.json.
import { createRequire } from 'node:module';
import { Machine } from '../../../server/static/roomcast.js';

export const require = createRequire(new URL('../../../clients/js/package.json', import.meta.url));

/** A small generator of random numbers (mulberry32): the same seed, the same run. */
export function generator(seed) {
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  random.below = (n) => Math.floor(random() * n);
  random.pick = (list) => list[random.below(list.length)];
  random.chance = (p) => random() < p;
  return random;
}

/** TEST_SEED repeats one run; otherwise `runs` seeds that differ every time. */
export function seeds(runs) {
  if (process.env.TEST_SEED) return [Number(process.env.TEST_SEED)];
  const first = Math.floor(Math.random() * 2 ** 31);
  return Array.from({ length: runs }, (_, i) => first + i);
}

/** Run `check(random)` with every seed; a failure names the seed that repeats it. */
export function forAll(runs, check) {
  for (const seed of seeds(runs)) {
    try {
      check(generator(seed));
    } catch (error) {
      error.message = `TEST_SEED=${seed} repeats this: ${error.message}`;
      throw error;
    }
  }
}

export const welcome = { op: 'welcome', version: 1, session: 's1', node: 'n', user_id: 42, ping: 10, max_message: 65536 };

/** A machine at a time of its own, with what it did sorted by kind. Random numbers are 1: delays are the longest ones. */
export class Bench {
  constructor(options = {}) {
    this.machine = new Machine({ random: () => 1, renewable: true, ...options });
    this.now = 0;
    this.all = [];
    this.ids = 0;
  }

  /** Tell the machine something; returns the effects of it. */
  do(event, ...args) {
    const effects = this.machine.step(this.now, event, ...args);
    this.all.push(...effects);
    return effects;
  }

  /** Let time pass in the steps the machine asks for. Returns all effects. */
  wait(ms) {
    const until = this.now + ms;
    const effects = [];
    while (this.machine.due <= until) {
      this.now = Math.max(this.now, this.machine.due);
      effects.push(...this.do('tick'));
    }
    this.now = until;
    return effects;
  }

  /** Connected and welcomed, with these rooms joined at offset 0 of epoch e. */
  static online(...rooms) {
    const bench = new Bench();
    bench.do('tick');
    const effects = bench.do('received', welcome);
    for (const room of rooms) effects.push(...bench.join(room));
    return bench;
  }

  join(room, options = {}, reply = {}) {
    const [{ id }] = sent(this.do('join', room, options));
    return this.do('received', joined(id, room, reply));
  }

  message(room, data) {
    const id = ++this.ids;
    const text = JSON.stringify({ op: 'message', room, data, id, key: `k${id}` });
    return this.do('ask', { id, op: 'message', room, text, size: text.length });
  }
}

export const joined = (id, room, more = {}) => ({
  op: 'reply', id, ok: true, room, epoch: 'e', offset: 0, tag: 't0', recovered: null, messages: [], ...more,
});

export const live = (room, offset, data = offset) => ({
  op: 'broadcast', type: 'message', room, offset, tag: `t${offset}`, user_id: 7, ts: 1, data,
});

export const sent = (effects) => effects.filter(([what]) => what === 'send').map(([, text]) => JSON.parse(text));
export const emitted = (effects, wanted) =>
  effects.filter(([what, , type]) => what === 'emit' && (!wanted || type === wanted)).map(([, , , detail]) => detail);
export const settled = (effects) => effects.filter(([what]) => what === 'settle').map(([, id, error, value]) => ({ id, error, value }));
export const offsets = (effects) => emitted(effects, 'message').map(({ offset }) => offset);
