-- Claim one node whose lease has ended, so that exactly one survivor clears up after it. Whose own has ended as well may
-- judge nobody: after a pause of all of them, all have.
--
-- KEYS  1 leases  as in enroll.lua
--       2 claims  sorted set: lease -> end of the claim, Unix ms; a claimant that dies itself loses it
-- ARGV  1 claim_ms
--       2 by  lease of the claimant
-- Returns the lease, or false when there is none to claim.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local own = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not own or tonumber(own) < now then return false end
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%d', now))) do
  local claimed = redis.call('ZSCORE', KEYS[2], lease)
  if not claimed or tonumber(claimed) < now then
    redis.call('ZADD', KEYS[2], now + ARGV[1], lease)
    return lease
  end
end
return false
