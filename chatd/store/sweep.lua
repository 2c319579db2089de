-- Trim a room's history to what its rules keep, and rewrite it if bodies were erased.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes   as in log.lua
-- ARGV  1 keep     as in append.lua
--       2 keep_ms  as in append.lua
--       3 most     entries to look at for their age
--       4 rewrite  logs longer than this are not rewritten
-- Returns {trimmed, rewritten}: how many entries went, and 1 if the log was rewritten.

local top = tonumber(redis.call('HGET', KEYS[1], 'offset') or 0)
local trimmed = trim(first_kept(top, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])))
local left = redis.call('XLEN', KEYS[2])
-- The server only marks an entry as deleted: its bytes stay, in memory and on disk, as long as entries beside it do.
if not redis.call('HGET', KEYS[1], 'erased') or left > tonumber(ARGV[4]) then return {trimmed, 0} end
local ttl = redis.call('PTTL', KEYS[2])
local entries = redis.call('XRANGE', KEYS[2], '-', '+')
redis.call('DEL', KEYS[2])
for _, entry in ipairs(entries) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
if ttl > 0 then redis.call('PEXPIRE', KEYS[2], ttl) end
redis.call('HDEL', KEYS[1], 'erased')
return {trimmed, 1}
