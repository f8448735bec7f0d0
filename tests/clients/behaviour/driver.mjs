// The JavaScript client as a program of its own: commands come as lines of JSON, what the application sees goes out so.
// The words are those of driver.py. Arguments: URL, where tokens are had, name, seconds to wait for a pong
// (0: as the client has it).
import { createInterface } from 'node:readline';
import { Machine, roomcast } from '../../../server/static/roomcast.js';
import { require } from '../js/support.mjs';

const { WebSocket } = require('ws');
const [url, tokens, name, heartbeat_s] = process.argv.slice(2);

// The client's own times are too long for a test: waits between attempts are a fifth, a pong must come sooner.
const { jitter, probe } = Machine.prototype;
Machine.prototype.jitter = function (tries) { return jitter.call(this, tries) / 5; };
Machine.prototype.probe = function () {
  if (this.pinged) return;
  probe.call(this);
  if (+heartbeat_s) this.deadline = this.now + heartbeat_s * 1_000;
};

const say = (at, detail) => process.stdout.write(`${JSON.stringify({ at, ...detail })}\n`);

async function token() {
  const answer = await fetch(tokens);
  say('token', { status: answer.status });
  if (!answer.ok) throw new Error(`no token: ${answer.status}`);
  return answer.text();
}

const rc = roomcast(url, { token, WebSocket });
rc.on('status', ({ status, code }) => say('status', { status, code }));
rc.on('joined', ({ room }) => {
  say('put_in', { room });
  watch(rc.join(room));
});
rc.on('direct', ({ data }) => say('direct', { data }));

function watch(room) {
  room.on('message', ({ offset, tag, data }) => say('message', { room: room.name, offset, tag, data }));
  room.on('reset', ({ offset }) => say('reset', { room: room.name, offset }));
  room.on('joined', ({ recovered, missed }) => say('joined', { room: room.name, recovered, missed }));
  room.on('left', () => say('ended', { room: room.name, code: 'left' }));
  room.on('error', ({ code }) => say('ended', { room: room.name, code }));
}

function send({ room, data }) {
  rc.join(room).send(data).then(({ offset }) => say('ack', { room, data, offset }), ({ code }) => say('failed', { room, data, code }));
}

let chatter, count = 0;
const commands = {
  join: ({ room }) => watch(rc.join(room)),
  send,
  start_chatter: ({ room, every_ms }) => { chatter = setInterval(() => send({ room, data: `${name} ${++count}` }), every_ms); },
  hush: () => {
    clearInterval(chatter);
    say('hushed', { sent: count });
  },
};
const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
lines.on('close', () => {
  clearInterval(chatter);
  rc.close();
});
