// Publishes with the Redis emitter, as Socket.IO documents it for other processes: socketio_bridge.mjs REDIS_URL
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const [url] = process.argv.slice(2);
const client = createClient({ url });
const offered = client.duplicate();
await Promise.all([client.connect(), offered.connect()]);

const io = new Emitter(client);
await offered.subscribe("bench", (text) => io.to("bench").emit("message", JSON.parse(text)));
