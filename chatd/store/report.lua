-- File a report, unless its author has one open on the same message, or as many open as one may.
--
-- KEYS  1 reports   stream: report, as JSON, and about, as in reported
--       2 reported  sorted set, all scores 0: "<about>\0<id>" of each report that is open; about is JSON of who reports
--                   which message
-- ARGV  1 report
--       2 about
--       3 whose  what the about of each of this author's begins with
--       4 most   open reports beyond this push out the oldest
--       5 each   open reports that one author may have
-- Returns {id, 1}; {id, 0}, the one that is open, where nothing was done; or {'', -1}: the author has too many.

local function from(start) return '[' .. start, '(' .. start .. '\255' end  -- no text has such a byte
local known = redis.call('ZRANGEBYLEX', KEYS[2], from(ARGV[2] .. '\0'))[1]
if known then
  local open = string.sub(known, #ARGV[2] + 2)
  if #redis.call('XRANGE', KEYS[1], open, open) > 0 then return {open, 0} end
  redis.call('ZREM', KEYS[2], known)
end
if redis.call('ZLEXCOUNT', KEYS[2], from(ARGV[3])) >= tonumber(ARGV[5]) then return {'', -1} end
while redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) do
  local id, fields = unpack(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1])
  redis.call('XDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], (fields[4] or '') .. '\0' .. id)
end
local id = redis.call('XADD', KEYS[1], '*', 'report', ARGV[1], 'about', ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[2] .. '\0' .. id)
return {id, 1}
