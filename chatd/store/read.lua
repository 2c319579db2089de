-- Move a user's cursor in a room forward; never back, but where the room's count has begun anew.
--
-- KEYS  1 cursors  hash: room -> "<offset> <epoch>", up to which the user has read
-- ARGV  1 room
--       2 offset
--       3 epoch   of this offset
-- Returns {offset, moved}: where the cursor is, and 1 if that is news.

local at, epoch = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (.*)$')
local offset = tonumber(ARGV[2])
if epoch == ARGV[3] and tonumber(at) >= offset then return {tonumber(at), 0} end
if not at and offset == 0 then return {0, 0} end  -- or the names of rooms that nobody uses would stay for ever
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d %s', offset, ARGV[3]))
return {offset, 1}
