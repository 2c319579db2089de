-- A page of a room's history, with the room's top; begins an epoch if the room has none.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes   as in log.lua
-- ARGV  1 after    offsets above it are wanted; with reverse, offsets below it; -1: from the end asked for
--       2 limit    at most this many; 0: the top only
--       3 reverse  1: newest first
--       4 keep_ms  older messages are not shown; 0: all are
--       5 epoch    epoch to begin if the room has none
--       6 floor    only offsets above it; 0: all
--       7 folding  1: events about earlier messages come without body, as the notes say what they did
-- Returns {epoch, top offset, offset, body, offset, body, ...}, of offsets that follow on each other; what was erased is
-- there as its tombstone.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
local keep_ms = tonumber(ARGV[4])
if not epoch then
  epoch = ARGV[5]
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0)
end
local reply = {epoch, tonumber(redis.call('HGET', KEYS[1], 'offset'))}
-- A room in which nothing was ever said is forgotten a week after its last reader; append.lua keeps it longer.
if reply[2] == 0 then redis.call('PEXPIRE', KEYS[1], 604800000) end
local limit = tonumber(ARGV[2])
if limit == 0 then return reply end

local after, reverse, floor, folding = tonumber(ARGV[1]), ARGV[3] == '1', tonumber(ARGV[6]), ARGV[7] == '1'
local oldest = keep_ms > 0 and now - keep_ms or 0

-- Whoever reads on from `after` begins behind what is past its age, however much of that waits for the sweep.
local function behind_the_aged(most)
  local seen = redis.call('XRANGE', KEYS[2], '(' .. after .. '-0', '+', 'COUNT', most)
  for _, entry in ipairs(seen) do
    if tonumber(entry[2][4]) >= oldest then return true end
    after = tonumber(string.match(entry[1], '^%d+'))
  end
  return #seen < most
end

local entries, tombstones
if reverse then
  local from = after < 0 and '+' or ('(' .. after .. '-0')
  entries = redis.call('XREVRANGE', KEYS[2], from, '(' .. floor .. '-0', 'COUNT', limit)
  from = after < 0 and '+inf' or ('(' .. after)
  tombstones = redis.call('ZREVRANGEBYSCORE', KEYS[3], from, '(' .. floor, 'WITHSCORES', 'LIMIT', 0, limit)
else
  after = math.max(after, floor)
  if keep_ms > 0 and not behind_the_aged(1) then
    repeat until behind_the_aged(100)
  end
  entries = redis.call('XRANGE', KEYS[2], '(' .. after .. '-0', '+', 'COUNT', limit)
  tombstones = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
end

local i, j = 1, 1
-- The next of either, as offset, body, Unix ms; nil when both are through.
local function next_one()
  local entry, grave = entries[i], tonumber(tombstones[j + 1])
  local said = entry and tonumber(string.match(entry[1], '^%d+'))
  if grave and (not said or (grave < said) ~= reverse) then
    j = j + 2
    -- No text of a user's can look like this: a quotation mark within a string has a backslash before it.
    return grave, tombstones[j - 2], tonumber(string.match(tombstones[j - 2], '"time":(%d+)'))
  end
  if said then
    i = i + 1
    return said, entry[2][5] and folding and '' or entry[2][2], tonumber(entry[2][4])
  end
end

local before
for _ = 1, limit do
  local offset, body, ms = next_one()
  if not offset then break end
  if before and offset ~= before + (reverse and -1 or 1) then
    -- Somebody else's hand was here. What lies before the hole is not history any more.
    if reverse then break end
    reply = {reply[1], reply[2]}
  end
  before = offset
  if ms >= oldest then
    reply[#reply + 1] = offset
    reply[#reply + 1] = body
  end
end
return reply
