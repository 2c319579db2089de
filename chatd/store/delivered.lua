-- Take an entry that was delivered out of a room's outbox.
--
-- KEYS  1 outbox  stream of entries with fields e (event), b (JSON), t (Unix ms)
-- ARGV  1 id
-- Returns how many entries are left.

redis.call('XDEL', KEYS[1], ARGV[1])
local left = redis.call('XLEN', KEYS[1])
if left == 0 then redis.call('DEL', KEYS[1]) end
return left
