-- Begin a lease: from now on the node behind it counts as alive.
--
-- KEYS  1 leases  sorted set: lease -> end, Unix ms by the store's clock
--       2 nodes   hash: lease -> what the node says of itself, JSON
-- ARGV  1 lease
--       2 ttl_ms
--       3 info    JSON
-- Returns 1.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
