-- Take a connection out of the registry.
--
-- KEYS  1 shard  as in register.lua
-- ARGV  1 client  "<user as JSON>\0<connection>\0"
--       2 user    "<user as JSON>\0"
-- Returns {last, ms}: 1 if it was there and its user has no other, and the Unix ms of now.

local gone = redis.call('ZREMRANGEBYLEX', KEYS[1], '[' .. ARGV[1], '(' .. ARGV[1] .. '\255')
local left = redis.call('ZLEXCOUNT', KEYS[1], '[' .. ARGV[2], '(' .. ARGV[2] .. '\255')
local clock = redis.call('TIME')
return {gone > 0 and left == 0 and 1 or 0, clock[1] * 1000 + math.floor(clock[2] / 1000)}
