-- What changed messages since they were said: their last edit, and how many have reacted how. The arguments are the
-- messages' offsets.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes   as in log.lua
-- Returns {edit, kinds, kind, count, kind, count, ..., edit, ...} for each in turn: edit is the last edit's publication
-- or '', kinds how many kinds follow.

local reply = {}
for _, offset in ipairs(ARGV) do
  local edits = padded(offset) .. '\0e'
  local note = redis.call('ZREVRANGEBYLEX', KEYS[4], '(' .. edits .. '\255', '[' .. edits, 'LIMIT', 0, 1)[1]
  local id = note and string.format('%d-0', string.sub(note, #edits + 1))
  local entry = id and redis.call('XRANGE', KEYS[2], id, id)[1]
  local kinds = kinds_of(offset)
  reply[#reply + 1] = entry and entry[2][2] or ''
  reply[#reply + 1] = #kinds
  for _, kind in ipairs(kinds) do
    reply[#reply + 1] = kind
    reply[#reply + 1] = count_of(offset, kind)
  end
end
return reply
