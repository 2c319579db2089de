-- Take a message's or an event's body away; a fragment, which follows log.lua.
--
-- KEYS  1 meta, 2 log, 3 gone   as in log.lua
-- Returns nothing: it gives `erase` to what follows.

-- Leave a tombstone in place of an entry of the log. What is left of it: where and when, with `of` that it was about
-- an earlier message, and with `info` (as in a publication) who wrote it.
local function erase(offset, kind, of, info)
  local id = string.format('%d-0', offset)
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  if not entry then return 0 end
  local body = '{"data":{}'
  if info then body = body .. ',"info":' .. cjson.encode({user = info.user, client = info.client}) end
  body = body .. ',"tags":{"type":"' .. kind .. '"'
  if of then body = body .. ',"of":"' .. of .. '"' end
  body = body .. '},"offset":' .. offset .. ',"time":' .. entry[2][4]
  if offset == 1 then body = body .. ',"epoch":"' .. redis.call('HGET', KEYS[1], 'epoch') .. '"' end
  redis.call('ZADD', KEYS[3], offset, body .. '}')
  redis.call('XDEL', KEYS[2], id)
  redis.call('HSET', KEYS[1], 'erased', 1)
  return 1
end
