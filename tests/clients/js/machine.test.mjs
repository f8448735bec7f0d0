import assert from 'node:assert/strict';
import test from 'node:test';
import { Machine } from '../../../server/static/roomcast.js';
import { Bench, emitted, joined, live, offsets, sent, settled, welcome } from './support.mjs';

const kinds = (effects) => effects.map(([what]) => what);

test('it connects at once, and says nothing before the welcome', () => {
  const bench = new Bench();
  assert.deepEqual(kinds(bench.do('tick')), ['connect', 'emit']);
  assert.deepEqual(sent(bench.do('join', 'r', {})), []);
  assert.deepEqual(sent(bench.do('received', { ...welcome, ping: 10 })), [{ op: 'join', id: 'j1', room: 'r' }]);
  assert.equal(bench.machine.session, 's1');
});

test('a node that never welcomes is left after 15 s', () => {
  const bench = new Bench();
  bench.do('tick');
  assert.deepEqual(kinds(bench.wait(14_999)), []);
  assert.deepEqual(kinds(bench.wait(1)), ['drop', 'emit']);
  assert.equal(bench.machine.status, 'waiting');
});

test('messages are delivered in order, doubles are dropped, and positions count without being shown', () => {
  const bench = Bench.online('r');
  const frames = [live('r', 1), live('r', 1), { ...live('r', 2), type: 'position' }, live('r', 3), live('r', 2)];
  assert.deepEqual(frames.flatMap((frame) => offsets(bench.do('received', frame))), [1, 3]);
});

test('a hole is never delivered over: the room is joined again from the last message before it', () => {
  const bench = Bench.online('r');
  bench.do('received', live('r', 1));
  const repair = bench.do('received', live('r', 3));
  assert.deepEqual(offsets(repair), []);
  const [join] = sent(repair);
  assert.deepEqual(join.resume, { epoch: 'e', offset: 1, tag: 't1' });
  const reply = joined(join.id, 'r', { offset: 3, tag: 't3', recovered: true, messages: [live('r', 2), live('r', 3)] });
  const effects = bench.do('received', reply);
  assert.deepEqual(offsets(effects), [2, 3]);
  assert.deepEqual(emitted(effects, 'joined').map(({ recovered, missed }) => [recovered, missed]), [[true, 2]]);
  assert.deepEqual(offsets(bench.do('received', live('r', 4))), [4]);
});

test('a reply that leaves a hole is not believed either', () => {
  const bench = Bench.online('r');
  const [join] = sent(bench.do('received', live('r', 4)));
  const page = { offset: 4, tag: 't4', recovered: true, messages: [live('r', 1), live('r', 3), live('r', 4)] };
  const effects = bench.do('received', joined(join.id, 'r', page));
  assert.deepEqual(offsets(effects), [1]);
  assert.deepEqual(emitted(effects, 'joined'), []);
  assert.deepEqual(sent(bench.wait(2_000)).map(({ resume }) => resume), [{ epoch: 'e', offset: 1, tag: 't1' }]);
});

test('holes that come again and again are repaired more and more slowly', () => {
  const bench = Bench.online('r');
  const delays = [];
  for (let i = 0; i < 5; i++) {
    const began = bench.now;
    let [join] = sent(bench.do('received', live('r', 9)));
    for (let i = 0; !join && i < 300; i++) {
      [join] = sent(bench.wait(100));
      bench.do('received', { op: 'pong' });
    }
    assert.equal(join?.op, 'join');
    delays.push(bench.now - began);
    bench.do('received', joined(join.id, 'r', { recovered: true }));
  }
  assert.deepEqual(delays, [0, 2000, 4000, 8000, 16000]);
});

test('after a reconnect every room resumes, page by page, and is live after the last page', () => {
  const bench = Bench.online('r', 'q');
  bench.do('received', live('r', 1));
  bench.do('closed', 1006);
  assert.deepEqual(kinds(bench.wait(1000)), ['connect', 'emit']);
  const joins = sent(bench.do('received', welcome));
  assert.deepEqual(joins.map(({ room, resume }) => [room, resume]), [
    ['r', { epoch: 'e', offset: 1, tag: 't1' }],
    ['q', { epoch: 'e', offset: 0, tag: 't0' }],
  ]);
  const page = { offset: 3, tag: 't3', recovered: true, messages: [live('r', 2), live('r', 3)], more: true };
  const first = bench.do('received', joined(joins[0].id, 'r', page));
  assert.deepEqual(offsets(first), [2, 3]);
  assert.deepEqual(emitted(first, 'joined'), []);
  const [next] = sent(first);
  assert.deepEqual(next.resume, { epoch: 'e', offset: 3, tag: 't3' });
  const last = { offset: 4, tag: 't4', recovered: true, messages: [live('r', 4)] };
  const [done] = emitted(bench.do('received', joined(next.id, 'r', last)), 'joined');
  assert.deepEqual([done.recovered, done.missed], [true, 3]);
});

