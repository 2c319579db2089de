-- Take everything that was entered under a dead lease out of one shard of the registry.
--
-- KEYS  1 shard  as in register.lua
-- ARGV  1 lease
-- Returns {count, ms, user, ...}: how many connections were taken out, the Unix ms of now, and the users, as JSON, who
-- have no other connection.

local clock = redis.call('TIME')
local reply = {0, clock[1] * 1000 + math.floor(clock[2] / 1000)}
local gone = {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local user, lease = string.match(member, '^(%Z*)%z%Z*%z(%Z*)%z')
  if lease == ARGV[1] then
    redis.call('ZREM', KEYS[1], member)
    reply[1] = reply[1] + 1
    gone[user] = true
  end
end
for user in pairs(gone) do
  if redis.call('ZLEXCOUNT', KEYS[1], '[' .. user .. '\0', '(' .. user .. '\0\255') == 0 then
    reply[#reply + 1] = user
  end
end
return reply
