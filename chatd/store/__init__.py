"""The store: Redis or Valkey, always. Here, and only here, redis-py is known.

keys          the names of everything that is kept
errors        what can go wrong, in chatd's words
connect       from a URL to the servers behind it: standalone, Sentinel, Cluster
conversation  requests and replies on a connection that redis-py has opened
exchange      commands for replies on one connection, by their deadline
line          one connection that only listens, and is made anew
scripts       many callers, one pipeline
*.lua         what must happen as one step; KEYS, ARGV and the reply stand at the head of each
redis         Store: registry, leases, control, in chatd's words; and its parts:
messages      what is said in rooms
changes       what becomes of that: edits, deletions, reactions, and how it stands now
measures      bans, mutes, the lockdown
rooms         rooms that somebody created, and their members
presence      who is in which room, and who was last seen when
cursors       how far everybody has read
outbox        what the application is still to be told
reports       what users have reported
audit         what operators have done
retention     rooms kept as short as their rules say
traces        what there is of somebody or of a room, for export and forgetting
tail          how one room's feed stays in order and without a gap; pure
feed          Feed: one subscription per node, gaps filled from history
embedded      a private Valkey for those who have none; tether ties its life to ours
"""