test('a log that cannot be resumed is told as a reset before anything of the new log', () => {
  const bench = Bench.online('r');
  bench.do('received', live('r', 1));
  bench.do('closed', 1006);
  bench.wait(1000);
  const [join] = sent(bench.do('received', welcome));
  const reply = { epoch: 'f', offset: 12, tag: 't12', recovered: false, messages: [live('r', 11), live('r', 12)] };
  const effects = bench.do('received', joined(join.id, 'r', reply));
  const room = effects.filter(([what, about]) => what === 'emit' && about === 'r').map(([, , type, detail]) => [type, detail.offset]);
  assert.deepEqual(room.slice(0, 3), [['reset', 12], ['message', 11], ['message', 12]]);
  assert.equal(emitted(effects, 'joined')[0].recovered, false);
  assert.deepEqual(offsets(bench.do('received', live('r', 13))), [13]);
});

test('a reset sets the position: what follows belongs to the new epoch', () => {
  const bench = Bench.online('r');
  bench.do('received', live('r', 1));
  const reset = { op: 'broadcast', type: 'reset', room: 'r', epoch: 'f', offset: 5, tag: 'x' };
  assert.deepEqual(emitted(bench.do('received', reset), 'reset'), [reset]);
  assert.deepEqual(offsets(bench.do('received', live('r', 2))), []);
  assert.deepEqual(offsets(bench.do('received', live('r', 6))), [6]);
  bench.do('closed', 1006);
  bench.wait(1000);
  assert.deepEqual(sent(bench.do('received', welcome))[0].resume, { epoch: 'f', offset: 6, tag: 't6' });
});

test('a message without an ack is sent again after a reconnect with the same key, once the room is live', () => {
  const bench = Bench.online('r');
  const [first] = sent(bench.message('r', 'hello'));
  bench.do('closed', 1006);
  bench.wait(1000);
  const [join] = sent(bench.do('received', welcome));
  assert.equal(join.op, 'join');
  const [again] = sent(bench.do('received', joined(join.id, 'r', { recovered: true })));
  assert.deepEqual(again, first);
  const ack = { op: 'reply', id: first.id, ok: true, room: 'r', epoch: 'e', offset: 1, tag: 't1' };
  assert.deepEqual(settled(bench.do('received', ack)).map(({ id, error, value }) => [id, error, value.offset]), [[1, null, 1]]);
});

test('a message that waited longer for its ack than the node knows keys is not sent again: nobody knows', () => {
  const bench = Bench.online('r');
  bench.message('r', 'hello');
  bench.do('closed', 1006);
  bench.now += 100_001;
  const effects = bench.do('closed', 1006);
  assert.deepEqual(settled(effects).map(({ error }) => error.code), ['timeout']);
  bench.wait(60_000);
  const [join] = sent(bench.do('received', welcome));
  assert.deepEqual(sent(bench.do('received', joined(join.id, 'r', { recovered: true }))), []);
});

test('what a node knows of a key is counted from the first time it was sent', () => {
  const bench = Bench.online('r');
  bench.message('r', 'hello');
  bench.now += 60_000;
  bench.do('received', { op: 'reply', id: 1, ok: false, code: 'timeout', message: '' });
  assert.deepEqual(sent(bench.wait(2_000)).filter(({ op }) => op === 'message').map(({ key }) => key), ['k1']);
  bench.now += 39_000;
  assert.deepEqual(settled(bench.do('tick')).map(({ error }) => error.code), ['timeout']);
});

test('a node that gives another session knows no keys of this one: what was sent is not sent again', () => {
  const bench = Bench.online('r');
  bench.message('r', 'sent');
  bench.do('closed', 1006);
  bench.message('r', 'not sent yet');
  bench.wait(1_000);
  const effects = bench.do('received', { ...welcome, session: 's2' });
  assert.deepEqual(settled(effects).map(({ id, error }) => [id, error.code]), [[1, 'timeout']]);
  const [join] = sent(effects);
  assert.deepEqual(sent(bench.do('received', joined(join.id, 'r', { recovered: true }))).map(({ data }) => data), ['not sent yet']);
});

