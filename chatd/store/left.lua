-- Announce those who left a room and have not come back in time, each once.
--
-- KEYS  1 present, 2 feed, 3 leaving, 4 outbox   as in join.lua
-- ARGV  1 announce_to, 2 told   as in join.lua
-- Returns the Unix ms at which the next one is to be announced; 0: there is none.

local announced = redis.call('ZCARD', KEYS[1]) <= tonumber(ARGV[1])
local due = 0
local all = redis.call('HGETALL', KEYS[3])
for i = 1, #all, 2 do
  local at, info = string.match(all[i + 1], '^(%d+)%z(.*)$')
  at = tonumber(at)
  if at <= now then
    redis.call('HDEL', KEYS[3], all[i])
    if announced then announce(info, ARGV[2]) end
  elseif due == 0 or at < due then
    due = at
  end
end
return due
