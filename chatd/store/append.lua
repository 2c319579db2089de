-- What holds before somebody may write into a room, and the writing; a fragment, which follows log.lua.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes   as in log.lua
--       5 feed     sharded channel of the room
--       6 room     hash: locked (0 or 1), slow (ms), topic, k:<key> of the application's own; and where somebody created
--                  the room, public (0 or 1), by, created and alive (Unix ms)
--       7 members  hash: user -> "<role> <offset at which they joined> <Unix ms> <epoch of that offset>"
--       8 quiet    string, there while a slow room wants this author to be silent
-- ARGV  1 head     the publication as JSON, without its closing brace, offset and time
--       2 keep     messages to keep; 0: the room has no history
--       3 keep_ms  how long to keep them; 0: for ever
--       4 epoch    epoch to begin if the room has none
--       5 user     author; '' for the server, who may do everything
--       6 role     number of the role that tokens give the author here
--       7 public   1: where nobody created the room, anybody may speak
--       8 blocker  field of the room's hash that, where it is there, silences the author; '' for none
--       9 least    number of the role that a lockdown wants of the author; 0: there is none
-- Returns nothing: it gives `author_role`, `silent_ms`, `find`, `tend` and `append` to what follows. Each function costs
-- every message, as scripts make theirs anew: what few scripts need stands elsewhere.

local keep, keep_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
-- Numbers of roles have one digit, so they compare as the text that they come in.
local NOBODY, MODERATOR, SERVER = '0', '3', '9'
local room = redis.call('HMGET', KEYS[6], 'public', 'locked', 'slow', ARGV[8])

-- The author's role in the room; or nil, and why it lets them write nothing.
local function author_role()
  if ARGV[5] == '' then return SERVER end
  local role, public = ARGV[6], ARGV[7]
  if room[1] then
    public = room[1]
    local member = redis.call('HGET', KEYS[7], ARGV[5])
    if member and string.sub(member, 1, 1) > role then role = string.sub(member, 1, 1) end
  end
  if role == NOBODY and public ~= '1' then return nil, 'outsider' end
  if role < ARGV[9] then return nil, 'lockdown' end
  if room[4] and ARGV[8] ~= '' then return nil, 'blocked' end
  if room[2] == '1' and role < MODERATOR then return nil, 'locked' end
  return role
end

-- How long a slow room still wants an author of this role to be silent; 0 when they may speak, and from then on they are
-- silent.
local function silent_ms(role)
  local slow_ms = room[3] or '0'
  if slow_ms == '0' or role >= MODERATOR then return 0 end
  if redis.call('SET', KEYS[8], '', 'NX', 'PX', slow_ms) then return 0 end
  return redis.call('PTTL', KEYS[8])
end

-- The message at `offset`: body, info as in it, and Unix ms; or nil and why not: deleted, or missing, as is what is no
-- message but an event about one.
local function find(offset)
  local id = string.format('%d-0', offset)
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  if not entry and redis.call('ZCOUNT', KEYS[3], offset, offset) > 0 then return nil, 'deleted' end
  if not entry or entry[2][5] then return nil, 'missing' end
  local ms = tonumber(entry[2][4])
  if keep_ms > 0 and ms < now - keep_ms then return nil, 'missing' end
  local parsed, publication = pcall(cjson.decode, entry[2][2])
  if parsed and publication.tags and publication.tags.type ~= 'message' then return nil, 'missing' end
  return {body = entry[2][2], info = parsed and publication.info, ms = ms}
end

-- See to the age of messages and to what belonged to those that went; `top` is the last offset.
local function tend(top)
  trim(first_kept(top, keep, keep_ms, 100))
  -- The history ages away as a whole; a quarter later than it must, so that not every message has to see to it.
  local ms = math.floor(keep_ms * 1.25)
  if keep_ms > 0 then
    for i = 2, 4 do redis.call('PEXPIRE', KEYS[i], ms) end
    -- The count outlives the messages, so that a late reader learns that he missed some rather than meeting old numbers.
    redis.call('PEXPIRE', KEYS[1], ms + 604800000)
  else
    for i = 1, 4 do redis.call('PERSIST', KEYS[i]) end
  end
  redis.call('HSET', KEYS[1], 'lasts', keep_ms > 0 and string.format('%d', now + ms) or 'ever')
end

-- Whether what is said now will have its time, `lasts` being what tend wrote.
local function is_kept_alive(lasts)
  if keep_ms == 0 then return lasts == 'ever' end
  return (tonumber(lasts) or 0) >= now + keep_ms
end

-- Append the publication to history, if the room has one, and tell every node; returns the offset as text, epoch and body;
-- '0' and '' if not.
local function append(of)
  local at, epoch, body = '0', ''
  if keep > 0 then
    local meta = redis.call('HMGET', KEYS[1], 'epoch', 'lasts', 'changed')
    epoch = meta[1]
    if not epoch then
      epoch = ARGV[4]
      redis.call('HSET', KEYS[1], 'epoch', epoch)  -- first, for a script that has written may go on without memory
      redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
    end
    local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
    at = string.format('%d', offset)
    -- The first message names its epoch, so that a reader who came before any message learns it.
    local ending = offset == 1 and ',"epoch":"' .. epoch .. '"}' or '}'
    body = ARGV[1] .. ',"offset":' .. at .. ',"time":' .. stamp .. ending
    local about = of and {'o', of} or {}
    local first = math.max(1, offset - keep + 1)
    redis.call('XADD', KEYS[2], 'MINID', '=', first, at, 'b', body, 't', stamp, unpack(about))
    if meta[3] then trim(first) end
    -- The rest is seen to now and then, and by the sweep.
    if not is_kept_alive(meta[2]) then tend(offset) end
  else
    body = ARGV[1] .. ',"time":' .. stamp .. '}'
  end
  if room[1] then redis.call('HSET', KEYS[6], 'alive', stamp) end
  redis.call('SPUBLISH', KEYS[5], 'p ' .. at .. ' ' .. epoch .. '\n' .. body)
  return at, epoch, body
end