test('messages written while offline keep their order and are sent when the room is live', () => {
  const bench = new Bench();
  bench.do('tick');
  bench.do('join', 'r', {});
  bench.message('r', 'one');
  bench.message('r', 'two');
  const [join] = sent(bench.do('received', welcome));
  assert.deepEqual(sent(bench.do('received', joined(join.id, 'r'))).map(({ data }) => data), ['one', 'two']);
});

test('when the node cannot reach Redis, messages are kept, in order, and sent as soon as it can', () => {
  const bench = Bench.online('r');
  bench.message('r', 'one');
  bench.message('r', 'two');
  for (const id of [1, 2]) {
    assert.deepEqual(kinds(bench.do('received', { op: 'reply', id, ok: false, code: 'unavailable', message: '' })), []);
  }
  assert.deepEqual(sent(bench.do('received', { op: 'restored' })).map(({ data, key }) => [data, key]), [['one', 'k1'], ['two', 'k2']]);
});

test('what must be sent again goes before what was written later', () => {
  const bench = Bench.online('r');
  for (const data of ['one', 'two']) bench.message('r', data);
  const failed = (id) => bench.do('received', { op: 'reply', id, ok: false, code: 'timeout', message: '' });
  failed(1);
  bench.message('r', 'three');
  failed(2);
  assert.deepEqual(sent(bench.wait(2_000)).map(({ data }) => data), ['one', 'two', 'three']);
});

test('a refused message rejects with the code, and is not sent again', () => {
  const bench = Bench.online('r');
  bench.message('r', 'x');
  const [{ error }] = settled(bench.do('received', { op: 'reply', id: 1, ok: false, code: 'forbidden', message: 'no' }));
  assert.deepEqual([error.code, error.message], ['forbidden', 'no']);
  assert.deepEqual(sent(bench.wait(9_000)), []);
});

test('a refused join rejects what waited for the room; one that may succeed later is tried again', () => {
  const bench = Bench.online();
  const [join] = sent(bench.do('join', 'admin', {}));
  bench.message('admin', 'x');
  const refused = bench.do('received', { op: 'reply', id: join.id, ok: false, code: 'unauthorized', message: 'no' });
  assert.deepEqual(settled(refused).map(({ id, error }) => [id, error.code]), [['admin', 'unauthorized'], [1, 'unauthorized']]);
  assert.deepEqual(emitted(refused, 'error').map(({ code }) => code), ['unauthorized']);
  assert.deepEqual(sent(bench.wait(5_000)), []);

  const [later] = sent(bench.do('join', 'r', {}));
  const busy = bench.do('received', { op: 'reply', id: later.id, ok: false, code: 'unavailable', message: '' });
  assert.deepEqual(kinds(busy), []);
  assert.deepEqual(sent(bench.wait(2_000)).map(({ op, room }) => [op, room]), [['join', 'r']]);
});

test('back-off doubles up to 30 s, is fully jittered, and starts anew after a connection that held', () => {
  const bench = new Bench();
  const delay = (code = 1006) => emitted(bench.do('closed', code), 'status')[0].retry_in_ms;
  bench.do('tick');
  const delays = Array.from({ length: 7 }, () => {
    const ms = delay();
    bench.wait(ms);
    return ms;
  });
  assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
  bench.do('received', welcome);
  assert.equal(delay(), 30000, 'a connection that is closed at once proves nothing');
  bench.wait(30000);
  bench.do('received', welcome);
  bench.now += 5_000;
  bench.do('received', { op: 'pong' });
  bench.now += 5_000;
  assert.equal(delay(), 1000);

  const jittered = new Bench({ random: () => 0.25 });
  jittered.do('tick');
  assert.equal(emitted(jittered.do('closed', 1006), 'status')[0].retry_in_ms, 250);
});

test('a drain names its own delay, counted from the close', () => {
  const bench = Bench.online('r');
  assert.equal(emitted(bench.do('received', { op: 'drain', retry_after_ms: 1730 }), 'status')[0].status, 'draining');
  bench.now += 50;
  assert.equal(emitted(bench.do('closed', 1012), 'status')[0].retry_in_ms, 1730);
});

