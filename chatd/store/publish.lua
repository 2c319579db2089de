-- Append a message to a room's history and tell every node, as one step.
--
-- KEYS  1 meta    hash: epoch, offset of the room's last message
--       2 log     stream: one entry a message, id <offset>-0, fields b (publication as JSON) and t (Unix ms)
--       3 feed    sharded channel of the room
--       4 repeat  string "<offset> <epoch> <ms>": the first answer to this author's cid; absent without a cid
-- ARGV  1 head       the publication as JSON, without its closing brace, offset and time
--       2 keep       messages to keep; 0: the room has no history
--       3 keep_ms    how long to keep them; 0: for ever
--       4 epoch      epoch to begin if the room has none
--       5 repeat_ms  how long a repeated cid returns the first answer
-- Returns {offset, epoch, ms, fresh}: fresh is 0 when the cid was seen before and nothing was done.

local repeat_key = KEYS[4]
if repeat_key then
  local first = redis.call('GET', repeat_key)
  if first then
    local offset, epoch, ms = string.match(first, '^(%d+) (%S*) (%d+)$')
    return {tonumber(offset), epoch, tonumber(ms), 0}
  end
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local keep, keep_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local offset, epoch, body = 0, '', nil

if keep > 0 then
  epoch = redis.call('HGET', KEYS[1], 'epoch')
  if not epoch then
    epoch = ARGV[4]
    redis.call('HSET', KEYS[1], 'epoch', epoch)  -- first, for a script that has written may go on without memory
    redis.call('DEL', KEYS[2])
  end
  offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
  body = ARGV[1] .. ',"offset":' .. offset .. ',"time":' .. string.format('%d', now)
  -- The first message names its epoch, so that a reader who came before any message learns it.
  if offset == 1 then body = body .. ',"epoch":"' .. epoch .. '"' end
  body = body .. '}'
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', keep, offset .. '-0', 'b', body, 't', string.format('%d', now))
  if keep_ms > 0 then
    redis.call('PEXPIRE', KEYS[2], keep_ms)
    -- The count outlives the messages, so that a late reader learns that he missed some rather than meeting old numbers.
    redis.call('PEXPIRE', KEYS[1], keep_ms + 604800000)
    -- Two looked at for each one added: the log can only shrink towards its age.
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)) do
      if tonumber(entry[2][4]) < now - keep_ms then redis.call('XDEL', KEYS[2], entry[1]) end
    end
  else
    redis.call('PERSIST', KEYS[1])
    redis.call('PERSIST', KEYS[2])
  end
else
  body = ARGV[1] .. ',"time":' .. string.format('%d', now) .. '}'
end

if repeat_key then
  redis.call('SET', repeat_key, offset .. ' ' .. epoch .. ' ' .. string.format('%d', now), 'PX', ARGV[5])
end
redis.call('SPUBLISH', KEYS[3], 'p ' .. offset .. ' ' .. epoch .. '\n' .. body)
return {offset, epoch, now, 1}
