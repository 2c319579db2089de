-- What holds in a room, what one user is there, and how far the room has come. Only looks.
--
-- KEYS  1 room, 2 members, 3 meta   as in append.lua and log.lua
-- ARGV  1 user
--       2 blocker  field of the room's hash that silences the user; '' for none
-- Returns {exists, public, locked, slow, role, since, blocked, epoch, top}: numbers, but for the epoch; slow in ms,
-- since an offset of this epoch.

local room = redis.call('HMGET', KEYS[1], 'public', 'locked', 'slow', ARGV[2])
local meta = redis.call('HMGET', KEYS[3], 'epoch', 'offset')
local epoch = meta[1] or ''
local role, since = 0, 0
local member = room[1] and redis.call('HGET', KEYS[2], ARGV[1])
if member then
  local at, joined_in
  role, at, joined_in = string.match(member, '^(%d+) (%d+) %d+ ?(.*)$')
  -- A count that has begun anew since says nothing about when he came.
  if joined_in == epoch then since = tonumber(at) end
end
return {
  room[1] and 1 or 0, tonumber(room[1] or 0), tonumber(room[2] or 0), tonumber(room[3] or 0), tonumber(role), since,
  ARGV[2] ~= '' and room[4] and 1 or 0, epoch, tonumber(meta[2] or 0),
}
