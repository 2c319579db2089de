-- Take a user's name from what the server told of their doing; that it was done stays, and readers are told nothing new.
--
-- KEYS  1 meta, 2 log, 3 gone   as in log.lua
-- ARGV  1 read_in  epoch in which the offsets below were read
--       2 named    how the data of such a publication ends, and its tags begin, with the name
--       3 unnamed  the same without it
--       4 ...      offsets
-- Returns how many there were; 0, and nothing was done, where the epoch is another by now.

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local count = 0
for i = 4, #ARGV do
  local id = ARGV[i] .. '-0'
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  local body = entry and entry[2][2] or ''
  -- Within text there are no bare quotes, so it is found where it stands and nowhere else.
  local from, to = string.find(body, ARGV[2], 1, true)
  if from then
    redis.call('ZADD', KEYS[3], ARGV[i], string.sub(body, 1, from - 1) .. ARGV[3] .. string.sub(body, to + 1))
    redis.call('XDEL', KEYS[2], id)
    count = count + 1
  end
end
if count > 0 then redis.call('HSET', KEYS[1], 'erased', 1, 'changed', 1) end
return count
