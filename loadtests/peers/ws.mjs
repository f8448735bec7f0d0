// ws with a Redis subscriber: the loop over all clients that its documentation shows. ws.mjs PORT REDIS_URL
import { createClient } from "redis";
import { WebSocket, WebSocketServer } from "ws";

const [port, url] = process.argv.slice(2);
const subscriber = createClient({ url });
await subscriber.connect();

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
server.on("connection", (socket) => {
  socket.on("error", console.error);
  socket.send("joined");
});
await subscriber.subscribe("bench", (text) => {
  for (const client of server.clients) {
    if (client.readyState === WebSocket.OPEN) client.send(text);
  }
});
