// What an operator sees, made from the views that a node sends once a second. Pure: no clock, no page.
// A view: {at, here, broker, online, announced: [{node, version, started}] | null, nodes: [sample, …]}; a sample is
// what server/vitals.py says. Numbers in it only grow, so two samples give rates.

const KEPT_S = 600; // how long a node that has ended stays in the list
const POINTS = 120; // of a curve
const ASKED_S = 4; // a node that has just been asked need not have answered yet
const ENDED = ['gone', 'left'];

/** What each state means, in words. */
export const STATES = {
  live: 'live', unready: 'not ready', draining: 'draining', asked: 'asked', silent: 'silent', unseen: 'not seen', gone: 'gone', left: 'left',
};

const RATES = { received: 'received', deliveries: 'deliveries', sent_bytes: 'sent_bytes', opened: 'opened', dropped: 'dropped', slow_closed: 'slow_closed', publishes_failed: 'publishes_failed', cpu: 'cpu_s' };

/** Per second, between two samples of one node; null without a former one. */
export function rates(before, after) {
  const seconds = before && after.at - before.at;
  if (!seconds || seconds < 0.2) return null;
  const found = {};
  for (const [name, field] of Object.entries(RATES)) found[name] = Math.max(0, after[field] - before[field]) / seconds;
  const turns = after.loop_lag_count - before.loop_lag_count;
  found.loop_lag_s = turns > 0 ? (after.loop_lag_sum_s - before.loop_lag_sum_s) / turns : null;
  return found;
}

export class Cluster {
  constructor() {
    this.nodes = new Map();
    this.events = [];
    this.curves = {};
    this.view = null;
  }

  /** Take one view; afterwards `nodes`, `totals`, `servers`, `curves` and `events` (newest first) are as it says. */
  take(view) {
    const first = this.view === null;
    this.view = view;
    const heard = new Map(view.nodes.map((sample) => [sample.node, sample]));
    for (const sample of view.nodes) this.#heard(sample, view.at, first);
    const announced = view.announced && new Map(view.announced.map((node) => [node.node, node]));
    for (const [id, { version, started }] of announced ?? []) {
      if (!this.nodes.has(id)) this.nodes.set(id, { id, version, started, state: 'asked', since: view.at, sample: null, rates: null });
    }
    for (const node of this.nodes.values()) if (!heard.has(node.id)) this.#unheard(node, announced, view.at);
    for (const [id, node] of this.nodes) if (ENDED.includes(node.state) && view.at - node.since > KEPT_S) this.nodes.delete(id);
    this.#total(view);
  }

  get samples() {
    return [...this.nodes.values()].filter(({ state, sample }) => sample && ['live', 'unready', 'draining'].includes(state)).map(({ sample }) => sample);
  }

  #heard(sample, at, first) {
    let node = this.nodes.get(sample.node);
    if (!node) {
      node = { id: sample.node, state: first ? 'live' : 'new', since: at, sample: null, rates: null };
      this.nodes.set(sample.node, node);
    }
    if (node.sample?.at !== sample.at) node.rates = rates(node.sample, sample) ?? node.rates;
    Object.assign(node, { sample, version: sample.version, started: sample.started });
    this.#become(node, sample.draining ? 'draining' : sample.ready ? 'live' : 'unready', at, sample.reason);
  }

  #unheard(node, announced, at) {
    if (ENDED.includes(node.state)) return;
    if (node.state === 'asked' && at - node.since < ASKED_S) return;
    if (!announced) this.#become(node, 'unseen', at);
    else if (announced.has(node.id)) this.#become(node, node.state === 'draining' ? 'draining' : 'silent', at);
    else this.#become(node, node.state === 'draining' ? 'left' : 'gone', at);
  }

  #become(node, state, at, reason = '') {
    node.reason = state === 'unready' ? reason : '';
    if (node.state === state) return;
    const before = node.state;
    node.state = state;
    node.since = at;
    if (before === 'asked' && state === 'live') return;
    const words = { live: before === 'new' ? 'joined' : 'is live again', unready: `is not ready: ${reason}`, draining: 'sends its clients away', silent: 'says nothing',
      unseen: 'cannot be seen from here', gone: 'is gone', left: 'has left, as it was told to' }[state];
    this.events.unshift({ at, node: node.id, state, text: words });
    this.events.splice(50);
  }

  #total({ online }) {
    const live = [...this.nodes.values()].filter(({ state }) => ['live', 'unready', 'draining'].includes(state));
    const sum = (pick) => live.reduce((total, node) => total + (pick(node) ?? 0), 0);
    const most = (pick) => live.reduce((top, node) => Math.max(top, pick(node) ?? 0), 0);
    this.servers = new Map(live.flatMap(({ sample }) => Object.entries(sample.servers)));
    const memory = [...this.servers.values()].reduce((top, { used_memory_bytes: used, maxmemory_bytes: most }) => (most ? Math.max(top ?? 0, used / most) : top), null);
    this.totals = {
      connections: sum(({ sample }) => sample.connections),
      online,
      received: sum(({ rates }) => rates?.received),
      deliveries: sum(({ rates }) => rates?.deliveries),
      slow: sum(({ sample }) => sample.slow),
      slow_closed: sum(({ rates }) => rates?.slow_closed),
      memory,
      used: [...this.servers.values()].reduce((total, { used_memory_bytes: used }) => (total ?? 0) + used, null),
      subscriber_lag_s: most(({ sample }) => sample.subscriber_lag_s),
      presence_lag_s: most(({ sample }) => sample.presence_lag_s),
    };
    for (const [name, value] of Object.entries(this.totals)) {
      const curve = this.curves[name] ??= [];
      curve.push(value ?? 0);
      if (curve.length > POINTS) curve.shift();
    }
  }
}
