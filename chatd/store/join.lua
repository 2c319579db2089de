-- Enter a connection among those present in a room, and announce it if it is new.
--
-- KEYS  1 present  hash: connection id -> "<lease>\0<user as JSON>\0<client info as JSON>"
--       2 feed     sharded channel of the room
-- ARGV  1 client       connection id
--       2 value        as in the hash
--       3 info         client info as JSON
--       4 announce_to  above this many present nothing is announced; -1: never announce
-- Returns 1 when the connection was not there before.

local fresh = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if fresh == 1 and redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[4]) then
  redis.call('SPUBLISH', KEYS[2], 'j\n' .. ARGV[3])
end
return fresh
