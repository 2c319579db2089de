-- Append a message to a room's history and tell every node, as one step, if the room lets its author speak now.
--
-- KEYS  1 meta     hash: epoch, offset of the room's last message
--       2 log      stream: one entry a message, id <offset>-0, fields b (publication as JSON) and t (Unix ms)
--       3 feed     sharded channel of the room
--       4 room     hash, absent unless somebody created the room: public, locked (0 or 1), slow (ms), and more
--       5 members  hash: user -> "<role> <offset at which they joined> <Unix ms>"
--       6 repeat   string "<offset> <epoch> <ms>": the first answer to this author's cid
--       7 nonce    string, there while this author's signature must not be used again
--       8 quiet    string, there while a slow room wants this author to be silent
-- ARGV  1 head       the publication as JSON, without its closing brace, offset and time
--       2 keep       messages to keep; 0: the room has no history
--       3 keep_ms    how long to keep them; 0: for ever
--       4 epoch      epoch to begin if the room has none
--       5 repeat_ms  how long a repeated cid returns the first answer; 0: it has no cid
--       6 user       author; '' for the server, who may always speak
--       7 role       number of the role that tokens give the author here
--       8 public     1: where nobody created the room, anybody may speak
--       9 nonce_ms   how long the signature must not be used again; 0: there is none
--      10 blocker    field of the room's hash that, where it is there, silences the author; '' for none
--      11 least      number of the role that a lockdown wants of the author; 0: there is none
-- Returns {offset, epoch, ms, fresh}, where fresh is 0 when the cid was seen before and nothing was done; or
-- {-1, why, wait_ms} when it was refused, with why one of outsider, lockdown, blocked, locked, slow, replayed.

local MODERATOR = 3

if ARGV[5] ~= '0' then
  local first = redis.call('GET', KEYS[6])
  if first then
    local offset, epoch, ms = string.match(first, '^(%d+) (%S*) (%d+)$')
    return {tonumber(offset), epoch, tonumber(ms), 0}
  end
end

if ARGV[6] ~= '' then
  local room = redis.call('HMGET', KEYS[4], 'public', 'locked', 'slow', ARGV[10])
  local role = tonumber(ARGV[7])
  local public = ARGV[8]
  if room[1] then
    public = room[1]
    local member = redis.call('HGET', KEYS[5], ARGV[6])
    if member then role = math.max(role, tonumber(string.match(member, '^%d+'))) end
  end
  if role == 0 and public ~= '1' then return {-1, 'outsider', 0} end
  if role < tonumber(ARGV[11]) then return {-1, 'lockdown', 0} end
  if ARGV[10] ~= '' and room[4] then return {-1, 'blocked', 0} end
  if role < MODERATOR then
    if room[2] == '1' then return {-1, 'locked', 0} end
    local slow = tonumber(room[3] or 0)
    if slow > 0 and not redis.call('SET', KEYS[8], '', 'NX', 'PX', slow) then
      return {-1, 'slow', redis.call('PTTL', KEYS[8])}
    end
  end
end
if ARGV[9] ~= '0' and not redis.call('SET', KEYS[7], '', 'NX', 'PX', ARGV[9]) then return {-1, 'replayed', 0} end

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

if ARGV[5] ~= '0' then
  redis.call('SET', KEYS[6], offset .. ' ' .. epoch .. ' ' .. string.format('%d', now), 'PX', ARGV[5])
end
redis.call('SPUBLISH', KEYS[3], 'p ' .. offset .. ' ' .. epoch .. '\n' .. body)
return {offset, epoch, now, 1}
