// What the browser tests stand on: a real Redis, real nodes, a way to a node that lives, and Debian's Chromium.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';

const root = new URL('../..', import.meta.url);
const { chromium } = createRequire(new URL('clients/js/package.json', root))('playwright-core');
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

const PATIENCE_MS = 40_000, START_MS = 60_000; // on a machine where others compute, too

export const DESK = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** A free port outside the range the kernel hands to outgoing connections: none of those takes it meanwhile. */
async function lastingPort() {
  for (;;) {
    const server = createServer().listen(15_000 + Math.floor(Math.random() * 17_000), '127.0.0.1');
    try {
      await once(server, 'listening');
    } catch {
      continue; // taken
    }
    const { port } = server.address();
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Another process answers when it likes: ask until it does, or say what was waited for. */
export async function eventually(what, predicate, timeoutMs = PATIENCE_MS) {
  const deadline = Date.now() + timeoutMs;
  while (!(await predicate())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const answers = (port) => new Promise((resolve) => {
  const socket = connect(port, '127.0.0.1', () => resolve(true, socket.destroy()));
  socket.on('error', () => resolve(false));
});

class Process {
  constructor(command, args, options) {
    this.output = '';
    this.child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
    for (const stream of [this.child.stdout, this.child.stderr]) stream.on('data', (data) => { this.output = (this.output + data).slice(-20_000); });
    this.ended = once(this.child, 'exit');
  }

  signal(name) {
    this.child.kill(name);
  }

  async stop(name = 'SIGTERM') {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.signal('SIGCONT');
      this.signal(name);
      const kill = setTimeout(() => this.signal('SIGKILL'), 5_000);
      await this.ended;
      clearTimeout(kill);
    }
  }
}

/** A port of its own that leads to the first of some nodes that can be reached, as a load balancer would. */
class Front {
  static async open(nodes) {
    const front = new Front();
    front.nodes = nodes;
    front.server = createServer((socket) => front.#forward(socket, [...front.nodes])).listen(0, '127.0.0.1');
    await once(front.server, 'listening');
    front.url = `http://127.0.0.1:${front.server.address().port}`;
    return front;
  }

  #forward(socket, [node, ...others]) {
    socket.on('error', () => {});
    if (!node) return socket.destroy();
    const onward = connect(node.port, '127.0.0.1');
    onward.once('connect', () => {
      onward.removeAllListeners('error');
      onward.on('error', () => socket.destroy());
      socket.pipe(onward).pipe(socket);
      socket.on('close', () => onward.destroy());
      onward.on('close', () => socket.destroy());
    });
    onward.once('error', () => this.#forward(socket, others));
  }
}

export class Stage {
  #processes = [];
  #fronts = [];
  #contexts = [];

  static async open() {
    const stage = new Stage();
    stage.directory = await mkdtemp(join(tmpdir(), 'rc-browser-'));
    stage.shots = process.env.TEST_SCREENSHOTS ?? join(stage.directory, 'shots');
    await mkdir(stage.shots, { recursive: true });
    const port = await lastingPort();
    stage.redis = stage.#start('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', stage.directory]);
    stage.redis.port = port;
    await eventually('Redis answers', () => answers(port), START_MS);
    stage.browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
    return stage;
  }

  #start(command, args, options) {
    const process = new Process(command, args.map(String), options);
    this.#processes.push(process);
    return process;
  }

  /** A node in development mode, with more settings if need be (`ROOMCAST_…`); it answers when this returns. */
  async node(settings = {}) {
    const port = await lastingPort();
    const env = { ...process.env, ROOMCAST_BROKER: `redis://127.0.0.1:${this.redis.port}/0`, ...settings };
    const node = this.#start(process.env.TEST_PYTHON, ['-m', 'server', 'serve', '--dev', '--port', port], { env });
    node.port = port;
    const ready = () => fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(({ ok }) => ok, () => false);
    await eventually('the node is ready', ready, START_MS).catch((error) => {
      throw new Error(`${error.message}\n${node.output}`);
    });
    return node;
  }

  async front(...nodes) {
    const front = await Front.open(nodes);
    this.#fronts.push(front);
    return front;
  }

  /** The demo in a browser profile of its own. What goes wrong on the page is in `page.troubles`. */
  async person(name, front, options = DESK) {
    const context = await this.browser.newContext(options);
    this.#contexts.push(context);
    return this.tab(name, front, context);
  }

  async tab(name, front, context) {
    const page = await this.#page(context);
    await page.goto(`${front.url}/demo?user=${name}`);
    await page.locator('#log .messages').waitFor();
    return page;
  }

  async #page(context) {
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.troubles = [];
    page.on('pageerror', (error) => page.troubles.push(error.message));
    page.on('console', (message) => message.type() === 'error' && !message.text().includes('WebSocket connection') && page.troubles.push(message.text()));
    return page;
  }

  /** An empty page in a browser profile of its own. */
  async blank(options = DESK) {
    const context = await this.browser.newContext(options);
    this.#contexts.push(context);
    return this.#page(context);
  }

  async shot(page, name) {
    await page.screenshot({ path: join(this.shots, `${name}.png`), animations: 'disabled' });
  }

  /** Everybody leaves; Redis starts empty for who comes next. */
  async clear() {
    for (const context of this.#contexts.splice(0)) await context.close();
    for (const front of this.#fronts.splice(0)) front.server.close();
    for (const process of this.#processes.splice(1)) await process.stop('SIGKILL');
    this.redis.signal('SIGCONT');
    const socket = connect(this.redis.port, '127.0.0.1');
    socket.write('FLUSHALL\r\n');
    await once(socket, 'data');
    socket.destroy();
  }

  async close() {
    await this.clear();
    await this.browser.close();
    await this.redis.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}
