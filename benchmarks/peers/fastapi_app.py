"""FastAPI on uvicorn: a list of sockets and a loop that awaits each, as its tutorial has it."""

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
everybody: list[WebSocket] = []


async def broadcast(text: str) -> None:
    for websocket in everybody:
        await websocket.send_text(text)


@app.websocket("/")
async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    everybody.append(websocket)
    try:
        while True:
            await broadcast(await websocket.receive_text())
    except WebSocketDisconnect:
        everybody.remove(websocket)
