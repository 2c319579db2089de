"""Where people and machines come in over HTTP: Starlette routes, and the uvicorn server that holds the sockets.

app       the routes
doors     the two WebSocket doors: who may shake hands; then the socket is the session's
streams   the SDK door over plain HTTP
origin    where somebody comes from: address, origin, token; pure
api       POST /api/<method>
body      what a request brings, and no more of it than may come
health    /livez, /readyz, /metrics
server    uvicorn, opened and closed as the node says
sockets   what it listens on
tls       certificates
page.html the chat page
"""
