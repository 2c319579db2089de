-- Take a user out of a room: what they wrote, how they reacted, their membership; readers are told by one event.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes, 5 feed, 6 room, 7 members, 8 quiet   as in append.lua
--       9 outbox   as in publish.lua
-- ARGV  1 head     the event, a deletion that names all offsets below; without closing brace, offset and time
--       2 keep, 3 keep_ms, 4 epoch, 5 user, 6 role, 7 public, 8 blocker, 9 least   as in append.lua
--       10 forgotten  the user
--       11 told       how many entries the outbox may have; 0: the application is not told of the event
--       12 read_in    epoch in which the offsets below were read
--       13 offsets of what the user wrote, as many as there are
-- Returns {messages, reactions, memberships, ownerless}: how many bodies of messages and edits are gone, how many
-- reactions, whether a membership was, and 1 if it was the last owner's; messages is -1, and nothing was done, where the
-- epoch is another by now.

local forgotten = ARGV[10]
if ARGV[13] and redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[12] then return {-1, 0, 0, 0} end

local function take_back_reactions(of)
  local prefix, theirs, count = padded(of) .. '\0r', '\0' .. forgotten, 0
  for _, note in ipairs(redis.call('ZRANGEBYLEX', KEYS[4], '[' .. prefix, '(' .. prefix .. '\255')) do
    if string.sub(note, -#theirs) == theirs then count = count + redis.call('ZREM', KEYS[4], note) end
  end
  return count
end

-- Take the name from a tombstone. It stands before the tags, and no text of a user's can look like where these begin.
local function unsign(offset)
  local body = redis.call('ZRANGEBYSCORE', KEYS[3], offset, offset)[1]
  local tags = body and string.find(body, ',"tags":{"type":"', 1, true)
  if not tags then return end
  redis.call('ZREM', KEYS[3], body)
  redis.call('ZADD', KEYS[3], offset, '{"data":{}' .. string.sub(body, tags))
end

local messages, reactions, erased = 0, 0, 0
for i = 13, #ARGV do
  local offset = tonumber(ARGV[i])
  local id = string.format('%d-0', offset)
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  local of = entry and entry[2][6]
  local parsed, publication = pcall(cjson.decode, entry and entry[2][2] or '')
  local kind = parsed and publication.tags and publication.tags.type
  if not entry then
    unsign(offset)
  elseif kind == 'delete' then
    erase(offset, 'delete', of)  -- who did it is forgotten, and that it was done is not
  elseif kind == 'react' then
    reactions = reactions + take_back_reactions(of)
    erased = erased + erase(offset, 'deleted', of)
  else
    local prefix = padded(offset) .. '\0'
    redis.call('ZREMRANGEBYLEX', KEYS[4], '[' .. prefix, '(' .. prefix .. '\255')
    erased = erased + erase(offset, 'deleted', of)
    messages = messages + 1
  end
end
if erased > 0 then
  local top, _, body = append(ARGV[13])
  redis.call('HSET', KEYS[1], 'changed', 1)
  tend(top)
  if ARGV[11] ~= '0' then
    redis.call('XADD', KEYS[9], 'MAXLEN', '~', ARGV[11], '*', 'e', 'delete', 'b', body, 't', stamp)
  end
end

local membership = redis.call('HGET', KEYS[7], forgotten)
local ownerless = membership and string.sub(membership, 1, 1) == '4' and 1 or 0
if membership then
  redis.call('HDEL', KEYS[7], forgotten)
  for _, other in ipairs(redis.call('HVALS', KEYS[7])) do
    if string.sub(other, 1, 1) == '4' then ownerless = 0 end
  end
end
redis.call('HDEL', KEYS[6], 'shut:' .. forgotten)
if redis.call('HGET', KEYS[6], 'by') == forgotten then redis.call('HSET', KEYS[6], 'by', '') end
return {messages, reactions, membership and 1 or 0, ownerless}
