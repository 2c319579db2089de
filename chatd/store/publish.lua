-- Append a message to a room's history and tell every node, as one step, if the room lets its author speak now.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes, 5 feed, 6 room, 7 members, 8 quiet   as in append.lua
--       9 repeat    string "<offset> <epoch> <ms>": the first answer to this author's cid
--       10 outbox   stream, see delivered.lua: what the application is to be told
--       11 nonce    string, there while this author's signature must not be used again
-- ARGV  1 head, 2 keep, 3 keep_ms, 4 epoch, 5 user, 6 role, 7 public, 8 blocker, 9 least   as in append.lua
--       10 repeat_ms  how long a repeated cid returns the first answer; 0: it has no cid
--       11 told       how many entries the outbox may have; 0: the application is not told of this
--       12 nonce_ms   how long the signature must not be used again; 0: there is none
--       13 reply_to   offset of the message that it answers; 0: of none
--                     Of 10 to 13 the last ones may be absent instead of 0, and of the keys 9 to 11 as many.
-- Returns "<offset> <epoch> <ms>"; or {"<offset> <epoch> <ms>"}, the first answer, when the cid was seen before and
-- nothing was done; or {-1, why, wait_ms} when it was refused, with why one of outsider, lockdown, blocked, locked,
-- missing, deleted, slow, replayed.

local function given(i) return (ARGV[i] or '0') ~= '0' end

if given(10) then
  local first = redis.call('GET', KEYS[9])
  local epoch = first and string.match(first, ' (.*) ')
  -- In a room that was deleted since, and has begun anew, it is not there any more.
  if epoch == '' or (epoch and epoch == redis.call('HGET', KEYS[1], 'epoch')) then return {first} end
end

local role, why = author_role()
if not role then return {-1, why, 0} end
if given(13) then
  local message, lacking = find(ARGV[13])
  if not message then return {-1, lacking, 0} end
end
local wait_ms = silent_ms(role)
if wait_ms > 0 then return {-1, 'slow', wait_ms} end
if given(12) and not redis.call('SET', KEYS[11], '', 'NX', 'PX', ARGV[12]) then return {-1, 'replayed', 0} end

local offset, epoch, body = append()
if given(11) then
  redis.call('XADD', KEYS[10], 'MAXLEN', '~', ARGV[11], '*', 'e', 'message', 'b', body, 't', stamp)
end
local answer = offset .. ' ' .. epoch .. ' ' .. stamp
if given(10) then redis.call('SET', KEYS[9], answer, 'PX', ARGV[10]) end
return answer
