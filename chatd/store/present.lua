-- Everybody present in a room, unless it is too many.
--
-- KEYS  1 present   as in join.lua
-- ARGV  1 most  -1: any number
-- Returns the members of the set; or, if they are more, how many they are.

local count, most = redis.call('ZCARD', KEYS[1]), tonumber(ARGV[1])
if most >= 0 and count > most then return count end
return redis.call('ZRANGE', KEYS[1], 0, -1)
