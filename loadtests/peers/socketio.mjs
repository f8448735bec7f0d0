// Socket.IO with its Redis adapter: socketio.mjs PORT REDIS_URL
import { createServer } from "node:http";

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, url] = process.argv.slice(2);
const publisher = createClient({ url });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, { adapter: createAdapter(publisher, subscriber), serveClient: false, transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.on("join", (room, done) => {
    socket.join(room);
    done(room);
  });
});
http.listen(Number(port), "127.0.0.1");
