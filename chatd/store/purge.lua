-- Take everything that was entered under a dead lease out of one shard of the registry.
--
-- KEYS  1 shard  as in register.lua
-- ARGV  1 lease
-- Returns how many connections were taken out.

local count = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.match(member, '^%Z*%z%Z*%z(%Z*)%z') == ARGV[1] then
    redis.call('ZREM', KEYS[1], member)
    count = count + 1
  end
end
return count
