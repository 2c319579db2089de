"""python-socketio on uvicorn: one event, emitted to everybody."""

import socketio

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")
app = socketio.ASGIApp(server)


@server.event
async def message(sid: str, text: str) -> None:
    await server.emit("message", text)
