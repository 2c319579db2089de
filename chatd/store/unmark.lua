-- Forget that a room's outbox is to be looked at, unless it was marked anew meanwhile.
--
-- KEYS  1 hooked  hash: room -> how often it was marked
-- ARGV  1 room
--       2 state  of the mark when the outbox was found empty
-- Returns 1 when it was forgotten.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
