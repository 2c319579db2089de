-- What holds in a room that somebody created, and what one user is there.
--
-- KEYS  1 room, 2 members   as in publish.lua
-- ARGV  1 user
-- Returns {exists, public, locked, slow, role, since}, all numbers; slow in ms, since an offset.

local room = redis.call('HMGET', KEYS[1], 'public', 'locked', 'slow')
if not room[1] then return {0, 0, 0, 0, 0, 0} end
local role, since = 0, 0
local member = redis.call('HGET', KEYS[2], ARGV[1])
if member then
  role, since = string.match(member, '^(%d+) (%d+)')
end
return {1, tonumber(room[1]), tonumber(room[2] or 0), tonumber(room[3] or 0), tonumber(role), tonumber(since)}
