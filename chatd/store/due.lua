-- The rooms in which leaves are to be announced now; others look at them again only if we have not done it by then.
--
-- KEYS  1 due  sorted set: room -> Unix ms at which leaves are to be announced there
-- ARGV  1 retry_ms  until then it is ours to do
--       2 most      at most this many rooms
-- Returns {until, room, room, ...}, the first in Unix ms.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local retry_at = string.format('%d', now + ARGV[1])
local reply = {retry_at}
for _, room in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], retry_at, room)
  reply[#reply + 1] = room
end
return reply
