-- A page of a room's history, with the room's top; begins an epoch if the room has none.
--
-- KEYS  1 meta, 2 log   as in publish.lua
-- ARGV  1 after    offsets above it are wanted; with reverse, offsets below it; -1: from the end asked for
--       2 limit    at most this many; 0: the top only
--       3 reverse  1: newest first
--       4 keep_ms  older messages are not shown; 0: all are
--       5 epoch    epoch to begin if the room has none
-- Returns {epoch, top offset, offset, body, offset, body, ...}.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
local keep_ms = tonumber(ARGV[4])
if not epoch then
  epoch = ARGV[5]
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
end
local reply = {epoch, tonumber(redis.call('HGET', KEYS[1], 'offset'))}
-- A room in which nothing was ever said is forgotten a week after its last reader; publish.lua keeps it longer.
if reply[2] == 0 then redis.call('PEXPIRE', KEYS[1], 604800000) end
local limit = tonumber(ARGV[2])
if limit == 0 then return reply end

local after, entries = tonumber(ARGV[1]), nil
if ARGV[3] == '1' then
  local from = after < 0 and '+' or ('(' .. after .. '-0')
  entries = redis.call('XREVRANGE', KEYS[2], from, '-', 'COUNT', limit)
else
  local from = after < 0 and '-' or ('(' .. after .. '-0')
  entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', limit)
end
local oldest = 0
if keep_ms > 0 then
  local clock = redis.call('TIME')
  oldest = clock[1] * 1000 + math.floor(clock[2] / 1000) - keep_ms
end
for _, entry in ipairs(entries) do
  if tonumber(entry[2][4]) >= oldest then
    reply[#reply + 1] = tonumber(string.match(entry[1], '^%d+'))
    reply[#reply + 1] = entry[2][2]
  end
end
return reply
