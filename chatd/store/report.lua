-- File a report, unless its author has one open on the same message.
--
-- KEYS  1 reports   stream: report, as JSON, and about, as in reported
--       2 reported  hash: who reports which message -> id of the report that is open
-- ARGV  1 report
--       2 about  field of reported
--       3 most   open reports beyond this push out the oldest
-- Returns {id, 1}; or {id, 0}, the one that is open, where nothing was done.

local open = redis.call('HGET', KEYS[2], ARGV[2])
if open and #redis.call('XRANGE', KEYS[1], open, open) > 0 then return {open, 0} end
while redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', KEYS[1], oldest[1])
  if oldest[2][4] then redis.call('HDEL', KEYS[2], oldest[2][4]) end
end
local id = redis.call('XADD', KEYS[1], '*', 'report', ARGV[1], 'about', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], id)
return {id, 1}
