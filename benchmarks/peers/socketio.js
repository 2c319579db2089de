// socket.io: one event, emitted to everybody.
const { createServer } = require("http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http);
io.on("connection", (socket) => socket.on("message", (text) => io.emit("message", text)));
http.listen(Number(process.argv[2]), "127.0.0.1", 4096);
