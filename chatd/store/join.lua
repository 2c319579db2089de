-- Enter a connection among those present in a room, and announce its user if it is the user's first.
--
-- KEYS  1 present  sorted set, all scores 0: "<user as JSON>\0<connection>\0<lease>\0<client info as JSON>"
--       2 feed     sharded channel of the room
--       3 leaving  hash: user as JSON -> "<Unix ms>\0<client info as JSON>": when it will be announced that the user left
--       4 outbox   stream, see delivered.lua: what the application is to be told
-- ARGV  1 user         as JSON
--       2 client       "<connection>\0"
--       3 lease        "<lease>\0"
--       4 info         client info as JSON
--       5 announce_to  with more present than this nothing is announced; -1: never announce
--       6 told         how many entries the outbox may have; 0: the application is not told of this
-- Returns 1 when it was announced.

local user = ARGV[1] .. '\0'
local one = user .. ARGV[2]
local others = redis.call('ZLEXCOUNT', KEYS[1], '[' .. user, '(' .. user .. '\255')
redis.call('ZREMRANGEBYLEX', KEYS[1], '[' .. one, '(' .. one .. '\255')
redis.call('ZADD', KEYS[1], 0, one .. ARGV[3] .. ARGV[4])
-- Whoever comes back before it was told that they left was never away.
if others > 0 or redis.call('HDEL', KEYS[3], ARGV[1]) == 1 then return 0 end
if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[5]) then return 0 end
redis.call('SPUBLISH', KEYS[2], 'j\n' .. ARGV[4])
if ARGV[6] ~= '0' then
  local clock = redis.call('TIME')
  local stamp = string.format('%d', clock[1] * 1000 + math.floor(clock[2] / 1000))
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[6], '*', 'e', 'join', 'b', ARGV[4], 't', stamp)
end
return 1
