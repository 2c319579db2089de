-- Enter a connection in the cluster's registry, unless its user has as many as may be.
--
-- KEYS  1 shard  sorted set, all scores 0, members "<user as JSON>\0<connection>\0<lease>\0<details as JSON>"
-- ARGV  1 member  as in the set
--       2 user    "<user as JSON>\0"
--       3 limit   connections a user may have in the cluster; 0: any number
-- Returns 1 entered, 0 refused.

local limit = tonumber(ARGV[3])
if limit > 0 and redis.call('ZLEXCOUNT', KEYS[1], '[' .. ARGV[2], '(' .. ARGV[2] .. '\255') >= limit then
  return 0
end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
