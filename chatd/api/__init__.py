"""What the application's back end may ask of chatd: POST /api/<method>, whatever carries it.

Who asks is known by a key, which says what it may ask; a request then goes the way that a client's or an operator's
goes: to chat's functions, or to the office. Nothing is done here a second time.

shapes      what Centrifugo's server API and ours have in common: requests and results as dataclasses
shared      what those do
operators   what an operator does to people, by HTTP
duties      what else an operator looks after
desk        requests come in: the table of all methods, keys, acting as somebody, batches
openapi     the table as an OpenAPI document
manual      the reference of all that programs meet

HTTP itself is web's.
"""
