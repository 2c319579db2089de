-- Take connections out of those present in a room, and announce each that was there, once.
--
-- KEYS  1 present, 2 feed   as in join.lua
-- ARGV  1 lease        only what was entered under this lease is taken out
--       2 announce_to  as in join.lua
--       3 client       connection id; absent: every connection of the lease
-- Returns how many were taken out.

local function owned(value) return string.sub(value, 1, #ARGV[1] + 1) == ARGV[1] .. '\0' end

local leaving = {}
if ARGV[3] then
  local value = redis.call('HGET', KEYS[1], ARGV[3])
  if value and owned(value) then leaving[ARGV[3]] = value end
else
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if owned(all[i + 1]) then leaving[all[i]] = all[i + 1] end
  end
end

local announced = redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[2])
local count = 0
for client, value in pairs(leaving) do
  redis.call('HDEL', KEYS[1], client)
  count = count + 1
  if announced then
    redis.call('SPUBLISH', KEYS[2], 'l\n' .. string.match(value, '^%Z*%z%Z*%z(.*)$'))
  end
end
return count
