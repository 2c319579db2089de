-- How a message has been reacted to; a fragment, which follows log.lua.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes   as in log.lua
-- Returns nothing: it gives `kinds_of` and `count_of` to what follows.

-- The kinds of reactions that a message has, in the order of their bytes.
local function kinds_of(offset)
  local kinds, reactions = {}, padded(offset) .. '\0r'
  local from = '[' .. reactions
  while true do
    -- What is stored is UTF-8, in which there is no byte 255.
    local found = redis.call('ZRANGEBYLEX', KEYS[4], from, '(' .. reactions .. '\255', 'LIMIT', 0, 1)[1]
    if not found then return kinds end
    local kind = string.match(found, '^[^%z]*', #reactions + 1)
    kinds[#kinds + 1] = kind
    from = '(' .. reactions .. kind .. '\1'
  end
end

-- How many have reacted with a kind.
local function count_of(offset, kind)
  local prefix = padded(offset) .. '\0r' .. kind .. '\0'
  return redis.call('ZLEXCOUNT', KEYS[4], '[' .. prefix, '(' .. prefix .. '\255')
end

