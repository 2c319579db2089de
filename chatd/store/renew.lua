-- Renew a lease, if it has not ended: a node that was away too long must learn that others may have buried it.
--
-- KEYS  1 leases, 2 nodes   as in enroll.lua
-- ARGV  1 lease, 2 ttl_ms, 3 info
-- Returns 1 renewed, 0 it had ended.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) < now then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
