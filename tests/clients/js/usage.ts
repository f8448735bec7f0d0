// What a program in TypeScript sees of the client. Compiled by test_js.py, never run.
import { roomcast, RoomcastError, socketUrl, type Room } from 'roomcast';

const rc = roomcast('/ws', { token: async () => 'jwt' });
const room: Room = rc.join('lobby', { presence: true, history: 50 });
const off: () => void = room.on('message', ({ user_id, data, offset }) => {
  const id: number = offset;
  console.log(user_id === null, data.text, id);
});
room.on('joined', ({ recovered, missed }) => console.log(recovered === false, missed + 1));
room.on('reset', ({ epoch }) => epoch.length);
rc.on('status', ({ status, retry_in_ms }) => console.log(status === 'draining', retry_in_ms));
rc.on('direct', ({ data }) => data);
rc.on('joined', ({ room, offset }) => rc.join(room).on('left', (left) => console.log(left.room, offset + 1)));

async function use() {
  await room.ready;
  const position = await room.send({ text: 'hello' }, { echo: false });
  room.read(position.offset);
  room.typing();
  const [first] = await room.history({ before: position.offset, limit: 10 });
  const { count } = await room.members();
  const users = await rc.presence();
  off();
  room.leave();
  rc.close();
  return [first.ts, count, users.length, socketUrl('/chat').href, new RoomcastError('left').code];
}
use();

// @ts-expect-error there is no such event
room.on('massage', () => {});
// @ts-expect-error an offset is a number
room.read('57');
