-- Note that a user is about to become a member of a room, or to block another user, unless he has as many as may be.
--
-- KEYS  1 noted  set: the rooms that a user is a member of, or the users whom he blocks
-- ARGV  1 room or user
--       2 most   of them that may be in it; 0: any number
-- Returns 1 noted, 0 it was already, -1 refused.

if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end
local most = tonumber(ARGV[2])
if most > 0 and redis.call('SCARD', KEYS[1]) >= most then return -1 end
return redis.call('SADD', KEYS[1], ARGV[1])
