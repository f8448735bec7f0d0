// Two rooms on one connection, spoken without a client library: what the protocol looks like from a browser.
const user = new URLSearchParams(location.search).get('user');
const url = new URL('/ws', location.href);
url.protocol = url.protocol.replace('http', 'ws');
if (user) url.searchParams.set('user', user);
const socket = new WebSocket(url);
const status = document.querySelector('#status');
const lists = new Map();

for (const room of ['lobby', 'kitchen']) {
  const section = document.createElement('section');
  const heading = section.appendChild(document.createElement('h2'));
  heading.textContent = room;
  lists.set(room, section.appendChild(document.createElement('ol')));
  const form = section.appendChild(document.createElement('form'));
  const input = form.appendChild(document.createElement('input'));
  input.ariaLabel = `Message to ${room}`;
  form.onsubmit = (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    socket.send(JSON.stringify({ op: 'message', room, data: { text: input.value } }));
    input.value = '';
  };
  document.querySelector('#rooms').append(section);
}

const show = ({ room, user_id, data }) => {
  const item = lists.get(room).appendChild(document.createElement('li'));
  item.textContent = `${user_id ?? 'somebody'}: ${data?.text ?? JSON.stringify(data)}`;
};

socket.onopen = () => {
  status.textContent = `connected as ${user ?? 'nobody: add ?user=alice'}`;
  for (const room of lists.keys()) socket.send(JSON.stringify({ op: 'join', id: room, room, history: 50 }));
};
socket.onclose = ({ code, reason }) => { status.textContent = `closed: ${code} ${reason}`; };
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.op === 'reply' && frame.messages) frame.messages.forEach(show);
  if (frame.type === 'message') show(frame);
};
