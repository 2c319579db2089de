-- Claim one node whose lease has ended, so that exactly one survivor clears up after it. Whose own has ended as well may
-- judge nobody: after a pause of all of them, all have.
--
-- KEYS  1 leases  as in enroll.lua
--       2 claims  hash: lease -> "<end of the claim, Unix ms> <claimant>"; one that dies itself loses it
-- ARGV  1 claim_ms
--       2 by        lease of the claimant
--       3 claimant  its id, which stays the same under another lease
-- Returns the lease, or false when there is none to claim. What it has claimed before and did not bury comes again: it
-- may not have been told, or not have come to its end.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local own = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not own or tonumber(own) < now then return false end
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%d', now))) do
  local ends, by = string.match(redis.call('HGET', KEYS[2], lease) or '0 ', '^(%d+) (.*)$')
  if by == ARGV[3] or tonumber(ends) < now then
    redis.call('HSET', KEYS[2], lease, string.format('%d', now + ARGV[1]) .. ' ' .. ARGV[3])
    return lease
  end
end
return false
