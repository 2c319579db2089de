"""chatd: the chat server you pip install.

The map of the house. A message comes in through transport, wire, chat and rules to the store; the store's feed brings
it back to every node, and hub, cast and outlets bring it out:

    in     socket > transport > wire.decode > chat (a row) > rules > store.publish
    out    store.feed > hub (whose turn it is) > cast (a frame, once) > outlets > socket
    admin  shell > cli > office > control > store.request > node > respond > hub, session

    model, errors     values: commands and results; refusals and goodbyes
    methods, events   what can be asked by `rpc`; what publications are about
    settings          every option, once
    names, rules      what may be called what, who may do what; pure
    frames, wire      bytes of WebSocket, bytes of the two doors' languages
    measures, words   what operators have put in force, and what rooms do not take; pure
    auth              tokens to identities; signatures
    session, hub      who is here, and in which room
    room, cast        a room's readers here; a round of fan-out: who gets which bytes
    outlets           one frame to many sockets
    chat              what each command does
    control, respond  what an operator may ask; what a node answers
    office, steward   what is done to the cluster, and to rooms, whoever does it
    api, hooks        what the application's back end may ask, and what it is told and asked itself
    reaper, sweep     the quiet, the expired and the dead; what rooms keep no longer
    node, drain       one daemon: owns every task; how it empties itself
    membership        a node's lease in the cluster, and what it must know to hold it
    basic             user and password of an address, as a header
    errands, batched  short tasks that nobody waits for; what is many, some at a time
    store             Redis or Valkey; the only place that knows redis-py
    transport, web    the socket, the doors
    telemetry, cli    what operators see; journal: the log in systemd's
"""

__version__ = "0.1.0"
