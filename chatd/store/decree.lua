-- Write down a measure, its end, or the lockdown's level, and number the change.
--
-- KEYS  1 measures, 2 hits, 3 measured   as in measures.lua
-- ARGV  1 field  id of the measure, or the field of the level
--       2 value  what stands there from now on; '' takes it away
-- Returns {number of the change, whether something stood there before}. Where nothing is to be taken away nothing
-- changes, and the number is the latest change's.

local before = redis.call('HEXISTS', KEYS[1], ARGV[1])
if ARGV[2] == '' and before == 0 then return {tonumber(redis.call('GET', KEYS[3]) or 0), 0} end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('HDEL', KEYS[2], ARGV[1])
return {redis.call('INCR', KEYS[3]), before}
