-- The nodes whose lease runs.
--
-- KEYS  1 leases, 2 nodes   as in enroll.lua
-- Returns {lease, info, lease, info, ...}.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local reply = {}
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%d', now), '+inf')) do
  reply[#reply + 1] = lease
  reply[#reply + 1] = redis.call('HGET', KEYS[2], lease) or '{}'
end
return reply
