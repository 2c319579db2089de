-- How a room hears that somebody left; a fragment, with which such scripts begin.
--
-- KEYS  1 present, 2 feed, 3 leaving, 4 outbox   as in join.lua
-- Returns nothing: it gives `now` (Unix ms) and `announce` to what follows.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Tell the readers, and the application if its outbox may have entries, `told` of them, that a user left.
local function announce(info, told)
  redis.call('SPUBLISH', KEYS[2], 'l\n' .. info)
  if told == '0' then return end
  local stamp = string.format('%d', now)
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', told, '*', 'e', 'leave', 'b', info, 't', stamp)
end

