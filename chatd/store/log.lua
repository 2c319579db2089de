-- A room's history, how it is trimmed and what changed its messages; a fragment, with which such scripts begin.
--
-- KEYS  1 meta   hash: epoch, offset of the room's last message, erased (1: bodies wait for sweep.lua), changed
--                (1: something is in gone or notes), lasts (Unix ms until which all four live; 'ever')
--       2 log    stream: one entry a message, id <offset>-0, fields b (publication as JSON), t (Unix ms) and, for an
--                event about an earlier message, o (that one's offset)
--       3 gone   sorted set: a tombstone, as JSON, for each entry taken out of the log; its score is the offset
--       4 notes  sorted set, all scores 0: what changed a message, "<its offset, 16 digits>\0e<offset of an edit>" and
--                "<its offset>\0r<kind>\0<user>" for each reaction
-- Returns nothing: it gives `now` (Unix ms), `stamp` (the same as text), `padded`, `first_kept` and `trim` to what follows.

local clock = redis.call('TIME')
local stamp = string.format('%s%03d', clock[1], clock[2] / 1000)
local now = tonumber(stamp)

-- Offsets as text that sorts like numbers.
local function padded(offset) return string.format('%016d', offset) end

-- The first offset to be kept, of a room whose last is `top`. Its messages are `keep` offsets, deleted ones included, so
-- that an erased body is no reason to keep an older one. Of those past their age up to `most` are looked for.
local function first_kept(top, keep, keep_ms, most)
  local first = top - keep + 1
  if keep_ms > 0 then
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', most)) do
      if tonumber(entry[2][4]) >= now - keep_ms then break end
      first = math.max(first, tonumber(string.match(entry[1], '^%d+')) + 1)
    end
  end
  return first
end

local function trim(first)
  if first <= 1 then return 0 end
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. first)
  redis.call('ZREMRANGEBYLEX', KEYS[4], '-', '(' .. padded(first))
  return redis.call('XTRIM', KEYS[2], 'MINID', '=', first .. '-0')
end