test('who is told to back off comes back no sooner', () => {
  const bench = Bench.online();
  assert.deepEqual(emitted(bench.do('received', { op: 'backoff', retry_after_ms: 31000 }), 'status'), []);
  assert.equal(emitted(bench.do('closed', 4010), 'status')[0].retry_in_ms, 31000);
});

test('an overloaded node is not asked again soon', () => {
  for (const code of [1013, 4009, 4010]) {
    const bench = Bench.online();
    assert.equal(emitted(bench.do('closed', code), 'status')[0].retry_in_ms, 8000, String(code));
  }
});

test('close codes that ask for another program or forbid it end the client', () => {
  for (const code of [1002, 1003, 1007, 1008, 1009, 4002, 4004]) {
    const bench = Bench.online('r');
    bench.message('r', 'x');
    const effects = bench.do('closed', code, 'why');
    assert.deepEqual(emitted(effects, 'status'), [{ status: 'closed', code, reason: 'why' }]);
    assert.deepEqual(settled(effects).map(({ error }) => error.code), ['closed', 'closed']);
    assert.equal(bench.machine.due, Infinity);
  }
  for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 4003, 4008]) {
    const bench = Bench.online('r');
    bench.do('closed', code);
    assert.equal(bench.machine.status, 'waiting', String(code));
  }
});

test('an offset beyond what a number can count is told once', () => {
  const bench = new Bench();
  bench.do('tick');
  bench.do('received', welcome);
  const top = 2 ** 53; // the protocol ends one before
  assert.deepEqual(offsets(bench.join('r', {}, { offset: top, messages: [live('r', top), live('r', top)] })), [top]);
});

test('refused credentials: a new token is tried, three times at most; without one there is no point', () => {
  const bench = new Bench();
  bench.do('tick');
  for (let i = 0; i < 2; i++) {
    bench.do('closed', 4001);
    assert.equal(bench.machine.status, 'waiting');
    assert.equal(kinds(bench.wait(4_000))[0], 'connect');
  }
  bench.do('closed', 4001);
  assert.equal(bench.machine.status, 'closed');

  const welcomed = Bench.online();
  for (let i = 0; i < 9; i++) {
    welcomed.do('closed', 4001);
    assert.equal(welcomed.machine.status, 'waiting', 'the token was good once: the next one may be again');
    welcomed.wait(30_000);
  }

  const fixed = new Bench({ renewable: false });
  fixed.do('tick');
  fixed.do('closed', 4001);
  assert.equal(fixed.machine.status, 'closed');
});

test('a token that ends is renewed on the open connection', () => {
  const bench = Bench.online();
  assert.deepEqual(bench.do('received', { op: 'auth_expiring', in_s: 30 }), [['token']]);
  assert.deepEqual(sent(bench.do('renew', 'abc')), [{ op: 'auth', token: 'abc' }]);
  const fixed = new Bench({ renewable: false });
  fixed.do('tick');
  fixed.do('received', welcome);
  assert.deepEqual(fixed.do('received', { op: 'auth_expiring', in_s: 30 }), [], 'the same one again would change nothing');
});

test('a silent link is asked after the ping interval and given up 5 s later', () => {
  const bench = Bench.online();
  assert.deepEqual(sent(bench.wait(10_000)), [{ op: 'ping' }]);
  bench.do('received', { op: 'pong' });
  assert.deepEqual(sent(bench.wait(10_000)), [{ op: 'ping' }]);
  assert.deepEqual(kinds(bench.wait(4_999)), []);
  assert.deepEqual(kinds(bench.wait(1)), ['drop', 'emit']);
  assert.equal(bench.machine.status, 'waiting');
});

test('when the network or the page comes back, a link is asked at once and a wait is cut short', () => {
  const bench = Bench.online();
  assert.deepEqual(sent(bench.do('nudge')), [{ op: 'ping' }]);
  assert.deepEqual(sent(bench.do('nudge')), [], 'once is enough');
  for (let i = 0; i < 6; i++) {
    bench.do('closed', 1006);
    if (i < 5) bench.wait(30_000);
  }
  bench.do('nudge');
  assert.deepEqual(kinds(bench.wait(1_000)), ['connect', 'emit']);
});

