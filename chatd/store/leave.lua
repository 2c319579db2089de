-- Take connections out of those present in a room; where it was a user's last, announce that the user left, now or later.
--
-- KEYS  1 present, 2 feed, 3 leaving, 4 outbox   as in join.lua
--       5 room                                   as in append.lua
-- ARGV  1 lease        only what was entered under this lease is taken out
--       2 announce_to  as in join.lua
--       3 delay_ms     how long to wait whether the user comes back; 0: it is announced now
--       4 told         as in join.lua
--       5 client       "<user as JSON>\0<connection>\0"; absent: every connection of the lease
-- Returns {count, due}: how many were taken out, and the Unix ms at which the next leave is to be announced, 0 for never.

local announced = redis.call('ZCARD', KEYS[1]) <= tonumber(ARGV[2])
local delay_ms = tonumber(ARGV[3])

local found
if ARGV[5] then
  found = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[5], '(' .. ARGV[5] .. '\255')
else
  found = redis.call('ZRANGE', KEYS[1], 0, -1)
end
local count, last = 0, {}
for _, member in ipairs(found) do
  local user, lease, info = string.match(member, '^(%Z*)%z%Z*%z(%Z*)%z(.*)$')
  if lease == ARGV[1] then
    redis.call('ZREM', KEYS[1], member)
    count = count + 1
    last[user] = info
  end
end
for user, info in pairs(last) do
  local others = redis.call('ZLEXCOUNT', KEYS[1], '[' .. user .. '\0', '(' .. user .. '\0\255')
  if others == 0 and announced then
    if delay_ms == 0 then
      announce(info, ARGV[4])
    else
      redis.call('HSET', KEYS[3], user, string.format('%d', now + delay_ms) .. '\0' .. info)
    end
  end
end
if count > 0 and redis.call('HEXISTS', KEYS[5], 'public') == 1 then
  redis.call('HSET', KEYS[5], 'alive', string.format('%d', now))  -- see dissolve.lua
end

local due = 0
for _, value in ipairs(redis.call('HVALS', KEYS[3])) do
  local at = tonumber(string.match(value, '^%d+'))
  if due == 0 or at < due then due = at end
end
return {count, due}
