-- Edit, delete or react to a message, as an event of its own that is appended to the room's history, if its author may.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes, 5 feed, 6 room, 7 members, 8 quiet   as in append.lua
--       9 nonce, 10 outbox   as in publish.lua
-- ARGV  1 head, 2 keep, 3 keep_ms, 4 epoch, 5 user, 6 role, 7 public, 8 blocker, 9 least   as in append.lua
--       10 what       edit, delete or react
--       11 of         offset of the message
--       12 window_ms  how long after it was said its author may edit or delete it
--       13 kind       of the reaction
--       14 on         1: it is put there; 0: it is taken back
--       15 kinds      the most kinds of reactions that a message has
--       16 nonce_ms   how long the signature must not be used again; 0: there is none
--       17 told       how many entries the outbox may have; 0: the application is not told of this
-- Returns "<offset> <epoch> <ms>"; or {"<offset> <epoch> <ms>"}, with the room's last offset, when that was so already
-- and nothing was done; or {-1, why, wait_ms} when it was refused, with why as in publish.lua or one of foreign, late,
-- full.

local what, of, on = ARGV[10], tonumber(ARGV[11]), ARGV[14] == '1'
local prefix = padded(of) .. '\0'
local reactions, edits = prefix .. 'r', prefix .. 'e'

-- Why this author may not edit or delete this message; nil: they may.
local function refused(message, role)
  if role == SERVER or what == 'react' or (what == 'delete' and role >= MODERATOR) then return nil end
  if not message.info or message.info.user ~= ARGV[5] then return 'foreign' end
  if now - message.ms >= tonumber(ARGV[12]) then return 'late' end
end

local function full()
  return count_of(of, ARGV[13]) == 0 and #kinds_of(of) >= tonumber(ARGV[15])
end

-- Do not tell the application any more of what it has not heard of yet; that waits under the time of its saying, or a
-- little later: before Redis 7.2 the clock goes on within a script, and the message had its time first.
local function withdraw(offset)
  local id = string.format('%d-0', offset)
  for _, said in ipairs(redis.call('XRANGE', KEYS[2], id, id)) do
    for _, entry in ipairs(redis.call('XRANGE', KEYS[10], said[2][4], said[2][4] + 1000)) do
      if entry[2][4] == said[2][2] then redis.call('XDEL', KEYS[10], entry[1]) end
    end
  end
end

local function delete(message)
  withdraw(of)
  for _, note in ipairs(redis.call('ZRANGEBYLEX', KEYS[4], '[' .. edits, '(' .. edits .. '\255')) do
    local edit = tonumber(string.sub(note, #edits + 1))
    withdraw(edit)
    erase(edit, 'deleted', of)
  end
  redis.call('ZREMRANGEBYLEX', KEYS[4], '[' .. prefix, '(' .. prefix .. '\255')
  erase(of, 'deleted', nil, message.info)
end

local role, why = author_role()
if not role then return {-1, why, 0} end
local message, lacking = find(of)
local reaction = reactions .. ARGV[13] .. '\0' .. ARGV[5]
local done = what == 'delete' and lacking == 'deleted'
if what == 'react' and message then done = (redis.call('ZSCORE', KEYS[4], reaction) and true or false) == on end
if done then
  local meta = redis.call('HMGET', KEYS[1], 'offset', 'epoch')
  return {meta[1] .. ' ' .. meta[2] .. ' ' .. stamp}
end
why = lacking or refused(message, role) or (what == 'react' and on and full() and 'full')
if why then return {-1, why, 0} end
local wait_ms = what == 'delete' and 0 or silent_ms(role)
if wait_ms > 0 then return {-1, 'slow', wait_ms} end
if ARGV[16] ~= '0' and not redis.call('SET', KEYS[9], '', 'NX', 'PX', ARGV[16]) then return {-1, 'replayed', 0} end

local offset, epoch, body = append(ARGV[11])
if what == 'edit' then
  redis.call('ZADD', KEYS[4], 0, edits .. padded(offset))
elseif what == 'delete' then
  delete(message)
elseif on then
  redis.call('ZADD', KEYS[4], 0, reaction)
else
  redis.call('ZREM', KEYS[4], reaction)
end
redis.call('HSET', KEYS[1], 'changed', 1)
tend(offset)
if ARGV[17] ~= '0' then
  redis.call('XADD', KEYS[10], 'MAXLEN', '~', ARGV[17], '*', 'e', what, 'b', body, 't', stamp)
end
return offset .. ' ' .. epoch .. ' ' .. stamp
