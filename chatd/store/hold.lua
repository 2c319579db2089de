-- Take, keep or let go a shard of the outboxes, unless another node has it.
--
-- KEYS  1 holder  string: the lease of the node that delivers; it ends by itself if that node dies
-- ARGV  1 lease
--       2 ttl_ms  how long it is held; 0: it is let go
-- Returns 1 when it is, or was, ours; 0 when another has it.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
