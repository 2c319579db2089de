-- Give a room a record, and an owner.
--
-- KEYS  1 room, 2 members, 3 meta   as in append.lua and log.lua
--       4 present                   as in join.lua
-- ARGV  1 by      who creates it, for the record
--       2 owner   becomes its owner; '' for nobody
--       3 public  0 or 1
--       4 topic   '' for none
--       5 unused  1: not where something was said or somebody is present, as that would be taking over others' room
--       6 ...     key, value, key, value, ...: fields of the record
-- Returns 1, or 0 where there is such a room.

if redis.call('HEXISTS', KEYS[1], 'public') == 1 then return 0 end
if ARGV[5] == '1' then
  local said = tonumber(redis.call('HGET', KEYS[3], 'offset') or 0)
  if said > 0 or redis.call('EXISTS', KEYS[4]) == 1 then return 0 end
end
local clock = redis.call('TIME')
local now = string.format('%d', clock[1] * 1000 + math.floor(clock[2] / 1000))
redis.call('HSET', KEYS[1], 'public', ARGV[3], 'by', ARGV[1], 'created', now)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'topic', ARGV[4]) end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('DEL', KEYS[2])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[2], '4 0 ' .. now .. ' ') end
return 1