test('after leaving, nothing of the room arrives, and what was not sent is rejected', () => {
  const bench = Bench.online('r');
  bench.do('closed', 1006);
  bench.message('r', 'x');
  assert.deepEqual(settled(bench.do('leave', 'r')).map(({ id, error }) => [id, error.code]), [['r', 'left'], [1, 'left']]);
  bench.wait(1_000);
  assert.deepEqual(sent(bench.do('received', welcome)), []);

  const online = Bench.online('r');
  assert.deepEqual(sent(online.do('leave', 'r')), [{ op: 'leave', room: 'r' }]);
  assert.deepEqual(kinds(online.do('received', live('r', 1))), []);
});

test('what fails without anybody waiting for it is told to the client; the room goes on', () => {
  const bench = Bench.online('r');
  const error = { op: 'broadcast', type: 'error', room: 'r', code: 'unavailable', message: 'later' };
  assert.deepEqual(bench.do('received', error), [['emit', null, 'error', error]]);
  assert.deepEqual(offsets(bench.do('received', live('r', 1))), [1]);
});

test('an answer to an earlier join of the same room is ignored', () => {
  const bench = Bench.online();
  const [old] = sent(bench.do('join', 'r', {}));
  bench.do('leave', 'r');
  const [join] = sent(bench.do('join', 'r', {}));
  assert.deepEqual(kinds(bench.do('received', joined(old.id, 'r'))), []);
  assert.equal(emitted(bench.do('received', joined(join.id, 'r')), 'joined').length, 1);
});

test('typing goes out once in 3 s while it lasts, and a message ends it', () => {
  const bench = Bench.online('r');
  const typing = (on) => sent(bench.do('type', 'r', on)).map((frame) => frame.typing);
  assert.deepEqual([typing(true), typing(true)], [[true], []]);
  bench.now += 3_000;
  assert.deepEqual([typing(true), typing(false), typing(false)], [[true], [false], []]);
  typing(true);
  bench.message('r', 'x');
  assert.deepEqual(typing(true), [true]);
});

test('read marks are gathered, only grow, and are told again after a reconnect', () => {
  const bench = Bench.online('r');
  const marks = (effects) => sent(effects).filter(({ op }) => op === 'receipt').map((frame) => frame.message_id);
  assert.deepEqual(marks(bench.do('read', 'r', 3)), [3]);
  assert.deepEqual([4, 6, 5].flatMap((id) => marks(bench.do('read', 'r', id))), []);
  assert.deepEqual(marks(bench.wait(500)), [6]);
  bench.do('closed', 1006);
  bench.wait(1_000);
  const [join] = sent(bench.do('received', welcome));
  assert.deepEqual(marks(bench.do('received', joined(join.id, 'r', { recovered: true }))), [6]);
});

test('a flood keeps below the limit of the node and loses nothing', () => {
  const bench = Bench.online('r');
  const times = [];
  const count = (effects) => times.push(...sent(effects).filter(({ op }) => op === 'message').map(() => bench.now));
  for (let i = 0; i < 300; i++) count(bench.message('r', i));
  while (times.length < 300) {
    assert.ok(bench.now < 60_000, 'it does not end');
    count(bench.wait(5));
    count(bench.do('received', { op: 'pong' }));
  }
  times.forEach((time, i) => {
    const limit = 100 + ((time - times[0]) / 1000) * 50;
    assert.ok(i < limit, `message ${i} at ${time} ms is over the limit`);
  });
});

test('requests that wait are bounded in bytes, and one over the node\'s limit is refused here', () => {
  const bench = Bench.online('r');
  const [{ error }] = settled(bench.message('r', 'x'.repeat(65_536)));
  assert.equal(error.code, 'too_large');
  bench.do('closed', 1006);
  const codes = [];
  for (let i = 0; i < 20; i++) codes.push(...settled(bench.message('r', 'x'.repeat(60_000))).map((s) => s.error.code));
  assert.deepEqual(codes, ['full', 'full', 'full']);
});

test('presence lists answer the request that asked; others replace the roster', () => {
  const bench = Bench.online('r');
  const list = (users) => ({ op: 'broadcast', type: 'presence_list', room: 'r', count: users.length, users });
  bench.do('ask', { id: 9, op: 'get_presence', room: 'r', text: '{}', size: 2 });
  assert.deepEqual(kinds(bench.do('received', list([1, 2]))), []);
  const [{ id, value }] = settled(bench.do('received', { op: 'reply', id: 9, ok: true }));
  assert.deepEqual([id, value.users], [9, [1, 2]]);
  assert.deepEqual(emitted(bench.do('received', list([3])), 'members').map(({ users }) => users), [[3]]);
});

