"""An application of FastAPI: the pages of ``common``, and a WebSocket that echoes."""

from common import answer
from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.websocket("/socket")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_bytes(await socket.receive_bytes())
    except WebSocketDisconnect:
        pass


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def page(path: str, request: Request) -> Response:
    body = answer(request.method, f"/{path}", await request.body())
    return Response(status_code=404) if body is None else Response(body, media_type="application/octet-stream")
