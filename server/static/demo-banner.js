// The line of the demo that tells of the connection: it takes no room while all is well.

const SHOWN_MS = 5_000, PATIENCE_MS = 500;
const OFFLINE = 'You are offline. What you write is sent when you are back.';

export class Banner {
  #element;
  #rc;
  #timer;
  #settled;
  #lost = false;
  #missed = 0;

  /** `element` has a span for the text. */
  constructor(element, rc) {
    this.#element = element;
    this.#rc = rc;
    rc.on('status', (change) => this.#status(change));
    // The system knows before the connection does.
    addEventListener('offline', () => this.#show('warn', OFFLINE));
    addEventListener('online', () => rc.status === 'online' && this.#hide());
  }

  /** Something that happened, for a while. `kind`: fine, warn or bad. */
  say(kind, text) {
    this.#show(kind, text);
    this.#timer = setTimeout(() => this.#hide(), SHOWN_MS);
  }

  /** A room was joined again, so many messages later. `recovered`: no hole in them. */
  caughtUp(count, recovered) {
    if (!this.#lost && !count && recovered) return;
    this.#missed += count;
    const missed = this.#missed === 1 ? '1 message caught up.' : `${this.#missed} messages caught up.`;
    if (!recovered) this.say('warn', 'Connected again, but the server has lost some history.');
    else this.say('fine', `Connected again. ${this.#missed ? missed : 'You missed nothing.'}`);
    clearTimeout(this.#settled);
    this.#settled = setTimeout(() => { this.#lost = false; this.#missed = 0; }, PATIENCE_MS);
  }

  #status({ status, code, reason }) {
    clearTimeout(this.#timer);
    if (status === 'online') {
      if (!this.#lost) this.#hide();
    } else if (status === 'degraded') this.#show('warn', 'The server cannot reach its store. Messages wait until it can.');
    else if (status === 'draining' || code === 1012 || code === 1001) {
      this.#lost = true;
      this.#show('warn', 'This server is going down for maintenance. Moving to another one…');
    } else if (status === 'closed') this.#show('bad', `The connection has ended: ${reason || `code ${code}`}. Reload the page to try again.`);
    else if (status === 'waiting') {
      this.#lost = true;
      this.#show('warn', navigator.onLine ? 'Connection lost. Trying again…' : OFFLINE);
    } else if (!this.#lost) this.#timer = setTimeout(() => this.#show('warn', 'Connecting…'), PATIENCE_MS);
  }

  #show(kind, text) {
    clearTimeout(this.#timer);
    this.#element.firstChild.textContent = text;
    this.#element.dataset.kind = kind;
  }

  #hide() {
    clearTimeout(this.#timer);
    this.#element.dataset.kind = 'none';
  }
}