test('closing for good rejects what waits and asks for no timer', () => {
  const bench = Bench.online('r');
  bench.message('r', 'x');
  const effects = bench.do('end');
  assert.deepEqual(settled(effects).map(({ error }) => error.code), ['closed', 'closed']);
  assert.equal(bench.machine.due, Infinity);
  assert.deepEqual(settled(bench.message('r', 'y')).map(({ error }) => error.code), ['closed']);
  assert.deepEqual(kinds(bench.do('closed', 1006)), []);
});

const put = { op: 'broadcast', type: 'joined', room: 'q', epoch: 'e', offset: 4, tag: 't4' };

test('put into a room by the application: live at once, and joined by the client itself after a reconnect', () => {
  const bench = Bench.online();
  assert.deepEqual(bench.do('received', put), [['emit', null, 'joined', put]]);
  assert.deepEqual(offsets(bench.do('received', live('q', 5))), [5]);
  assert.deepEqual(sent(bench.message('q', 'x')).map(({ room }) => room), ['q']);
  bench.do('closed', 1006);
  bench.wait(1_000);
  const [join] = sent(bench.do('received', welcome));
  assert.deepEqual([join.room, join.resume], ['q', { epoch: 'e', offset: 5, tag: 't5' }]);
  const page = { offset: 6, tag: 't6', recovered: true, messages: [live('q', 6)] };
  const effects = bench.do('received', joined(join.id, 'q', page));
  assert.deepEqual(emitted(effects, 'joined').map(({ recovered, missed }) => [recovered, missed]), [[true, 1]]);
});

test('put into a room one is in, or is joining: the own join says more', () => {
  const bench = Bench.online('q');
  assert.deepEqual(bench.do('received', put), []);
  assert.deepEqual(offsets(bench.do('received', live('q', 1))), [1]);
  const early = Bench.online();
  const [join] = sent(early.do('join', 'q', {}));
  assert.deepEqual(early.do('received', put), []);
  assert.equal(emitted(early.do('received', joined(join.id, 'q')), 'joined').length, 1);
});

test('taken out of a room by the application: the room ends, and is not joined again', () => {
  const bench = Bench.online('r');
  bench.message('r', 'sent'); // its ack may still come
  const effects = bench.do('received', { op: 'broadcast', type: 'left', room: 'r' });
  assert.deepEqual(emitted(effects).map(({ type, room }) => [type, room]), [['left', 'r']]);
  assert.deepEqual(offsets(bench.do('received', live('r', 1))), []);
  const [{ id, error }] = settled(bench.message('r', 'y'));
  assert.deepEqual([id, error.code], [2, 'left']);
  const ack = bench.do('received', { op: 'reply', id: 1, ok: true, room: 'r', epoch: 'e', offset: 1, tag: 't1' });
  assert.deepEqual(settled(ack).map(({ id, error }) => [id, error]), [[1, null]]);
  bench.do('closed', 1006);
  bench.wait(1_000);
  assert.deepEqual(sent(bench.do('received', welcome)), []);
});

test('taken out while joining: what the server says to a later join counts', () => {
  const bench = Bench.online();
  const [first] = sent(bench.do('join', 'r', {}));
  const [second] = sent(bench.do('received', { op: 'broadcast', type: 'left', room: 'r' }));
  assert.deepEqual([second.op, second.room], ['join', 'r']);
  assert.deepEqual(emitted(bench.do('received', joined(first.id, 'r'))), []);
  assert.equal(emitted(bench.do('received', joined(second.id, 'r')), 'joined').length, 1);
});

test('what may be in the log when its room ends is not said to be refused', () => {
  const bench = Bench.online('r');
  bench.message('r', 'perhaps');
  bench.do('closed', 1006);
  bench.message('r', 'not sent');
  bench.wait(1_000);
  const [join] = sent(bench.do('received', welcome));
  const refused = bench.do('received', { op: 'reply', id: join.id, ok: false, code: 'forbidden', message: 'no' });
  assert.deepEqual(settled(refused).map(({ id, error }) => [id, error.code]), [['r', 'forbidden'], [1, 'timeout'], [2, 'forbidden']]);
});

test('the machine has no clock, no timer, no socket and no page', () => {
  const outside = /\b(performance|Date|setTimeout|queueMicrotask|WebSocket|document|globalThis|location|navigator|fetch|await)\b/;
  assert.equal(outside.exec(Machine.toString())?.[0], undefined);
});
