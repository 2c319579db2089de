-- Forget a lease: its node has stopped, or has been cleared up after.
--
-- KEYS  1 leases, 2 nodes   as in enroll.lua
--       3 claims            as in claim.lua
-- ARGV  1 lease
-- Returns 1.

redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
